"""The scores of the page, each from the columns of many runs' slices, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from ichfast.data import SUBTYPES
from ichfast.evaluation import intervals
from ichfast.evaluation.intervals import Aggregation, Rows, Score
from ichfast.evaluation.ranking import SENSITIVITY, Auc, SpecificityAtSensitivity

Means = Literal["per_slice", "per_patient"]


class Add(Protocol):
    """Takes a score into the list."""

    def __call__(
        self, name: str, label: str, score: Score, unit: str = "", compared: bool = False
    ) -> None: ...


@dataclass(frozen=True)
class About:
    """Of a score."""

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
    seeds: NDArray[np.int64]
    counts: NDArray[np.float64]  # (N, 3): TP, FP, FN
    areas: NDArray[np.float64]  # expected, in pixels
    subtypes: tuple[frozenset[str], ...]
    positive: NDArray[np.bool_]  # by the table where there is one, else by the mask
    hd95: NDArray[np.float64]  # NaN: undefined
    nsd: Mapping[str, NDArray[np.float64]]  # by tolerance

    @classmethod
    def from_columns(cls, columns: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> "Slices":
        """Of the content of runs' ``slices.json``, and the runs' seeds."""
        sizes = [len(one["tp"]) for one in columns]
        kinds = [own for one in columns for own in one["subtypes"]]

        def concatenate(values: Sequence[Any], kind: type = np.float64) -> NDArray[Any]:
            return np.concatenate([np.asarray(one, kind) for one in values])

        counts = [concatenate([one[key] for one in columns]) for key in ("tp", "fp", "fn")]
        masked = (counts[0] + counts[2] > 0).tolist()
        labels = [mask if own is None else own for own, mask in zip(kinds, masked, strict=True)]
        return cls(
            concatenate([one["patient"] for one in columns], np.int64),
            concatenate([one["series"] for one in columns], np.int64),
            np.repeat(np.arange(len(columns)), sizes),
            np.repeat(np.asarray(seeds, np.int64), sizes),
            np.stack(counts, 1),
            concatenate([one["area"] for one in columns]),
            tuple(frozenset(own or ()) for own in kinds),
            np.array([bool(label) for label in labels]),
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

    @property
    def rows(self) -> Rows:
        return Rows(self.patients, self.cells)


def make_scores(slices: Slices) -> dict[str, tuple[About, Score]]:
    """Every score, by name."""
    found: dict[str, tuple[About, Score]] = {}

    def add(name: str, label: str, score: Score, unit: str = "", compared: bool = False) -> None:
        found[name] = About(label, unit, compared), score

    _add_overlap(slices, add)
    _add_outlines(slices, add)
    _add_detection(slices, add)
    return found


def _add_overlap(slices: Slices, add: Add) -> None:
    blood = slices.with_blood
    rows, counts = slices.rows.select(blood), slices.counts[blood]
    for kind in ("dice", "jaccard"):
        for way in get_args(Aggregation):
            label = f"{kind.capitalize()}, {_spell(way)}"
            score = intervals.score_overlap(rows, counts, kind, way)
            add(f"{kind}.{way}", label, score, compared=kind == "dice")
    whole = slices.rows, slices.counts
    label = "Dice, pooled over slices with and without blood"
    add("dice.all", label, intervals.score_overlap(*whole, "dice", "pooled"), compared=True)
    # Of patients without blood it would be 0 or undefined.
    bleeding = np.isin(slices.patients, slices.patients[blood])
    rows, counts = slices.rows.select(bleeding), slices.counts[bleeding]
    label = "Dice, per patient with blood, over all slices"
    volumes = intervals.score_overlap(rows, counts, "dice", "per_patient")
    add("dice.volume", label, volumes, compared=True)
    for subtype in SUBTYPES:
        own = blood & np.array([subtype in kinds for kinds in slices.subtypes])
        if own.any():
            pooled = intervals.score_overlap(
                slices.rows.select(own), slices.counts[own], "dice", "pooled"
            )
            add(f"dice.pooled.{subtype}", f"Dice, pooled, slices with {subtype} blood", pooled)


def _add_outlines(slices: Slices, add: Add) -> None:
    blood = slices.with_blood
    rows = slices.rows.select(blood)
    ways: tuple[Means, ...] = get_args(Means)
    for mean in ways:
        way = _spell(mean)
        distance = intervals.average(rows, slices.hd95[blood], mean)
        add(f"hd95.{mean}", f"HD95, {way}", distance, "mm", compared=mean == "per_patient")
        for tolerance, values in slices.nsd.items():
            near = intervals.average(rows, values[blood], mean)
            add(f"nsd{tolerance}.{mean}", f"NSD at {tolerance}, {way}", near)


def _add_detection(slices: Slices, add: Add) -> None:
    for unit, own in (("slices", slices), ("scans", merge_scans(slices))):
        for name, rate in intervals.score_detection(own.rows, own.counts).items():
            add(f"{name}.{unit}", f"{name.capitalize()}, {unit}", rate)
        ranked = own.patients, own.seeds, own.positive, own.areas
        add(f"auc.{unit}", f"AUC of the area, {unit}", Auc.from_rows(*ranked), compared=True)
        label = f"Specificity at a sensitivity of {SENSITIVITY:g}, {unit}"
        point = SpecificityAtSensitivity.from_rows(*ranked)
        add(f"operating.{unit}", label, point, compared=True)


def merge_scans(slices: Slices) -> Slices:
    """Whole series as one row for each run: counts and areas added up."""
    keys = np.stack([slices.patients, slices.series, slices.cells, slices.seeds])
    (patients, series, cells, seeds), places = np.unique(keys, axis=1, return_inverse=True)
    places = places.reshape(-1)
    count = len(patients)
    counts = np.zeros((count, 3))
    np.add.at(counts, places, slices.counts)
    none = np.full(count, np.nan)
    return Slices(
        patients,
        series,
        cells,
        seeds,
        counts,
        np.bincount(places, slices.areas, count).astype(np.float64),
        (frozenset(),) * count,
        np.bincount(places, slices.positive, count) > 0,
        none,
        {},
    )


def _spell(way: str) -> str:
    return way.replace("_", " ")


def compute_intervals(slices: Slices) -> dict[str, dict[str, Any]]:
    """Every score with its interval, ready for JSON."""
    return {
        name: {"label": about.label, "unit": about.unit} | intervals.bootstrap(score)._asdict()
        for name, (about, score) in make_scores(slices).items()
    }


def compare(one: Slices, other: Slices) -> dict[str, dict[str, Any]]:
    """``one`` less ``other``, of the same patients, for the scores that are compared."""
    base = make_scores(other)
    return {
        name: {"label": about.label, "unit": about.unit}
        | intervals.bootstrap_difference(score, base[name][1])._asdict()
        for name, (about, score) in make_scores(one).items()
        if about.compared
    }
