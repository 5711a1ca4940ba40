"""Alternation."""

import numpy as np
from numpy.typing import NDArray

from ichfast.training.strategies.switching import Switching


class Alternating(Switching, name="alternating"):
    """By turns, supervised first (Chen et al. 2019)."""

    label = "Chen et al., alternating"
    about = "supervised and unsupervised by turns (Chen et al. 2019)"

    def probability(self, epoch: int) -> float:
        return 0.5 if "turns" in self.steps else float(epoch % 2 == 0)

    def choose(self, epoch: int, count: int) -> NDArray[np.bool_]:
        turns: NDArray[np.bool_] = (np.arange(count) + epoch * count) % 2 == 0
        return turns
