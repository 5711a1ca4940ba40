"""Steps that learn from labelled and unlabelled slices in one update: joint training, and what the
field compares with.

Each update takes a batch of labelled slices and as many unlabelled ones and makes one step of Adam
on L_s + w(t)·L, with w(t) = weight · exp(−5(1 − t/ramp)²) until epoch ``ramp`` (Laine and Aila,
ICLR 2017).
"""

import copy
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ichfast import models
from ichfast.data import SliceSet
from ichfast.models import ReducedUNet
from ichfast.models.synced import synchronise
from ichfast.team import ALONE, Team
from ichfast.training.recipe import Recipe
from ichfast.training.steps.base import (
    Outcome,
    SeeingUnlabelled,
    labelled_batches,
    share_of,
    supervised_loss,
    unlabelled_batches,
    weighted_mean,
)
from ichfast.training.steps.statistics import untracked_statistics
from ichfast.training.steps.unsupervised import attention_loss, attention_parameters
from ichfast.training.streams import stream


class Pair(NamedTuple):
    """Of one update, this process's share."""

    image: Tensor  # (B, 1, S, S)
    mask: Tensor  # (B, 1, S, S)
    unlabelled: Tensor  # (B, 1, S, S)
    weight: float  # of the unlabelled loss
    noise: torch.Generator
    whole: int | None = None  # unlabelled slices of all processes; None: these are all


class Together(SeeingUnlabelled):
    """One pass over the labelled set."""

    def __init__(
        self,
        model: ReducedUNet,
        unlabelled: SliceSet,
        labelled: SliceSet,
        recipe: Recipe,
        device: torch.device,
        team: Team = ALONE,
    ) -> None:
        super().__init__(model, unlabelled, labelled, recipe, device, team)
        self.loss = supervised_loss(recipe, team)
        self.trained = self.networks()
        self.optimizer = torch.optim.Adam(self.trained.parameters(), lr=recipe.adam.learning_rate)

    def networks(self) -> nn.Module:
        """What Adam trains."""
        return self.model

    def backward(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """The gradients of an update; L_s, and L before its weight."""
        raise NotImplementedError

    def updated(self) -> None:
        """After each update."""

    def run(self, epoch: int, *, moved: bool) -> Outcome:
        self.trained.train()
        recipe = self.recipe
        ours = labelled_batches(self.labelled, recipe, epoch)
        size = recipe.supervised.batch_size
        theirs = unlabelled_batches(self.unlabelled, len(self.labelled), size, recipe, epoch)
        weight, noise = self.weight(epoch), self.noise(epoch)
        losses = []
        for own, other in zip(ours, theirs, strict=True):
            image, mask = self.labelled.batch(*share_of(self.team, own))
            assert mask is not None
            self.optimizer.zero_grad()
            unlabelled, _ = self.unlabelled.batch(*share_of(self.team, other))
            pair = Pair(image, mask, unlabelled, weight, noise, len(other[0]))
            supervised, further = self.backward(pair)
            self.team.sum_gradients(self.optimizer)
            self.optimizer.step()
            self.updated()
            losses.append((torch.stack([supervised, further]).detach(), own))
        self.renew_statistics()
        parts = {
            name: weighted_mean([(both[i], batch) for both, batch in losses])
            for i, name in enumerate(("supervised", "unsupervised"))
        }
        return Outcome(parts["supervised"] + weight * parts["unsupervised"], 1, parts)

    def weight(self, epoch: int) -> float:
        settings = self.recipe.together
        rise = min(epoch / settings.ramp, 1.0) if settings.ramp else 1.0
        return settings.weight * math.exp(-5 * (1 - rise) ** 2)

    def noise(self, epoch: int) -> torch.Generator:
        seed = stream(self.recipe.training.seed, "noise", epoch).integers(2**62)
        return torch.Generator(self.device).manual_seed(int(seed))

    def noisy(self, pair: Pair) -> Tensor:
        """The unlabelled images with Gaussian noise, of ``together.noise`` window widths."""
        image = pair.unlabelled
        count = len(image) if pair.whole is None else pair.whole
        drawn = torch.randn(
            (count, *image.shape[1:]),
            generator=pair.noise,
            device=image.device,
            dtype=image.dtype,
        )
        return image + self.recipe.together.noise * drawn[self.team.share(count)]

    def mean(self, value: Tensor, pair: Pair) -> Tensor:
        """Of this process's mean over its unlabelled images, that over all of them."""
        return self.team.mean(value, len(pair.unlabelled))


class Joint(Together):
    """Both losses of the method at once (Chen et al. 2019 call it joint training): L is L_u."""

    def networks(self) -> nn.Module:
        self.attention = attention_loss(self.recipe)
        self.parameters = attention_parameters(self.model, self.recipe)
        return self.model

    def backward(self, pair: Pair) -> tuple[Tensor, Tensor]:
        supervised = self.loss(self.forward(self.model.segment, pair.image), pair.mask)
        supervised.backward()
        further = self.attention(pair.unlabelled, *self.forward(self.model, pair.unlabelled))
        further = self.mean(further, pair)
        (pair.weight * further).backward(inputs=self.parameters)
        return supervised, further


class MeanTeacher(Together):
    """Tarvainen and Valpola, NeurIPS 2017: L is the mean squared difference between a student's
    probabilities and its teacher's, each under its own noise. The teacher, whose weights are the
    student's exponential moving average, is the run's model."""

    def networks(self) -> nn.Module:
        self.student, self.updates = copy.deepcopy(self.model), 0
        return self.student

    def backward(self, pair: Pair) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), untracked_statistics(self.model):
            self.model.train()
            target = self.forward(self.model.segment, self.noisy(pair)).sigmoid()
        supervised = self.loss(self.forward(self.student.segment, pair.image), pair.mask)
        further = F.mse_loss(self.forward(self.student.segment, self.noisy(pair)).sigmoid(), target)
        further = self.mean(further, pair)
        (supervised + pair.weight * further).backward()
        return supervised, further

    def updated(self) -> None:
        """The average over all updates at first, so that the start is soon forgotten."""
        self.updates += 1
        keep = min(1 - 1 / (self.updates + 1), self.recipe.together.ema)
        with torch.no_grad():
            for average, value in zip(
                self.model.parameters(), self.student.parameters(), strict=True
            ):
                average.lerp_(value, 1 - keep)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "student": self.student.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.student.load_state_dict(state["student"])
        self.updates = state["updates"]


class CrossPseudo(Together):
    """Cross pseudo supervision (X. Chen et al., CVPR 2021): two networks from different weights,
    each taught by the other's hard mask of the unlabelled slices; L is the sum of both
    cross-entropies. The first is the run's model."""

    def networks(self) -> nn.Module:
        seed = int(stream(self.recipe.training.seed, "peer").integers(2**62))
        settings = self.recipe.model
        peer = models.build(self.model.kind, settings.channels, seed, settings.convolutions)
        self.peer = peer.to(self.device)
        synchronise(self.peer, self.team)
        return nn.ModuleList([self.model, self.peer])

    def backward(self, pair: Pair) -> tuple[Tensor, Tensor]:
        both = (self.model, self.peer)
        supervised = [
            self.loss(self.forward(network.segment, pair.image), pair.mask) for network in both
        ]
        one, other = (self.forward(network.segment, pair.unlabelled) for network in both)
        further = cross_entropy(one, other > 0) + cross_entropy(other, one > 0)
        further = self.mean(further, pair)
        (sum(supervised) + pair.weight * further).backward()
        return supervised[0], further

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"peer": self.peer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.peer.load_state_dict(state["peer"])


class PseudoLabel(Together):
    """D.-H. Lee, ICML 2013 workshop, with the confidence of FixMatch (Sohn et al., NeurIPS 2020):
    L is the cross-entropy of the noisy image's prediction against the network's own hard mask of
    the image as it is, over the pixels where that is at least ``together.confidence`` sure."""

    def backward(self, pair: Pair) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), untracked_statistics(self.model):
            guess = self.forward(self.model.segment, pair.unlabelled)
        sure = guess.abs().sigmoid() >= self.recipe.together.confidence
        supervised = self.loss(self.forward(self.model.segment, pair.image), pair.mask)
        further = cross_entropy(self.forward(self.model.segment, self.noisy(pair)), guess > 0, sure)
        further = self.mean(further, pair)
        (supervised + pair.weight * further).backward()
        return supervised, further


def cross_entropy(logits: Tensor, target: Tensor, where: Tensor | None = None) -> Tensor:
    """Mean over all pixels; those not in ``where`` count as 0."""
    values = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    return (values if where is None else values * where).mean()
