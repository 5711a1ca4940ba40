"""What a strategy is. :mod:`ichfast.training.strategies` has them, a module each."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ichfast.training.recipe import Recipe
from ichfast.training.registry import STRATEGIES, StrategyFacts
from ichfast.training.steps.base import Step


class Draw(NamedTuple):
    step: str
    probability: float
    """that this epoch, or each of its turns, was going to be supervised"""


class Strategy(StrategyFacts, ABC):
    """Which step an epoch takes, for one recipe; its class has what is known without one.

    A pure function of (recipe, epoch): it has no state, so nothing of it needs saving, and any
    other process computes the same schedule. ``class Mine(Strategy, name="mine")`` enters
    STRATEGIES.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.steps: Mapping[str, type[Step]] = {step.name: step for step in self.list_steps()}

    @abstractmethod
    def list_steps(self) -> Sequence[type[Step]]:
        """Those it may draw."""

    @abstractmethod
    def draw(self, epoch: int) -> Draw:
        """The epoch's step."""

    def choose(self, epoch: int, count: int) -> NDArray[np.bool_]:
        """Which of the epoch's turns (count,) are supervised, where the step is "turns"."""
        raise NotImplementedError

    @classmethod
    def count_extra_epochs(cls, recipe: Recipe) -> int:
        """Epochs on the unlabelled set alone, before the others: a comparison grants them."""
        return 0


class EveryEpoch(Strategy):
    """Every epoch the same step."""

    step: ClassVar[type[Step]]

    def list_steps(self) -> Sequence[type[Step]]:
        return [self.step]

    def draw(self, epoch: int) -> Draw:
        (step,) = self.steps
        return Draw(step, 1.0)


def find_strategy(name: str) -> type[Strategy]:
    """The strategy of this name."""
    strategy = STRATEGIES[name]
    assert issubclass(strategy, Strategy)
    return strategy


def make_strategy(recipe: Recipe) -> Strategy:
    """The recipe's strategy."""
    return find_strategy(recipe.training.strategy)(recipe)
