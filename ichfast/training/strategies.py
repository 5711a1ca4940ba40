"""Which step an epoch takes. A strategy is a pure function of (recipe, epoch): it has no state, so
nothing of it needs saving, and any other process can compute the same schedule."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from ichfast.training.curriculum import supervised_probability
from ichfast.training.recipe import Recipe
from ichfast.training.streams import stream


class Draw(NamedTuple):
    step: str
    probability: float
    """that this epoch was going to be supervised"""


class Strategy(Protocol):
    @property
    def model(self) -> str:
        """the model it trains, as :func:`ichfast.models.build` names it"""
        ...

    @property
    def steps(self) -> tuple[str, ...]:
        """the steps it may draw, as :func:`ichfast.training.steps.build_steps` names them"""
        ...

    def draw(self, epoch: int) -> Draw: ...


class Supervised:
    """Every epoch on the labelled slices."""

    model = "unet"
    steps = ("supervised",)

    def draw(self, epoch: int) -> Draw:
        return Draw("supervised", 1.0)


@dataclass(frozen=True)
class Curriculum:
    """Supervised with a probability that falls from epoch to epoch, else unsupervised (the paper).
    One draw an epoch is the literal reading."""

    k: float
    floor: float
    seed: int
    model: ClassVar = "multitask"
    steps: ClassVar = ("supervised", "unsupervised")

    def draw(self, epoch: int) -> Draw:
        p = supervised_probability(epoch, self.k, self.floor)
        supervised = stream(self.seed, "curriculum", epoch).random() < p
        return Draw("supervised" if supervised else "unsupervised", p)


STRATEGIES: dict[str, Callable[[Recipe], Strategy]] = {
    "supervised": lambda recipe: Supervised(),
    "curriculum": lambda recipe: Curriculum(
        recipe.curriculum.k, recipe.curriculum.floor, recipe.training.seed
    ),
}


def strategy_of(recipe: Recipe) -> Strategy:
    return STRATEGIES[recipe.training.strategy](recipe)
