"""Which step an epoch takes. A strategy is a pure function of (recipe, epoch): it has no state, so
nothing of it needs saving, and any other process can compute the same schedule."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ichfast.training.curriculum import supervised_probability
from ichfast.training.recipe import Recipe
from ichfast.training.streams import stream

Unlabelled = Literal["", "images", "labels"]
"""what a strategy needs of the unlabelled set: nothing, its slices, or its table of labels too"""


class Draw(NamedTuple):
    step: str
    probability: float
    """that this epoch, or each of its turns, was going to be supervised"""


class Strategy:
    model: str
    """the model it trains, as :func:`ichfast.models.build` names it"""
    unlabelled: Unlabelled
    steps: tuple[str, ...]
    """the steps it may draw, as :func:`ichfast.training.steps.build_steps` names them"""

    def draw(self, epoch: int) -> Draw:
        raise NotImplementedError

    def choose(self, epoch: int, count: int) -> NDArray[np.bool_]:
        """Which of the epoch's turns (count,) are supervised, where the step is "turns"."""
        raise NotImplementedError


class Always(Strategy):
    """Every epoch the same step."""

    def __init__(self, step: str, model: str, unlabelled: Unlabelled) -> None:
        self.steps, self.model, self.unlabelled = (step,), model, unlabelled

    def draw(self, epoch: int) -> Draw:
        return Draw(self.steps[0], 1.0)


class Pretrained(Strategy):
    """The encoder on the unlabelled set's labels first, then everything on the labelled slices."""

    model = "unet"
    unlabelled = "labels"
    steps = ("classification", "supervised")

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def draw(self, epoch: int) -> Draw:
        pretraining = epoch < self.epochs
        return Draw("classification" if pretraining else "supervised", float(not pretraining))


class Switching(Strategy):
    """Supervised or unsupervised, for a whole epoch or for each of its turns."""

    model = "multitask"
    unlabelled = "images"

    def __init__(self, turn: str) -> None:
        self.steps = ("turns",) if turn == "step" else ("supervised", "unsupervised")

    def probability(self, epoch: int) -> float:
        raise NotImplementedError

    def draw(self, epoch: int) -> Draw:
        if self.steps == ("turns",):
            return Draw("turns", self.probability(epoch))
        return Draw(self.steps[0 if self.choose(epoch, 1)[0] else 1], self.probability(epoch))


class Curriculum(Switching):
    """Supervised with a probability that falls from epoch to epoch, else unsupervised (the paper).
    One draw an epoch is the literal reading."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe.training.turn)
        self.settings, self.seed = recipe.curriculum, recipe.training.seed

    def probability(self, epoch: int) -> float:
        settings = self.settings
        return supervised_probability(epoch, settings.k, settings.floor, settings.decay)

    def choose(self, epoch: int, count: int) -> NDArray[np.bool_]:
        drawn: NDArray[np.float64] = stream(self.seed, "curriculum", epoch).random(count)
        return drawn < self.probability(epoch)


class Alternating(Switching):
    """By turns, supervised first (Chen et al. 2019)."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe.training.turn)

    def probability(self, epoch: int) -> float:
        return 0.5 if self.steps == ("turns",) else float(epoch % 2 == 0)

    def choose(self, epoch: int, count: int) -> NDArray[np.bool_]:
        turns: NDArray[np.bool_] = (np.arange(count) + epoch * count) % 2 == 0
        return turns


STRATEGIES: dict[str, Callable[[Recipe], Strategy]] = {
    "supervised": lambda recipe: Always("supervised", "unet", ""),
    "pretrained": lambda recipe: Pretrained(recipe.pretraining.epochs),
    "curriculum": Curriculum,
    "alternating": Alternating,
    "joint": lambda recipe: Always("joint", "multitask", "images"),
    "mean_teacher": lambda recipe: Always("mean_teacher", "unet", "images"),
    "cps": lambda recipe: Always("cps", "unet", "images"),
    "pseudo_label": lambda recipe: Always("pseudo_label", "unet", "images"),
}


def strategy_of(recipe: Recipe) -> Strategy:
    return STRATEGIES[recipe.training.strategy](recipe)
