"""The rows of the table: which training stands for which line of the paper, and what it printed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ichfast.training import Recipe

DIVERGED = "diverged"
Overrides = Callable[[Recipe], dict[str, Any]]


@dataclass(frozen=True)
class Row:
    name: str
    label: str
    overrides: Overrides
    """the recipe's keys that make it this row"""
    about: str = ""
    paper: Mapping[int, tuple[float, float] | str] = field(default_factory=dict)
    """scheme -> Dice and Jaccard as printed, or DIVERGED; a scheme it lacks was not printed"""


def by_recipe(strategy: str) -> Overrides:
    """With the optimizer of the recipe."""
    return lambda base: {"training.strategy": strategy}


def adam(strategy: str) -> Overrides:
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


def pretrained(base: Recipe) -> dict[str, Any]:
    """Its first epochs are of the unlabelled slices: the others are as many as those of all."""
    first = base.pretraining.epochs
    return {"training.strategy": "pretrained", "training.epochs": base.training.epochs + first}


def classic(base: Recipe) -> dict[str, Any]:
    """64…1024 where the reduced one has 64…512."""
    channels = base.model.channels
    return {
        "training.strategy": "supervised",
        "model.convolutions": 2,
        "model.channels": [*channels, 2 * channels[-1]],
    }


ROWS = (
    Row(
        "classic",
        "Hssayeni et al.",
        classic,
        "classic U-Net, two convolutions a level and one level more, supervised",
        {80: (0.31, 0.18)},
    ),
    Row(
        "alternating",
        "Chen et al., alternating",
        by_recipe("alternating"),
        "two decoders, supervised and unsupervised epochs by turns",
        dict.fromkeys((20, 50, 80), DIVERGED),
    ),
    Row(
        "joint",
        "Chen et al., joint",
        adam("joint"),
        "two decoders, both losses in one update of Adam",
        dict.fromkeys((20, 50, 80), DIVERGED),
    ),
    Row(
        "pretrained",
        "Pretrained",
        pretrained,
        "encoder trained first to name the haemorrhages of the unlabelled set",
        {20: (0.33, 0.20), 50: (0.44, 0.28), 80: (0.61, 0.44)},
    ),
    Row(
        "supervised",
        "Supervised",
        by_recipe("supervised"),
        "reduced U-Net on the labelled slices alone",
        {20: (0.31, 0.18), 50: (0.42, 0.27), 80: (0.61, 0.44)},
    ),
    Row(
        "curriculum",
        "Semi-supervised",
        by_recipe("curriculum"),
        "two decoders, supervised epochs giving way to unsupervised ones: the paper's method",
        {20: (0.44, 0.28), 50: (0.51, 0.34), 80: (0.67, 0.50)},
    ),
    Row("mean_teacher", "Mean teacher", adam("mean_teacher"), "not in the paper"),
    Row("cps", "Cross pseudo supervision", adam("cps"), "not in the paper"),
    Row("pseudo_label", "Pseudo labels", adam("pseudo_label"), "not in the paper"),
)
BASELINE = "supervised"
"""that every row is compared with"""
METHOD = "curriculum"
"""of the unlabelled-amount curve and of the examples"""
