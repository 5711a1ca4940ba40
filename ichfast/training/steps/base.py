"""The form of a step, and what steps with an optimizer share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import nn

from ichfast.data import SliceSet
from ichfast.models import ReducedUNet
from ichfast.team import ALONE, Team
from ichfast.training.forward import Forward
from ichfast.training.recipe import Recipe
from ichfast.training.steps.average import MovingAverage
from ichfast.training.steps.batches import (
    count_batches,
    count_draws,
    make_micro_batches,
    take_share,
)
from ichfast.training.steps.statistics import renew_statistics
from ichfast.training.views import render

FORWARD = 0.35
"""of the time of a pass forward and backward"""


class EpochResult(NamedTuple):
    loss: float
    """slice-weighted mean over the epoch; of all its parts together, where it has several"""
    evaluations: float
    """forward and backward passes over the labelled set, or over as many unlabelled slices; an int
    where they are whole"""
    parts: dict[str, float] = {}  # noqa: RUF012
    """the same mean of each part by its name, where a step has more than one"""


class Step(ABC):
    """One kind of epoch. Its class says what others need to know of it."""

    name: ClassVar[str]
    """in the log, in checkpoints and in messages"""
    over: ClassVar[Literal["labelled", "sample", "unlabelled"]] = "labelled"
    """what a pass is over: the labelled slices (with unlabelled ones beside them, where it sees
    those), as many unlabelled ones alone, or the whole unlabelled set"""
    cost: ClassVar[float] = 1.0
    """of a pass, in forward and backward passes of the reduced U-Net over as many slices; where
    labelled and unlabelled slices share an epoch, with as many of both"""
    bounded: ClassVar[bool] = True
    """whether a loss up to that of a network that knows nothing is no explosion, however low the
    best was: soft Jaccard ends there"""

    unlabelled: SliceSet
    """there where it was given"""
    average: MovingAverage | None
    """of the model's weights, which its updates keep up to date"""

    def __init__(
        self,
        model: ReducedUNet,
        labelled: SliceSet,
        recipe: Recipe,
        device: torch.device,
        team: Team = ALONE,
        *,
        unlabelled: SliceSet | None = None,
        average: MovingAverage | None = None,
    ) -> None:
        self.model, self.recipe, self.device, self.team = model, recipe, device, team
        self.average = average
        self.labelled = labelled.to(device)
        if unlabelled is not None:
            self.unlabelled = unlabelled.to(device)
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Make what it keeps from epoch to epoch."""

    @abstractmethod
    def run(self, epoch: int, *, moved: bool) -> EpochResult:
        """One epoch. ``moved``: another step has moved the weights since this one last ran."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that the step remembers from epoch to epoch."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def list_batch_sizes(self) -> list[int]:
        """The smallest batch of each kind that it makes."""
        count = count_draws(self.labelled, self.recipe)
        return [count // count_batches(count, self.recipe.supervised.batch_size)]

    @classmethod
    def count_passes(cls, recipe: Recipe) -> float:
        """Forward and backward in an epoch, about; of ``supervised.draws`` slices where those are
        drawn."""
        return 1.0

    @classmethod
    def estimate_cost(cls, recipe: Recipe) -> float:
        """Of an epoch, as ``cost``."""
        return cls.count_passes(recipe) * cls.cost


def make_adam(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Adam:
    """Adam whose update is one pass over each parameter."""
    return torch.optim.Adam(parameters, lr=rate, fused=True)


class OptimizingStep(Step):
    """Those with an optimizer of their own, which they prepare."""

    optimizer: torch.optim.Optimizer

    def prepare(self) -> None:
        self.forward = Forward(self.recipe, self.device)

    def choose_rate(self, epoch: int) -> float:
        """Adam's learning rate of an epoch: a function of its number alone."""
        return decay_rate(self.recipe.adam.learning_rate, epoch, self.recipe)

    def set_rate(self, epoch: int) -> None:
        """At the start of an epoch of Adam."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.choose_rate(epoch)

    def move_weights(self) -> None:
        """One update of Adam, by the gradients of all processes."""
        self.team.sum_gradients(self.optimizer)
        self.optimizer.step()
        self.finish_update()
        self.team.check_stop()

    def finish_update(self) -> None:
        """After each update: the run's moving average follows."""
        if self.average is not None:
            self.average.update()

    def list_models(self) -> list[ReducedUNet]:
        """Those that inference may use: the run's, and its moving average."""
        return [self.model, *([] if self.average is None else [self.average.average])]

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])


class UnlabelledStep(OptimizingStep):
    """Those that see unlabelled slices, and move the encoder by them: the segmentation path's
    statistics, which inference uses, are then to be taken anew from the labelled slices, unless the
    recipe keeps those that the passes of training have left."""

    def prepare(self) -> None:
        super().prepare()
        self.batches = make_micro_batches(self.labelled, self.recipe)

    def renew_statistics(self) -> None:
        if self.recipe.training.statistics == "running":
            return
        for model in self.list_models():
            with torch.no_grad(), renew_statistics(model):
                for batch in self.batches:
                    image, _ = render(self.labelled, *take_share(self.team, (batch, None)))
                    self.forward(model.segment, image)
                    self.team.check_stop()

    def list_batch_sizes(self) -> list[int]:
        return [*super().list_batch_sizes(), min(map(len, self.batches))]


def decay_rate(rate: float, epoch: int, recipe: Recipe) -> float:
    """``rate`` in this epoch x of n: rate · (1 + cos(π·x/n)) / 2 by the cosine (Loshchilov and
    Hutter, ICLR 2017, without restarts)."""
    if recipe.adam.decay == "none":
        return rate
    return rate * (1 + math.cos(math.pi * epoch / recipe.training.epochs)) / 2


def weigh_cost(cost: float, ours: float, recipe: Recipe) -> float:
    """``cost`` of a pair of equal batches, of which the labelled one takes ``ours``, at the
    recipe's batch sizes."""
    ratio = recipe.unsupervised.batch_size / recipe.supervised.batch_size
    return ours + (cost - ours) * ratio
