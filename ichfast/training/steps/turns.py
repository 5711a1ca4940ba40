"""An epoch whose batches are supervised or not, one by one."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ichfast.training.steps.base import (
    Outcome,
    labelled_batches,
    unlabelled_batches,
    weighted_mean,
)
from ichfast.training.steps.supervised import SupervisedAdam
from ichfast.training.steps.unsupervised import Unsupervised


class Turns:
    """As many updates as the labelled set has batches; ``choose(epoch, count)`` says which of them
    (count,) are supervised. Each kind keeps its optimizer."""

    def __init__(
        self,
        supervised: SupervisedAdam,
        unsupervised: Unsupervised,
        choose: Callable[[int, int], np.ndarray],
    ) -> None:
        self.kinds: dict[str, SupervisedAdam | Unsupervised] = {
            "supervised": supervised,
            "unsupervised": unsupervised,
        }
        self.supervised, self.unsupervised, self.choose = supervised, unsupervised, choose

    def run(self, epoch: int, *, moved: bool) -> Outcome:
        self.supervised.model.train()
        recipe, labelled = self.supervised.recipe, self.supervised.labelled
        size = recipe.supervised.batch_size
        batches = {
            "supervised": labelled_batches(labelled, recipe, epoch),
            "unsupervised": unlabelled_batches(
                self.unsupervised.unlabelled, len(labelled), size, recipe, epoch
            ),
        }
        turns = []
        for i, supervised in enumerate(self.choose(epoch, len(batches["supervised"]))):
            name = "supervised" if supervised else "unsupervised"
            batch = batches[name][i]
            turns.append((name, self.kinds[name].update(batch), batch))
        self.unsupervised.renew_statistics()
        parts = {}
        for kind in self.kinds:
            if own := [(loss, batch) for name, loss, batch in turns if name == kind]:
                parts[kind] = weighted_mean(own)
        return Outcome(weighted_mean([turn[1:] for turn in turns]), 1, parts)

    def state_dict(self) -> dict[str, Any]:
        return {name: step.state_dict() for name, step in self.kinds.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, step in self.kinds.items():
            step.load_state_dict(state[name])
