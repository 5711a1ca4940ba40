"""Cross pseudo supervision."""

from typing import Any

import torch
from torch import Tensor, nn

from ichfast import models
from ichfast.models.synced import synchronise
from ichfast.training.seeding import make_generator
from ichfast.training.steps.taught import TaughtStep
from ichfast.training.steps.together import Pair
from ichfast.training.strategy import EveryEpoch


class CrossPseudoStep(TaughtStep):
    """Cross pseudo supervision (X. Chen et al., CVPR 2021): two networks from different weights,
    each taught by the other's hard mask of the unlabelled slices; L is the sum of both losses. As
    with CutMix there, a network guesses of the slices as they are and learns from a strong view, of
    which each has its own; only pixels where the other is at least ``together.confidence`` sure
    count, of which the paper knows nothing. The first is the run's model."""

    name = "cps"
    cost = 4.8
    labelled_cost = 2.0

    def make_networks(self) -> nn.Module:
        seed = int(make_generator(self.recipe.training.seed, "peer").integers(2**62))
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
        views = [
            self.perturb(pair, self.guess(network, pair), number)
            for number, network in enumerate(reversed(both))
        ]
        losses = [
            self.compare(self.learn(network, image), guess)
            for network, (image, guess) in zip(both, views, strict=True)
        ]
        further = torch.stack(losses).sum()
        (sum(supervised) + pair.weight * further).backward()
        return supervised[0], further

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"peer": self.peer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.peer.load_state_dict(state["peer"])


class CrossPseudo(EveryEpoch, name="cps"):
    label = "Cross pseudo supervision"
    about = "two networks, each taught by the other's masks too (X. Chen et al. 2021)"
    model = "unet"
    unlabelled = "images"
    batchwise = True
    step = CrossPseudoStep
