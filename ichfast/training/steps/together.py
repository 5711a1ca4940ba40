"""What steps share that learn from labelled and unlabelled slices in one update.

Each update takes a batch of labelled slices and one of unlabelled ones and makes one step of Adam
on L_s + w(t)·L, with w(t) = weight · exp(−5(1 − t/ramp)²) over the share ``ramp`` of the epochs
(Laine and Aila, ICLR 2017).
"""

import math
from abc import abstractmethod
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from ichfast.training.recipe import Recipe
from ichfast.training.steps.base import EpochResult, UnlabelledStep, make_adam, weigh_cost
from ichfast.training.steps.batches import (
    Batch,
    average_losses,
    count_beside,
    count_draws,
    draw_beside,
    measure_passes,
    take_share,
)
from ichfast.training.steps.loss import make_supervised_loss
from ichfast.training.views import render


class Pair(NamedTuple):
    """Of one update, this process's share."""

    image: Tensor  # (B, 1, S, S)
    mask: Tensor  # (B, 1, S, S)
    unlabelled: Tensor  # (U, 1, S, S)
    truth: Tensor | None  # (U, 1, S, S), the unlabelled slices' masks, where they are known
    batch: Batch  # the unlabelled slices of all processes
    weight: float  # of the unlabelled loss
    epoch: int
    update: int  # of the epoch


class TogetherStep(UnlabelledStep):
    """The labelled slices of an epoch, with unlabelled ones beside them."""

    labelled_cost: ClassVar[float] = 1.0
    """what the labelled slices take of ``cost``, which is that of as many unlabelled ones"""

    def prepare(self) -> None:
        super().prepare()
        self.loss = make_supervised_loss(self.recipe, self.team)
        self.trained = self.make_networks()
        self.optimizer = make_adam(self.trained.parameters(), self.choose_rate(0))

    def make_networks(self) -> nn.Module:
        """What Adam trains."""
        return self.model

    @abstractmethod
    def backward(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """Add the gradients of an update; L_s, and L before its weight."""

    def draw_batches(self, epoch: int) -> list[tuple[Batch, Batch]]:
        """Labelled and unlabelled slices of each update."""
        return draw_beside(self.labelled, self.unlabelled, self.recipe, epoch)

    def show(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Images of unlabelled slices, and their masks where these are known."""
        image, _ = render(self.unlabelled, *batch)
        return image, None

    def run(self, epoch: int, *, moved: bool) -> EpochResult:
        self.trained.train()
        self.set_rate(epoch)
        weight = self.ramp_weight(epoch)
        losses, others = [], []
        for update, (own, other) in enumerate(self.draw_batches(epoch)):
            image, mask = render(self.labelled, *take_share(self.team, own))
            assert mask is not None
            self.optimizer.zero_grad()
            shown = self.show(take_share(self.team, other))
            pair = Pair(image, mask, *shown, other, weight, epoch, update)
            supervised, further = self.backward(pair)
            self.move_weights()
            losses.append((supervised.detach(), own))
            others.append((further.detach(), other))
        self.renew_statistics()
        parts = {"supervised": average_losses(losses), "unsupervised": average_losses(others)}
        passes = measure_passes(count_draws(self.labelled, self.recipe), self.labelled)
        return EpochResult(parts["supervised"] + weight * parts["unsupervised"], passes, parts)

    def list_batch_sizes(self) -> list[int]:
        count, batches = count_beside(self.labelled, self.recipe)
        return [*super().list_batch_sizes(), count // batches]

    @classmethod
    def estimate_cost(cls, recipe: Recipe) -> float:
        return weigh_cost(cls.cost, cls.labelled_cost, recipe)

    def ramp_weight(self, epoch: int) -> float:
        settings = self.recipe.together
        last = settings.ramp * self.recipe.training.epochs
        rise = min(epoch / last, 1.0) if last else 1.0
        return settings.weight * math.exp(-5 * (1 - rise) ** 2)

    def mean(self, value: Tensor, pair: Pair) -> Tensor:
        """Of this process's mean over its unlabelled images, that over all of them."""
        return self.team.mean(value, len(pair.unlabelled))
