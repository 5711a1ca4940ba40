"""What steps share that learn from labelled and unlabelled slices in one update.

Each update takes a batch of labelled slices and one of unlabelled ones and makes one step of Adam
on L_s + w(t)·L, with w(t) = weight · exp(−5(1 − t/ramp)²) over the share ``ramp`` of the epochs
(Laine and Aila, ICLR 2017).
"""

import math
from abc import abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ichfast.training.recipe import Recipe
from ichfast.training.seeding import make_generator
from ichfast.training.steps.base import EpochResult, UnlabelledStep, weigh_cost
from ichfast.training.steps.batches import (
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
    weight: float  # of the unlabelled loss
    noise: torch.Generator
    whole: int | None = None  # unlabelled slices of all processes; None: these are all


class TogetherStep(UnlabelledStep):
    """The labelled slices of an epoch, with unlabelled ones beside them."""

    labelled_cost: ClassVar[float] = 1.0
    """what the labelled slices take of ``cost``, which is that of as many unlabelled ones"""

    def prepare(self) -> None:
        super().prepare()
        self.loss = make_supervised_loss(self.recipe, self.team)
        self.trained = self.make_networks()
        self.optimizer = torch.optim.Adam(self.trained.parameters(), lr=self.choose_rate(0))

    def make_networks(self) -> nn.Module:
        """What Adam trains."""
        return self.model

    @abstractmethod
    def backward(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """Add the gradients of an update; L_s, and L before its weight."""

    def run(self, epoch: int, *, moved: bool) -> EpochResult:
        self.trained.train()
        self.set_rate(epoch)
        weight, noise = self.ramp_weight(epoch), self.make_noise(epoch)
        losses, others = [], []
        for own, other in draw_beside(self.labelled, self.unlabelled, self.recipe, epoch):
            image, mask = render(self.labelled, *take_share(self.team, own))
            assert mask is not None
            self.optimizer.zero_grad()
            unlabelled, _ = render(self.unlabelled, *take_share(self.team, other))
            pair = Pair(image, mask, unlabelled, weight, noise, len(other[0]))
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

    def make_noise(self, epoch: int) -> torch.Generator:
        seed = make_generator(self.recipe.training.seed, "noise", epoch).integers(2**62)
        return torch.Generator(self.device).manual_seed(int(seed))

    def add_noise(self, pair: Pair) -> Tensor:
        """The unlabelled images with Gaussian noise of ``strong.noise``."""
        image = pair.unlabelled
        count = len(image) if pair.whole is None else pair.whole
        drawn = torch.randn(
            (count, *image.shape[1:]),
            generator=pair.noise,
            device=image.device,
            dtype=image.dtype,
        )
        deviation = self.recipe.strong.noise / self.recipe.data.window[1]
        return image + deviation * drawn[self.team.share(count)]

    def mean(self, value: Tensor, pair: Pair) -> Tensor:
        """Of this process's mean over its unlabelled images, that over all of them."""
        return self.team.mean(value, len(pair.unlabelled))


def cross_entropy(logits: Tensor, target: Tensor, where: Tensor | None = None) -> Tensor:
    """Mean over all pixels; those not in ``where`` count as 0."""
    values = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    return (values if where is None else values * where).mean()
