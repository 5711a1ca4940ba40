"""The paper's method (Wang et al. 2020, section 5.3)."""

import math

import numpy as np
from numpy.typing import NDArray

from ichfast.training.seeding import make_generator
from ichfast.training.strategies.switching import Switching


class Curriculum(Switching, name="curriculum"):
    """Supervised with a probability that falls from epoch to epoch, else unsupervised. One draw per
    epoch is the literal reading."""

    label = "Semi-supervised"
    about = "supervised or unsupervised, by a probability that falls (the paper)"

    def probability(self, epoch: int) -> float:
        settings = self.recipe.curriculum
        return supervised_probability(epoch, settings.k, settings.floor, settings.decay)

    def choose(self, epoch: int, count: int) -> NDArray[np.bool_]:
        generator = make_generator(self.recipe.training.seed, "curriculum", epoch)
        drawn: NDArray[np.float64] = generator.random(count)
        return drawn < self.probability(epoch)


def supervised_probability(epoch: int, k: float, floor: float, decay: str) -> float:
    """max(p(x), floor) for epoch x, with p(x) by name of the decay:

    "paper": k / (k + exp(x/k)), which is the inverse sigmoid decay of scheduled sampling (Bengio et
    al., NeurIPS 2015); "exponential": exp(−x/k); "linear": 1 − x/k.
    """
    if decay == "exponential":
        return max(math.exp(-epoch / k), floor)
    if decay == "linear":
        return max(1 - epoch / k, floor)
    # As the logistic function of ln k − x/k, whose exponential underflows where that of the formula
    # would overflow (x/k > 709).
    z = math.log(k) - epoch / k
    p = 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))
    return max(p, floor)
