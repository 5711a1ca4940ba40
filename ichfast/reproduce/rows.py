"""The rows of the table: which training stands for which line of the paper, and what it printed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ichfast.training import Recipe
from ichfast.training.recipe import merge
from ichfast.training.registry import STRATEGIES
from ichfast.training.strategy import find_strategy, make_strategy

DIVERGED = "diverged"
Overrides = Callable[[Recipe], dict[str, Any]]
Printed = Mapping[int, tuple[float, float] | str]
"""scheme -> Dice and Jaccard as printed, or DIVERGED; a scheme it lacks was not printed"""


@dataclass(frozen=True)
class TableRow:
    name: str
    label: str
    overrides: Overrides
    """the recipe's keys that make it this row"""
    about: str = ""
    paper: Printed = field(default_factory=dict)


def follow_recipe(strategy: str) -> Overrides:
    """With the optimizer of the recipe, and as many epochs on labelled slices."""

    def overrides(base: Recipe) -> dict[str, Any]:
        first = find_strategy(strategy).count_extra_epochs(base)
        return {"training.strategy": strategy, "training.epochs": base.training.epochs + first}

    return overrides


def use_adam(strategy: str) -> Overrides:
    """As many passes over the labelled slices, an epoch being one, as the recipe has epochs of Adam
    or iterations of L-BFGS."""

    def overrides(base: Recipe) -> dict[str, Any]:
        epochs = ("training.epochs", "training.validate_every", "training.checkpoint_every")
        passes = base.lbfgs.max_iter if base.supervised.optimizer == "lbfgs" else 1
        return {
            "training.strategy": strategy,
            "supervised.optimizer": "adam",
            **{key: passes * getattr(base.training, key.split(".")[1]) for key in epochs},
        }

    return overrides


def use_classic(base: Recipe) -> dict[str, Any]:
    """64…1024 where the reduced one has 64…512."""
    channels = base.model.channels
    return {
        "training.strategy": "supervised",
        "model.convolutions": 2,
        "model.channels": [*channels, 2 * channels[-1]],
    }


def make_row(name: str, about: str = "not in the paper", paper: Printed | None = None) -> TableRow:
    """The row of a strategy, which goes by its name."""
    strategy = STRATEGIES[name]
    overrides = use_adam(name) if strategy.batchwise else follow_recipe(name)
    return TableRow(name, strategy.label, overrides, about, paper or {})


IN_PAPER = (
    TableRow(
        "classic",
        "Hssayeni et al.",
        use_classic,
        "classic U-Net, two convolutions a level and one level more, supervised",
        {80: (0.31, 0.18)},
    ),
    make_row(
        "alternating",
        "two decoders, supervised and unsupervised epochs by turns",
        dict.fromkeys((20, 50, 80), DIVERGED),
    ),
    make_row(
        "joint",
        "two decoders, both losses in one update of Adam",
        dict.fromkeys((20, 50, 80), DIVERGED),
    ),
    make_row(
        "pretrained",
        "encoder trained first to name the haemorrhages of the unlabelled set",
        {20: (0.33, 0.20), 50: (0.44, 0.28), 80: (0.61, 0.44)},
    ),
    make_row(
        "supervised",
        "reduced U-Net on the labelled slices alone",
        {20: (0.31, 0.18), 50: (0.42, 0.27), 80: (0.61, 0.44)},
    ),
    make_row(
        "curriculum",
        "two decoders, supervised epochs giving way to unsupervised ones: the paper's method",
        {20: (0.44, 0.28), 50: (0.51, 0.34), 80: (0.67, 0.50)},
    ),
)
FURTHER = tuple(make_row(name) for name in STRATEGIES if name not in {row.name for row in IN_PAPER})
ROWS = (*IN_PAPER, *FURTHER)


def grant_supervised(strategy: str) -> Overrides:
    """With as many supervised epochs as the recipe has epochs: further ones come on top."""

    def overrides(base: Recipe) -> dict[str, Any]:
        chosen = make_strategy(merge(base, {"training.strategy": strategy}))
        epochs = supervised = 0
        while supervised < base.training.epochs:
            supervised += chosen.draw(epochs).step == "supervised"
            epochs += 1
        return {"training.strategy": strategy, "training.epochs": epochs}

    return overrides


def vary(row: TableRow, name: str, label: str, about: str, keys: Mapping[str, Any]) -> TableRow:
    """The row with further keys, under another name."""
    return TableRow(name, label, lambda base: row.overrides(base) | dict(keys), about)


def find_row(name: str) -> TableRow:
    return next(row for row in ROWS if row.name == name)


def _describe(name: str) -> TableRow:
    """The row of a strategy by what it does, where the paper is not the measure."""
    return replace(find_row(name), about=STRATEGIES[name].about)


_CURRICULUM = replace(find_row("curriculum"), overrides=grant_supervised("curriculum"))
CT_ICH_ROWS = (
    find_row("supervised"),
    _CURRICULUM,
    vary(
        _CURRICULUM,
        "curriculum_region",
        "Semi-supervised, by region",
        "as the paper's method, each error of L_u a mean over its own region",
        {"unsupervised.balance": "region"},
    ),
    _describe("paste_negatives"),
    _describe("unimatch"),
    vary(
        find_row("unimatch"),
        "unimatch_labels",
        "UniMatch, slice labels used",
        "as unimatch, where the table's negative slices are exact empty masks",
        {"together.slice_labels": "use"},
    ),
    _describe("mean_teacher"),
    _describe("pseudo_label"),
    _describe("cps"),
    find_row("pretrained"),
)
