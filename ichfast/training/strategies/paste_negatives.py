"""Heads without haemorrhage as exact labels, and as backgrounds for lesions."""

import numpy as np
from torch import Tensor

from ichfast.training.steps.batches import Batch, draw_beside
from ichfast.training.steps.statistics import freeze_statistics
from ichfast.training.steps.taught import find_negative
from ichfast.training.steps.together import Pair, TogetherStep
from ichfast.training.strategy import EveryEpoch
from ichfast.training.views import draw_masked_view, render


class PasteNegativesStep(TogetherStep):
    """L is the supervised loss of unlabelled slices that their table calls negative: into one half
    of them lesions of labelled slices are pasted, and the other half stays empty, so every mask is
    known. They pass with their own batch's statistics and leave the running ones alone."""

    name = "paste_negatives"
    cost = 2.0

    def prepare(self) -> None:
        super().prepare()
        negative = find_negative(self.unlabelled, "strategy paste_negatives")
        self.rows = np.flatnonzero(negative.numpy())

    def draw_batches(self, epoch: int) -> list[tuple[Batch, Batch]]:
        pairs = draw_beside(self.labelled, self.rows, self.recipe, epoch)
        ends = np.cumsum([len(places) for _, (places, _) in pairs])
        every = np.arange(ends[-1])
        view = draw_masked_view(
            self.labelled, np.full_like(every, -1), every % 2 == 0, self.recipe, self.name, epoch
        )
        parts = np.split(every, ends[:-1])
        return [
            (own, (self.rows[places], view.select(part)))
            for (own, (places, _)), part in zip(pairs, parts, strict=True)
        ]

    def show(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        return render(self.unlabelled, *batch, donors=self.labelled)

    def backward(self, pair: Pair) -> tuple[Tensor, Tensor]:
        supervised = self.loss(self.forward(self.model.segment, pair.image), pair.mask)
        with freeze_statistics(self.model):
            logits = self.forward(self.model.segment, pair.unlabelled)
        further = self.loss(logits, pair.truth)
        (supervised + pair.weight * further).backward()
        return supervised, further


class PasteNegatives(EveryEpoch, name="paste_negatives"):
    label = "Pasted negatives"
    about = (
        "supervised loss, also of negative slices of the unlabelled set, empty ones and ones with "
        "labelled lesions pasted in"
    )
    model = "unet"
    unlabelled = "labels"
    batchwise = True
    step = PasteNegativesStep
