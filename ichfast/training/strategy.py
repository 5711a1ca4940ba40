"""What a strategy is, and the list of all: whatever names strategies reads it from here.

:mod:`ichfast.training.strategies` has them, a module each.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # recipes look a strategy up here, and steps read recipes
    from ichfast.training.recipe import Recipe
    from ichfast.training.steps import Step

STRATEGIES: "dict[str, type[Strategy]]" = {}
"""by name, as ``training.strategy`` gives it"""


class Draw(NamedTuple):
    step: str
    probability: float
    """that this epoch, or each of its turns, was going to be supervised"""


class Strategy(ABC):
    """Which step an epoch takes, for one recipe; its class has what is known without one.

    A pure function of (recipe, epoch): it has no state, so nothing of it needs saving, and any
    other process computes the same schedule. ``class Mine(Strategy, name="mine")`` enters
    STRATEGIES.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    """in tables and figures"""
    about: ClassVar[str]
    """what each epoch is, in a line of the docs"""
    model: ClassVar[str]
    """the model it trains, as :func:`ichfast.models.build` names it"""
    unlabelled: ClassVar[Literal["", "images", "labels"]] = ""
    """what it needs of the unlabelled set: nothing, its slices, or its table of labels too"""
    batchwise: ClassVar[bool] = False
    """whether it goes from batch to batch, as L-BFGS cannot"""
    switches: ClassVar[bool] = False
    """whether it may choose a step for each update too (``training.turn``)"""

    def __init_subclass__(cls, *, name: str = "") -> None:
        if name:
            cls.name = name
            STRATEGIES[name] = cls

    def __init__(self, recipe: "Recipe") -> None:
        self.recipe = recipe
        self.steps: Mapping[str, type[Step]] = {step.name: step for step in self.list_steps()}

    @abstractmethod
    def list_steps(self) -> "Sequence[type[Step]]":
        """Those it may draw."""

    @abstractmethod
    def draw(self, epoch: int) -> Draw:
        """The epoch's step."""

    def choose(self, epoch: int, count: int) -> NDArray[np.bool_]:
        """Which of the epoch's turns (count,) are supervised, where the step is "turns"."""
        raise NotImplementedError

    @classmethod
    def count_extra_epochs(cls, recipe: "Recipe") -> int:
        """Epochs on the unlabelled set alone, before the others: a comparison grants them."""
        return 0


class EveryEpoch(Strategy):
    """Every epoch the same step."""

    step: "ClassVar[type[Step]]"

    def list_steps(self) -> "Sequence[type[Step]]":
        return [self.step]

    def draw(self, epoch: int) -> Draw:
        (step,) = self.steps
        return Draw(step, 1.0)


def make_strategy(recipe: "Recipe") -> Strategy:
    """The recipe's strategy."""
    return STRATEGIES[recipe.training.strategy](recipe)
