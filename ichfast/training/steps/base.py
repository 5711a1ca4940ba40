"""What the steps share: the form of one, batches, and the supervised loss."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ichfast.data import SliceSet
from ichfast.losses import TverskyLoss
from ichfast.models import ReducedUNet
from ichfast.team import ALONE, Team
from ichfast.training.forward import Forward
from ichfast.training.recipe import Recipe
from ichfast.training.seeding import make_generator
from ichfast.training.steps.statistics import renew_statistics
from ichfast.training.views import View, draw_labelled_view, draw_view, render

FORWARD = 0.35
"""of the time of a pass forward and backward"""
Batch = tuple[NDArray[np.int64], View | None]
"""which slices of a set, and how :func:`ichfast.training.views.render` shows them"""


class EpochResult(NamedTuple):
    loss: float
    """slice-weighted mean over the epoch; of all its parts together, where it has several"""
    evaluations: int
    """forward and backward passes over the labelled set, or over as many unlabelled slices"""
    parts: dict[str, float] = {}  # noqa: RUF012
    """the same mean of each part by its name, where a step has more than one"""


class Step(ABC):
    """One kind of epoch. Its class says what others need to know of it."""

    name: ClassVar[str]
    """in the log, in checkpoints and in messages"""
    over: ClassVar[Literal["labelled", "sample", "unlabelled"]] = "labelled"
    """what a pass is over: the labelled slices (with as many unlabelled ones, where it sees those),
    as many unlabelled ones alone, or the whole unlabelled set"""
    cost: ClassVar[float] = 1.0
    """of a pass, in forward and backward passes of the reduced U-Net over as many slices"""
    bounded: ClassVar[bool] = True
    """whether a loss up to 1 is no explosion, however low the best was: soft Jaccard ends there"""

    unlabelled: SliceSet
    """there where it was given"""

    def __init__(
        self,
        model: ReducedUNet,
        labelled: SliceSet,
        recipe: Recipe,
        device: torch.device,
        team: Team = ALONE,
        *,
        unlabelled: SliceSet | None = None,
    ) -> None:
        self.model, self.recipe, self.device, self.team = model, recipe, device, team
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

    @classmethod
    def count_passes(cls, recipe: Recipe) -> float:
        """Forward and backward in an epoch, about."""
        return 1.0

    @classmethod
    def estimate_cost(cls, recipe: Recipe) -> float:
        """Of an epoch, as ``cost``."""
        return cls.count_passes(recipe) * cls.cost


class OptimizingStep(Step):
    """Those with an optimizer of their own, which they prepare."""

    optimizer: torch.optim.Optimizer

    def prepare(self) -> None:
        self.forward = Forward(self.recipe, self.device)

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])


class UnlabelledStep(OptimizingStep):
    """Those that see unlabelled slices, and move the encoder by them: the segmentation path's
    statistics, which inference uses, are then to be taken anew from the labelled slices."""

    def prepare(self) -> None:
        super().prepare()
        self.batches = make_micro_batches(self.labelled, self.recipe)

    def renew_statistics(self) -> None:
        with torch.no_grad(), renew_statistics(self.model):
            for batch in self.batches:
                image, _ = render(self.labelled, *take_share(self.team, (batch, None)))
                self.forward(self.model.segment, image)


def make_supervised_loss(recipe: Recipe, team: Team = ALONE) -> TverskyLoss:
    """1 − TP / (TP + α·FP + β·FN) of the whole batch at once: sums are pooled before the ratio, as
    in the pooled score that the best epoch is chosen by, so a slice weighs as much as its blood.
    α = β = 1 is the soft Jaccard loss L_s, smoothed as :class:`ichfast.losses.JaccardLoss` is. The
    batch is that of the whole team.
    """
    return TverskyLoss(
        sigmoid=True,
        alpha=recipe.supervised.alpha,
        beta=recipe.supervised.beta,
        smooth_nr=5e-6,
        smooth_dr=5e-6,
        batch=True,
        group=team.group,
    )


def split_evenly(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """``order`` in as few batches as ``batch_size`` allows, as even as they can be: a last batch of
    one slice would have poor batch statistics."""
    return np.array_split(order, -(-len(order) // batch_size))


def make_micro_batches(labelled: SliceSet, recipe: Recipe) -> list[NDArray[np.int64]]:
    """The labelled set in batches that never change."""
    order = make_generator(recipe.training.seed, "micro-batches").permutation(len(labelled))
    return split_evenly(order, recipe.supervised.batch_size)


def draw_labelled_batches(labelled: SliceSet, recipe: Recipe, epoch: int) -> list[Batch]:
    """The labelled set, shuffled and augmented anew."""
    order = make_generator(recipe.training.seed, "shuffle", epoch).permutation(len(labelled))
    view = draw_labelled_view(labelled, order, recipe, epoch)
    batches = split_evenly(np.arange(len(order)), recipe.supervised.batch_size)
    return [(order[batch], view and view.select(batch)) for batch in batches]


def draw_unlabelled_batches(
    unlabelled: SliceSet, count: int, batch_size: int, recipe: Recipe, epoch: int
) -> list[Batch]:
    """A random sample of ``count`` slices, with repetition only where there are fewer."""
    chosen = make_generator(recipe.training.seed, "unlabelled", epoch).choice(
        len(unlabelled), count, replace=count > len(unlabelled)
    )
    view = draw_view(recipe, "unsupervised", epoch, count)
    batches = split_evenly(np.arange(count), batch_size)
    return [(chosen[batch], view and view.select(batch)) for batch in batches]


def take_share(team: Team, batch: Batch) -> Batch:
    """This process's part of a batch."""
    if team.size == 1:
        return batch
    places, view = batch
    own = team.share(len(places))
    return places[own], view and view.select(np.arange(len(places))[own])


def average_losses(losses: Sequence[tuple[Tensor, Batch]]) -> float:
    """Of the batches' losses, by their slices. Read back here for the first time, so the host need
    not wait for the device between two updates."""
    sizes = torch.tensor([len(places) for _, (places, _) in losses], dtype=torch.float64)
    values = torch.stack([loss for loss, _ in losses]).double().cpu()
    return ((values * sizes).sum() / sizes.sum()).item()
