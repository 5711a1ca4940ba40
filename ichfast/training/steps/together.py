"""What steps share that learn from labelled and unlabelled slices in one update.

Each update takes a batch of labelled slices and as many unlabelled ones and makes one step of Adam
on L_s + w(t)·L, with w(t) = weight · exp(−5(1 − t/ramp)²) over the share ``ramp`` of the epochs
(Laine and Aila, ICLR 2017).
"""

import math
from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ichfast.training.seeding import make_generator
from ichfast.training.steps.base import (
    EpochResult,
    UnlabelledStep,
    average_losses,
    draw_labelled_batches,
    draw_unlabelled_batches,
    make_supervised_loss,
    take_share,
)
from ichfast.training.views import render


class Pair(NamedTuple):
    """Of one update, this process's share."""

    image: Tensor  # (B, 1, S, S)
    mask: Tensor  # (B, 1, S, S)
    unlabelled: Tensor  # (B, 1, S, S)
    weight: float  # of the unlabelled loss
    noise: torch.Generator
    whole: int | None = None  # unlabelled slices of all processes; None: these are all


class TogetherStep(UnlabelledStep):
    """One pass over the labelled set."""

    def prepare(self) -> None:
        super().prepare()
        self.loss = make_supervised_loss(self.recipe, self.team)
        self.trained = self.make_networks()
        self.optimizer = torch.optim.Adam(
            self.trained.parameters(), lr=self.recipe.adam.learning_rate
        )

    def make_networks(self) -> nn.Module:
        """What Adam trains."""
        return self.model

    @abstractmethod
    def backward(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """Add the gradients of an update; L_s, and L before its weight."""

    def finish_update(self) -> None:
        """After each update."""

    def run(self, epoch: int, *, moved: bool) -> EpochResult:
        self.trained.train()
        recipe = self.recipe
        ours = draw_labelled_batches(self.labelled, recipe, epoch)
        size = recipe.supervised.batch_size
        theirs = draw_unlabelled_batches(self.unlabelled, len(self.labelled), size, recipe, epoch)
        weight, noise = self.ramp_weight(epoch), self.make_noise(epoch)
        losses = []
        for own, other in zip(ours, theirs, strict=True):
            image, mask = render(self.labelled, *take_share(self.team, own))
            assert mask is not None
            self.optimizer.zero_grad()
            unlabelled, _ = render(self.unlabelled, *take_share(self.team, other))
            pair = Pair(image, mask, unlabelled, weight, noise, len(other[0]))
            supervised, further = self.backward(pair)
            self.team.sum_gradients(self.optimizer)
            self.optimizer.step()
            self.finish_update()
            losses.append((torch.stack([supervised, further]).detach(), own))
        self.renew_statistics()
        parts = {
            name: average_losses([(both[i], batch) for both, batch in losses])
            for i, name in enumerate(("supervised", "unsupervised"))
        }
        return EpochResult(parts["supervised"] + weight * parts["unsupervised"], 1, parts)

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
