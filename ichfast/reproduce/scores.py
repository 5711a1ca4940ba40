"""The scores of the page, each from the columns of many runs' slices, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ichfast.evaluation import intervals
from ichfast.evaluation.intervals import Aggregation, Ratio, Rows

Means = Literal["per_slice", "per_patient"]


@dataclass(frozen=True)
class Score:
    name: str
    label: str
    unit: str = ""
    compared: bool = False
    """with the baseline, patient by patient"""


@dataclass(frozen=True, eq=False)
class Slices:
    """Rows of one run or more, each a test slice."""

    patients: NDArray[np.int64]
    series: NDArray[np.int64]
    cells: NDArray[np.int64]
    counts: NDArray[np.float64]  # (N, 3): TP, FP, FN
    hd95: NDArray[np.float64]  # NaN: undefined
    nsd: Mapping[str, NDArray[np.float64]]  # by tolerance

    @classmethod
    def from_columns(cls, columns: Sequence[Mapping[str, Any]]) -> "Slices":
        """Of the content of runs' ``slices.json``."""
        numbers = [np.full(len(one["tp"]), i) for i, one in enumerate(columns)]

        def concatenate(values: Sequence[Any], kind: type = np.float64) -> NDArray[Any]:
            return np.concatenate([np.asarray(one, kind) for one in values])

        return cls(
            concatenate([one["patient"] for one in columns], np.int64),
            concatenate([one["series"] for one in columns], np.int64),
            np.concatenate(numbers),
            np.stack([concatenate([one[key] for one in columns]) for key in ("tp", "fp", "fn")], 1),
            concatenate([one["hd95"] for one in columns]),  # None becomes NaN
            {
                name: concatenate([one["nsd"][name] for one in columns])
                for name in columns[0]["nsd"]
            },
        )

    @property
    def with_blood(self) -> NDArray[np.bool_]:
        positive: NDArray[np.bool_] = self.counts[:, 0] + self.counts[:, 2] > 0
        return positive


def make_ratios(slices: Slices) -> dict[str, tuple[Score, Ratio]]:
    """Every score as a ratio of sums over patients, by name."""
    found: dict[str, tuple[Score, Ratio]] = {}
    blood = slices.with_blood
    rows = Rows.from_patients(slices.patients[blood], slices.cells[blood])
    counts = slices.counts[blood]

    def add(name: str, label: str, ratio: Ratio, unit: str = "", compared: bool = False) -> None:
        found[name] = Score(name, label, unit, compared), ratio

    for kind in ("dice", "jaccard"):
        for way in get_args(Aggregation):
            add(
                f"{kind}.{way}",
                f"{kind.capitalize()}, {_spell(way)}",
                intervals.score_overlap(rows, counts, kind, way),
                compared=kind == "dice",
            )
    every = Rows.from_patients(slices.patients, slices.cells)
    all_of_them = intervals.score_overlap(every, slices.counts, "dice", "pooled")
    add("dice.all", "Dice, pooled over slices with and without blood", all_of_them)
    ways: tuple[Means, ...] = get_args(Means)
    for mean in ways:
        way = _spell(mean)
        distance = intervals.average(rows, slices.hd95[blood], mean)
        add(f"hd95.{mean}", f"HD95, {way}", distance, "mm", compared=mean == "per_patient")
        for tolerance, values in slices.nsd.items():
            near = intervals.average(rows, values[blood], mean)
            add(f"nsd{tolerance}.{mean}", f"NSD at {tolerance}, {way}", near)
    for unit, counted, owners in (
        ("slices", slices.counts, every),
        ("scans", *_merge_scans(slices)),
    ):
        positive = counted[:, 0] + counted[:, 2] > 0
        called = (counted[:, 0] + counted[:, 1] > 0).astype(float)
        for name, values in (
            ("sensitivity", np.where(positive, called, np.nan)),
            ("specificity", np.where(positive, np.nan, 1 - called)),
        ):
            rate = intervals.average(owners, values, "per_slice")
            add(f"{name}.{unit}", f"{name.capitalize()}, {unit}", rate)
    return found


def _merge_scans(slices: Slices) -> tuple[NDArray[np.float64], Rows]:
    """Counts and owners of whole series, one row for each and run."""
    keys = np.stack([slices.patients, slices.series, slices.cells])
    scans, places = np.unique(keys, axis=1, return_inverse=True)
    counts = np.zeros((scans.shape[1], 3))
    np.add.at(counts, places.reshape(-1), slices.counts)
    return counts, Rows.from_patients(scans[0], scans[2])


def _spell(way: str) -> str:
    return way.replace("_", " ")


def compute_intervals(slices: Slices) -> dict[str, dict[str, Any]]:
    """Every score with its interval, ready for JSON."""
    return {
        name: {"label": score.label, "unit": score.unit} | intervals.bootstrap(ratio)._asdict()
        for name, (score, ratio) in make_ratios(slices).items()
    }


def compare(one: Slices, other: Slices) -> dict[str, dict[str, Any]]:
    """``one`` less ``other``, of the same slices, for the scores that are compared."""
    base = make_ratios(other)
    return {
        name: {"label": score.label, "unit": score.unit}
        | intervals.bootstrap_difference(ratio, base[name][1])._asdict()
        for name, (score, ratio) in make_ratios(one).items()
        if score.compared
    }
