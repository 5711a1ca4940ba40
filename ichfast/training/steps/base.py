"""What the steps share: the form of one, batches, and the supervised loss."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ichfast.data import SliceSet, Warp
from ichfast.losses import TverskyLoss
from ichfast.models import ReducedUNet
from ichfast.team import ALONE, Team
from ichfast.training import augmentation
from ichfast.training.forward import Forward
from ichfast.training.recipe import Recipe
from ichfast.training.steps.statistics import renewed_statistics
from ichfast.training.streams import stream

Batch = tuple[NDArray[np.int64], Warp | None]
"""what :meth:`ichfast.data.SliceSet.batch` takes"""


class Outcome(NamedTuple):
    loss: float
    """slice-weighted mean over the epoch; of all its parts together, where it has several"""
    evaluations: int
    """forward and backward passes over the labelled set, or over as many unlabelled slices"""
    parts: dict[str, float] = {}  # noqa: RUF012
    """the same mean of each part by its name, where a step has more than one"""


class Step(Protocol):
    """One kind of epoch."""

    def run(self, epoch: int, *, moved: bool) -> Outcome:
        """One epoch. ``moved``: another step has moved the weights since this one last ran."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that the step remembers from epoch to epoch."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Optimizing:
    """What steps with an optimizer of their own have in common; they set it."""

    optimizer: torch.optim.Optimizer

    def __init__(
        self, model: ReducedUNet, recipe: Recipe, device: torch.device, team: Team
    ) -> None:
        self.model, self.recipe, self.device, self.team = model, recipe, device, team
        self.forward = Forward(recipe, device)

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])


class SeeingUnlabelled(Optimizing):
    """Those that see unlabelled slices, and move the encoder by them: the segmentation path's
    statistics, which inference uses, are then to be taken anew from the labelled slices."""

    def __init__(
        self,
        model: ReducedUNet,
        unlabelled: SliceSet,
        labelled: SliceSet,
        recipe: Recipe,
        device: torch.device,
        team: Team,
    ) -> None:
        super().__init__(model, recipe, device, team)
        self.unlabelled, self.labelled = unlabelled.to(device), labelled.to(device)
        self.batches = micro_batches(labelled, recipe)

    def renew_statistics(self) -> None:
        with torch.no_grad(), renewed_statistics(self.model):
            for batch in self.batches:
                image, _ = self.labelled.batch(*share_of(self.team, (batch, None)))
                self.forward(self.model.segment, image)


def supervised_loss(recipe: Recipe, team: Team = ALONE) -> TverskyLoss:
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


def batches_of(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """``order`` in as few batches as ``batch_size`` allows, as even as they can be: a last batch of
    one slice would have poor batch statistics."""
    return np.array_split(order, -(-len(order) // batch_size))


def micro_batches(labelled: SliceSet, recipe: Recipe) -> list[NDArray[np.int64]]:
    """The labelled set in batches that never change."""
    order = stream(recipe.training.seed, "micro-batches").permutation(len(labelled))
    return batches_of(order, recipe.supervised.batch_size)


def labelled_batches(labelled: SliceSet, recipe: Recipe, epoch: int) -> list[Batch]:
    """The labelled set, shuffled and augmented anew."""
    order = stream(recipe.training.seed, "shuffle", epoch).permutation(len(labelled))
    warp = augmentation.draw(recipe, "supervised", epoch, len(order))
    batches = batches_of(order, recipe.supervised.batch_size)
    return [(batch, warp and warp.select(batch)) for batch in batches]


def unlabelled_batches(
    unlabelled: SliceSet, count: int, batch_size: int, recipe: Recipe, epoch: int
) -> list[Batch]:
    """A random sample of ``count`` slices, with repetition only where there are fewer."""
    chosen = stream(recipe.training.seed, "unlabelled", epoch).choice(
        len(unlabelled), count, replace=count > len(unlabelled)
    )
    warp = augmentation.draw(recipe, "unsupervised", epoch, count)
    batches = batches_of(np.arange(count), batch_size)
    return [(chosen[batch], warp and warp.select(batch)) for batch in batches]


def share_of(team: Team, batch: Batch) -> Batch:
    """This process's part of a batch."""
    if team.size == 1:
        return batch
    places, warp = batch
    own = team.share(len(places))
    return places[own], warp and warp.select(np.arange(len(places))[own])


def weighted_mean(losses: Sequence[tuple[Tensor, Batch]]) -> float:
    """Of the batches' losses, by their slices. Read back here for the first time, so the host need
    not wait for the device between two updates."""
    sizes = torch.tensor([len(places) for _, (places, _) in losses], dtype=torch.float64)
    values = torch.stack([loss for loss, _ in losses]).double().cpu()
    return ((values * sizes).sum() / sizes.sum()).item()
