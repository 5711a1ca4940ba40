"""The studies that can be run, as data: settings, rows, how patients are split and labelled, and in
which order the cells are trained. docs/explanation/study.md says why."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ichfast.data import SCHEMES
from ichfast.reproduce.rows import CT_ICH_ROWS, ROWS, TableRow
from ichfast.training import PRESETS, Recipe
from ichfast.training.presets import BESIDE_IT, SMALL, STRONG_BASELINE
from ichfast.training.recipe import merge

SHARED: dict[str, Any] = {"data.test_slices": "all"}
"""of every cell: slices without blood are tested on too, or there would be no specificity"""


@dataclass(frozen=True)
class Protocol:
    """Who is trained on, with and without labels, and who is tested on: a section of the page."""

    name: str
    label: str
    about: str
    choose: Callable[[int], dict[str, Any]]
    """the recipe's keys for a share of labels in per cent"""
    printed: bool = False
    """whether the paper's numbers belong beside its own"""

    def count_folds(self, scheme: int) -> int:
        return SCHEMES[self.choose(scheme)["data.scheme"]]


def take_other_patients(share: int) -> dict[str, Any]:
    return {"data.scheme": 80, "data.labelled_share": share / 100, "data.unlabelled": ""}


def deal_out_slices(scheme: int) -> dict[str, Any]:
    return {
        "data.scheme": scheme,
        "data.split_by": "slice",
        "data.slices": "positive",
        "data.test_slices": "positive",
        "supervised.positive": 0.0,  # all are
    }


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "paper",
            "The paper's folds, a set of its own without labels",
            "20, 50 or 80 % of the labelled set's patients are trained on and the others tested "
            "on; slices without labels come from the unlabelled set.",
            lambda scheme: {"data.scheme": scheme},
            printed=True,
        ),
        Protocol(
            "own",
            "One hospital, few of its patients labelled",
            "Five folds; four fifths of the patients are trained on, with labels for 20 or 50 % of "
            "them. All slices of the others are the unlabelled ones.",
            take_other_patients,
        ),
        Protocol(
            "slices",
            "Slices dealt out, not patients",
            "The paper's folds seem to be of slices with haemorrhage, so that neighbours of one "
            "bleed are on both sides. This shows what that is worth, and nothing else.",
            deal_out_slices,
            printed=True,
        ),
    )
}


class Column(NamedTuple):
    """Cells that are averaged and compared with each other."""

    protocol: str
    scheme: int
    """per cent of the patients, under ``own`` of the training patients, that have labels"""


@dataclass(frozen=True)
class Part:
    """Cells that are trained one seed after the other, a fold's rows side by side."""

    columns: tuple[Column, ...]
    rows: tuple[str, ...] = ()
    """all of the study's, where there are none"""
    seeds: int | None = None
    """at most as many"""


@dataclass(frozen=True)
class Comparison:
    """One row less another, in one column, by one score, over all its folds."""

    row: str
    other: str
    column: Column
    score: str
    seeds: int

    def __str__(self) -> str:
        protocol, scheme = self.column
        folds = PROTOCOLS[protocol].count_folds(scheme)
        return (
            f"{self.row} less {self.other}, protocol {protocol}, {scheme} % labels, {self.score}, "
            f"{folds} folds of {self.seeds} seed{'s' * (self.seeds > 1)}"
        )


@dataclass(frozen=True)
class Study:
    name: str
    recipe: Recipe
    rows: tuple[TableRow, ...]
    parts: tuple[Part, ...]
    """the most important first, since a study may be stopped at any time"""
    method: str = "curriculum"
    """of the unlabelled amounts and of the examples"""
    shown: tuple[str, ...] = ("pretrained", "supervised", "curriculum", "mean_teacher")
    """rows in the examples"""
    amounts: tuple[int, ...] = ()
    """per cent of the unlabelled slices that the method is trained with too, where 20 % of the
    patients are labelled; 0 is the supervised row, 100 the method's"""
    seeds: int = 1
    needs_data: bool = False
    """whether the phantom is no substitute"""
    primary: Comparison | None = None
    secondary: tuple[Comparison, ...] = ()
    """the family whose p-values are corrected for its size"""
    credit: str = ""
    """of the pictures in the examples"""
    oracle: Column | None = None
    """where the baseline has all labels of the folds of ``own``"""

    def list_columns(self) -> list[Column]:
        """By protocol and share of labels."""
        found = {column for part in self.parts for column in part.columns}
        order = list(PROTOCOLS)
        return sorted(found, key=lambda column: (order.index(column.protocol), column.scheme))

    def list_rows(self, part: Part) -> Iterator[TableRow]:
        return (row for row in self.rows if not part.rows or row.name in part.rows)


BASELINE = "supervised"
"""that every row is compared with"""
AMOUNT_COLUMN = Column("paper", 20)
PAPER_COLUMNS = tuple(Column("paper", scheme) for scheme in sorted(SCHEMES))

DEMO = {
    # All rows by Adam: in so few passes L-BFGS gets less far (benchmarks/cohorts.py).
    "training.epochs": 60,
    "training.validate_every": 5,
    "training.checkpoint_every": 5,
    "supervised.optimizer": "adam",
    "adam.learning_rate": 4e-3,
    "curriculum.k": 12.0,  # half of all epochs supervised, as in the paper
    "pretraining.epochs": 6,
    "together.ramp": 0.4,
    "data.train": 0.5,
    "data.validation": 0.3,
    "data.test": 0.2,
    "phantom.patients": 32,
    "phantom.slices": 4,
}

CT_ICH = (
    STRONG_BASELINE
    | BESIDE_IT
    | {
        "training.checkpoint_every": 5,
        "data.train": 0.8,
        "data.validation": 0.0,  # the last weights' average: nothing is chosen by labels
        "compute.precision": "auto",
    }
)

OWN_20 = Column("own", 20)
PRIMARY = Comparison("paste_negatives", BASELINE, OWN_20, "dice.all", seeds=3)
_ONE_SEED = replace(PRIMARY, seeds=1)  # as their cells have, below
SECONDARY = (
    *(
        replace(_ONE_SEED, row=row.name)
        for row in CT_ICH_ROWS
        if row.name not in (PRIMARY.row, BASELINE)
    ),
    *(replace(_ONE_SEED, row="curriculum", column=Column("paper", scheme)) for scheme in (20, 80)),
)

STUDIES = {
    study.name: study
    for study in (
        Study(
            "demo",
            merge(Recipe(), SMALL | DEMO),
            ROWS,
            (Part(PAPER_COLUMNS),),
            amounts=(10, 30),
        ),
        Study(
            "paper",
            PRESETS["paper"],
            ROWS,
            (Part(PAPER_COLUMNS),),
            amounts=(10, 30),
        ),
        Study(
            "ct-ich",
            merge(Recipe(), CT_ICH),
            CT_ICH_ROWS,
            (
                Part((OWN_20,), (PRIMARY.row, BASELINE)),
                Part((Column("paper", 80),), (BASELINE,), 1),
                Part((OWN_20,), seeds=1),
                Part(PAPER_COLUMNS, (BASELINE, "curriculum"), 1),
                Part((Column("own", 50),), (BASELINE, PRIMARY.row), 1),
                Part((Column("slices", 80),), (BASELINE, "curriculum"), 1),
            ),
            method=PRIMARY.row,
            shown=(BASELINE, PRIMARY.row),
            seeds=3,
            needs_data=True,
            primary=PRIMARY,
            secondary=SECONDARY,
            credit="Pictures: CT-ICH 1.0.0, M. Hssayeni, PhysioNet 2019, doi:10.13026/w8q8-ky94, "
            "CC BY 4.0; reduced, with outlines drawn in.",
            oracle=Column("paper", 80),
        ),
    )
}
