"""What steps share in which one network's guess of an unlabelled slice teaches another, which sees
that slice in a strong view."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ichfast.data import SliceSet
from ichfast.errors import DataError
from ichfast.models import ReducedUNet
from ichfast.training.steps.average import MovingAverage
from ichfast.training.steps.batches import take_share
from ichfast.training.steps.loss import make_pseudo_loss
from ichfast.training.steps.statistics import freeze_statistics
from ichfast.training.steps.together import Pair, TogetherStep
from ichfast.training.strong import cut_and_mix, draw_strong
from ichfast.training.views import change_greys


class TaughtStep(TogetherStep):
    """Unlabelled slices pass with the batch's own statistics and leave no trace in the running
    ones, which are those of the labelled slices: that is what inference will see."""

    def prepare(self) -> None:
        super().prepare()
        self.pseudo_loss = make_pseudo_loss(self.recipe, self.team)
        self.negative: Tensor | None = None
        if self.recipe.together.slice_labels == "use":
            self.negative = find_negative(self.unlabelled, "together.slice_labels = use")

    def guess(self, network: ReducedUNet, pair: Pair) -> Tensor:
        """Probabilities (U, 1, S, S) that ``network`` gives the unlabelled slices as they are; 0
        all over a slice that is known to have no haemorrhage."""
        network.train()  # by the batch's own statistics
        with torch.no_grad(), freeze_statistics(network):
            guess = self.forward(network.segment, pair.unlabelled).float().sigmoid()
        if self.negative is None:
            return guess
        places, _ = take_share(self.team, pair.batch)
        known = self.negative[torch.from_numpy(places)].to(guess.device, non_blocking=True)
        return guess.masked_fill(known.view(-1, 1, 1, 1), 0)

    def perturb(self, pair: Pair, guess: Tensor, number: int = 0) -> tuple[Tensor, Tensor]:
        """The strong view of this ``number``, and the guess that belongs to it."""
        places, view = pair.batch
        whole, settings = len(places), self.recipe.strong
        own = np.arange(whole)[self.team.share(whole)]
        purpose = f"{number}, update {pair.update}"
        strong = draw_strong(self.recipe, view, purpose, pair.epoch, whole).select(own)
        image = pair.unlabelled
        if (settings.level, settings.width) != (0, 1):
            image, _ = self.unlabelled.batch(places[own], strong.warp)
        image = change_greys(image, strong.greys)
        if settings.cutmix:
            partners = strong.partners.to(image.device, non_blocking=True)
            others = [self.team.gather(x, whole)[partners] for x in (image, guess)]
            image, guess = cut_and_mix(image, guess, (others[0], others[1]), strong.boxes)
        return image, guess

    def learn(self, network: ReducedUNet, image: Tensor) -> Tensor:
        """The logits that ``network`` gives a strong view."""
        with freeze_statistics(network):
            return self.forward(network.segment, image)

    def compare(self, logits: Tensor, guess: Tensor) -> Tensor:
        """The loss against the guess as a hard mask, over the pixels where it is sure."""
        sure = torch.maximum(guess, 1 - guess) >= self.recipe.together.confidence
        loss: Tensor = self.pseudo_loss(logits, guess > 0.5, sure)
        return loss


class AveragedTeacherStep(TaughtStep):
    """The teacher, whose weights are the exponential moving average of its student's (Tarvainen and
    Valpola, NeurIPS 2017), is the run's model."""

    def make_networks(self) -> nn.Module:
        self.student = copy.deepcopy(self.model)
        self.teacher = MovingAverage(self.model, self.student, self.recipe.together.ema)
        return self.student

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


def find_negative(slices: SliceSet, what: str) -> Tensor:
    """(N,) bool: the slices without haemorrhage by their table, which ``what`` needs."""
    negative = torch.tensor([kinds == () for kinds in slices.subtypes], dtype=torch.bool)
    if not negative.any():
        raise DataError(
            f"{what} needs unlabelled slices that their table calls negative, and there are none; "
            "give an unlabelled set with such a table, and set data.unlabelled_slices = all."
        )
    return negative
