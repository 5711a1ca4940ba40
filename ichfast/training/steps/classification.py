"""The encoder on its own, taught by the table of an unlabelled set: which slices have which kind of
haemorrhage."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ichfast.data import SUBTYPES, SliceSet
from ichfast.errors import DataError
from ichfast.training.seeding import make_generator
from ichfast.training.steps.base import EpochResult, OptimizingStep, make_adam
from ichfast.training.steps.batches import (
    Batch,
    average_losses,
    count_batches,
    split_evenly,
    take_share,
)
from ichfast.training.views import draw_view, render


class ClassificationStep(OptimizingStep):
    """Binary cross-entropy of six outputs (any haemorrhage, then the five subtypes) of a linear
    layer on the encoder's coarsest features, averaged over the slice, by Adam; one pass over all
    slices whose labels are known. RSNA's own task (Flanders et al., Radiology: AI, 2020)."""

    name = "classification"
    over = "unlabelled"
    cost = 0.6

    def prepare(self) -> None:
        super().prepare()
        model, recipe, device = self.model, self.recipe, self.device
        self.rows, self.labels = read_labels(self.unlabelled)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(make_generator(recipe.training.seed, "head").integers(2**62)))
            self.head = nn.Linear(model.channels[-1], self.labels.shape[1]).to(device)
        self.parameters = [*model.groups()["encoder"], *self.head.parameters()]
        self.optimizer = make_adam(self.parameters, self.choose_rate(0))

    def run(self, epoch: int, *, moved: bool) -> EpochResult:
        self.model.train()
        self.set_rate(epoch)
        seed, count = self.recipe.training.seed, len(self.rows)
        order = make_generator(seed, "classification", epoch).permutation(count)
        view = draw_view(self.recipe, "classification", epoch, count)
        losses = []
        for places in split_evenly(order, self.recipe.unsupervised.batch_size):
            batch = (self.rows[places], view and view.select(places))
            losses.append((self.update(batch, self.labels[torch.from_numpy(places)]), batch))
        return EpochResult(average_losses(losses), 1)

    def update(self, batch: Batch, labels: Tensor) -> Tensor:
        """One update; the loss before it."""
        image, _ = render(self.unlabelled, *take_share(self.team, batch))
        labels = labels[self.team.share(len(labels))].to(self.device, non_blocking=True)
        self.optimizer.zero_grad()
        logits = self.head(self.forward(self.encode, image).float())
        loss = F.binary_cross_entropy_with_logits(logits, labels)
        loss = self.team.mean(loss, len(image))
        loss.backward()
        self.move_weights()
        return loss.detach()

    def encode(self, image: Tensor) -> Tensor:
        """(B, C), the mean over the slice."""
        coarsest: Tensor = self.model.encoder(image)[-1]
        return coarsest.mean((2, 3))

    def list_batch_sizes(self) -> list[int]:
        count, size = len(self.rows), self.recipe.unsupervised.batch_size
        return [count // count_batches(count, size)]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"head": self.head.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.head.load_state_dict(state["head"])


def read_labels(slices: SliceSet) -> tuple[np.ndarray, Tensor]:
    """The slices whose haemorrhages are known (N,), and their labels (N, 6) float32."""
    known = [i for i, kinds in enumerate(slices.subtypes) if kinds is not None]
    labels = torch.zeros(len(known), 1 + len(SUBTYPES))
    for place, i in enumerate(known):
        kinds = slices.subtypes[i] or ()
        labels[place, 0] = bool(kinds)
        for kind in kinds:
            labels[place, 1 + SUBTYPES.index(kind)] = 1
    if not known:
        raise DataError(
            "strategy pretrained learns from the unlabelled set's table, and none says which "
            "slices have haemorrhage; give a set in RSNA's layout, or another training.strategy"
        )
    if bool((labels == labels[0]).all()):
        raise DataError(
            "strategy pretrained learns from the unlabelled set's table, and there all slices are "
            "alike; give slices with and without haemorrhage"
        )
    return np.array(known), labels
