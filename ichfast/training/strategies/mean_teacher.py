"""The mean teacher."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ichfast.training.steps import MovingAverage
from ichfast.training.steps.statistics import freeze_statistics
from ichfast.training.steps.together import Pair, TogetherStep
from ichfast.training.strategy import EveryEpoch


class MeanTeacherStep(TogetherStep):
    """Tarvainen and Valpola, NeurIPS 2017: L is the mean squared difference between a student's
    probabilities and its teacher's, each under its own noise. The teacher, whose weights are the
    student's exponential moving average, is the run's model."""

    name = "mean_teacher"
    cost = 2.8

    def make_networks(self) -> nn.Module:
        self.student = copy.deepcopy(self.model)
        self.teacher = MovingAverage(self.model, self.student, self.recipe.together.ema)
        return self.student

    def backward(self, pair: Pair) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), freeze_statistics(self.model):
            self.model.train()
            target = self.forward(self.model.segment, self.add_noise(pair)).sigmoid()
        supervised = self.loss(self.forward(self.student.segment, pair.image), pair.mask)
        further = F.mse_loss(
            self.forward(self.student.segment, self.add_noise(pair)).sigmoid(), target
        )
        further = self.mean(further, pair)
        (supervised + pair.weight * further).backward()
        return supervised, further

    def finish_update(self) -> None:
        self.teacher.update()
        super().finish_update()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "student": self.student.state_dict(),
            "updates": self.teacher.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.student.load_state_dict(state["student"])
        self.teacher.updates = state["updates"]


class MeanTeacher(EveryEpoch, name="mean_teacher"):
    label = "Mean teacher"
    about = (
        "supervised loss, and the difference from an averaged teacher (Tarvainen and Valpola 2017)"
    )
    model = "unet"
    unlabelled = "images"
    batchwise = True
    step = MeanTeacherStep
