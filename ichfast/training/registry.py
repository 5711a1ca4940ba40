"""All strategies by name, and what is known of each without a recipe: recipes are checked by it."""

from typing import ClassVar, Literal

STRATEGIES: "dict[str, type[StrategyFacts]]" = {}
"""by name, as ``training.strategy`` gives it"""


class StrategyFacts:
    """What every :class:`ichfast.training.strategy.Strategy` says of itself."""

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
