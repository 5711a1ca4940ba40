"""How much a score depends on the choice of patients: intervals from resampling patients.

Slices of a patient resemble each other, so patients are drawn anew, with repetition, and all rows
of a patient go along: every slice, and every fold and seed. (Percentile bootstrap over clusters:
Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; Davison and Hinkley, 1997,
section 3.8.) Most scores are a ratio of two sums over patients, `Ratio`, so that a resample is two
dot products, and 2,000 of them take milliseconds; `ichfast.evaluation.ranking` has the others.

    rows = Rows.from_patients(patients)        # a number for each slice
    dice = score_overlap(rows, counts, "dice", "pooled")
    bootstrap(dice)                            # estimate with its 95 % interval
    bootstrap_difference(dice, of_another)     # on the same patients, resampled together
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
LEVEL = 0.95
TOO_FEW = "fewer than two patients have the score, so there is nothing to resample"

Aggregation = Literal["pooled", "per_slice", "per_patient"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rows:
    """One row per slice, fold and seed. ``cells`` tells the rows of different runs apart; a patient
    has the same number in all of them."""

    patients: NDArray[np.int64]  # (N,)
    cells: NDArray[np.int64]  # (N,)

    @classmethod
    def from_patients(cls, patients: ArrayLike, cells: ArrayLike | None = None) -> "Rows":
        """From the (N,) patients' numbers and, where there are several runs, the runs'."""
        numbers = np.asarray(patients, np.int64)
        own = np.zeros_like(numbers) if cells is None else np.asarray(cells, np.int64)
        if numbers.ndim != 1 or own.shape != numbers.shape or not len(numbers):
            raise ValueError(
                f"patients and cells must be N >= 1 numbers each: {numbers.shape}, {own.shape}"
            )
        return cls(numbers, own)

    def select(self, chosen: NDArray[np.bool_]) -> "Rows":
        return Rows(self.patients[chosen], self.cells[chosen])


class Score(Protocol):
    """What can be computed of any resample of patients."""

    @property
    def patients(self) -> NDArray[np.int64]:
        """(P,) each once, in order."""

    @property
    def known(self) -> NDArray[np.bool_]:
        """(P,) whether the patient counts in it."""

    def resample(self, draws: Floats) -> Floats:
        """(R,) the score where each of R resamples has drawn each patient ``draws`` (R, P) times;
        NaN where nobody drawn has it."""


@dataclass(frozen=True, eq=False)
class Ratio:
    """A score as the sum of ``above`` over the sum of ``below``; a patient without it has 0, 0."""

    patients: NDArray[np.int64]  # (P,) each once, in order
    above: Floats  # (P,)
    below: Floats  # (P,)

    @property
    def known(self) -> NDArray[np.bool_]:
        return self.below > 0

    def resample(self, draws: Floats) -> Floats:
        above, below = draws @ self.above, draws @ self.below
        return divide(above, below)

    @property
    def estimate(self) -> float | None:
        """The score of the patients as they are; None where no patient has it."""
        return estimate(self)


class Interval(NamedTuple):
    estimate: float | None
    low: float | None  # None, and the reason, where there is no interval
    high: float | None
    reason: str | None = None


class PairedDifference(NamedTuple):
    estimate: float | None  # the first score less the second
    low: float | None
    high: float | None
    above_zero: float | None  # share of the resamples in which the first is higher
    p: float | None  # of no difference, two-sided
    reason: str | None = None


def score_overlap(
    rows: Rows,
    counts: ArrayLike,
    score: Literal["dice", "jaccard"],
    aggregation: Aggregation,
) -> Ratio:
    """Dice or Jaccard of counts (N, 3) = TP, FP, FN, as `ichfast.metrics.aggregate` has them under
    the rule "nan". ``pooled`` adds up all rows of all cells; ``per_patient`` adds up within a
    patient and cell, and is the mean over patients of the mean over their cells.
    """
    tp, fp, fn = np.asarray(counts, np.float64).reshape(len(rows.patients), 3).T
    above, below = (2 * tp, 2 * tp + fp + fn) if score == "dice" else (tp, tp + fp + fn)
    if aggregation == "pooled":
        return _sum_by_patient(rows.patients, above, below)
    if aggregation == "per_patient":
        rows, above, below = _sum_by_patient_and_cell(rows, above, below)
    with np.errstate(invalid="ignore"):  # 0/0: undefined
        return average(rows, above / below, aggregation)


def score_detection(rows: Rows, counts: ArrayLike) -> dict[str, Ratio]:
    """Sensitivity and specificity of counts (N, 3) = TP, FP, FN, by name: the share of the rows
    with blood in which any voxel is called blood, and of those without in which none is."""
    tp, fp, fn = np.asarray(counts, np.float64).reshape(len(rows.patients), 3).T
    positive, called = tp + fn > 0, tp + fp > 0
    right = {
        "sensitivity": np.where(positive, called, np.nan),
        "specificity": np.where(positive, np.nan, ~called),
    }
    return {name: average(rows, values, "per_slice") for name, values in right.items()}


def average(
    rows: Rows, values: ArrayLike, aggregation: Literal["per_slice", "per_patient"]
) -> Ratio:
    """The mean of values (N,) that are not NaN: over rows, or over patients of the mean of each of
    their cells, so that every patient weighs the same. HD95, NSD, and with 0 and 1 sensitivity.
    """
    scores = np.asarray(values, np.float64)
    known = (~np.isnan(scores)).astype(np.float64)
    scores = np.where(known > 0, scores, 0)
    if aggregation == "per_slice":
        return _sum_by_patient(rows.patients, scores, known)
    rows, scores, known = _sum_by_patient_and_cell(rows, scores, known)
    scores = np.divide(scores, known, out=np.zeros_like(scores), where=known > 0)
    of_patients = _sum_by_patient(rows.patients, scores, (known > 0).astype(np.float64))
    cells = np.maximum(of_patients.below, 1)
    return Ratio(of_patients.patients, of_patients.above / cells, of_patients.below / cells)


def estimate(score: Score) -> float | None:
    """The score of the patients as they are; None where no patient has it."""
    value = float(score.resample(np.ones((1, len(score.patients))))[0])
    return None if np.isnan(value) else value


def bootstrap(score: Score, *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The score with its 95 % percentile interval. A resample that draws nobody who has the score
    is left out."""
    if np.count_nonzero(score.known) < 2:
        return Interval(estimate(score), None, None, TOO_FEW)
    low, high = _find_percentiles(score.resample(_draw(len(score.patients), resamples, seed)))
    return Interval(estimate(score), low, high)


def bootstrap_difference(
    one: Score, other: Score, *, resamples: int = RESAMPLES, seed: int = 0
) -> PairedDifference:
    """``one`` less ``other``, both with the same patients in every resample.

    ``p`` inverts the percentile interval: twice the share of the resamples that lie on the rarer
    side of zero, zero itself on both, one resample more on that side so that it is never 0
    (Davison and Hinkley 1997, section 4.4): at least 2/(resamples + 1).
    """
    if not np.array_equal(one.patients, other.patients):
        lone = np.setxor1d(one.patients, other.patients)
        raise ValueError(f"not the same patients: {len(lone)} have one of the two scores only")
    first, second = estimate(one), estimate(other)
    difference = None if first is None or second is None else first - second
    if np.count_nonzero(one.known & other.known) < 2:
        return PairedDifference(difference, None, None, None, None, TOO_FEW)
    draws = _draw(len(one.patients), resamples, seed)
    differences = one.resample(draws) - other.resample(draws)
    low, high = _find_percentiles(differences)
    known = differences[~np.isnan(differences)]
    rarer = min((known <= 0).sum(), (known >= 0).sum())
    p = min(1.0, float(2 * (rarer + 1) / (len(known) + 1)))
    return PairedDifference(difference, low, high, float((known > 0).mean()), p)


def adjust_holm(ps: Sequence[float], family: int | None = None) -> list[float]:
    """P-values with the error of the whole family held: Holm (Scand. J. Statist. 6:65, 1979). The
    ``family`` may be larger than what is known of it: those missing count as the largest."""
    count = len(ps) if family is None else family
    if count < len(ps):
        raise ValueError(f"{len(ps)} p-values cannot be of a family of {count}")
    adjusted = [0.0] * len(ps)
    highest = 0.0
    for place, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (count - place) * ps[i]))
        adjusted[i] = highest
    return adjusted


def divide(above: Floats, below: Floats) -> Floats:
    """NaN where ``below`` is 0."""
    nothing: Floats = np.full(len(below), np.nan)
    return np.divide(above, below, out=nothing, where=below > 0)


def _sum_by_patient(patients: NDArray[np.int64], above: Floats, below: Floats) -> Ratio:
    names, places = np.unique(patients, return_inverse=True)
    return Ratio(names, _sum_at(places, above, len(names)), _sum_at(places, below, len(names)))


def _sum_by_patient_and_cell(rows: Rows, *values: Floats) -> tuple[Any, ...]:
    """Rows and values (N,), added up to one row for each patient and cell."""
    pairs, places = np.unique(np.stack([rows.patients, rows.cells]), axis=1, return_inverse=True)
    places = places.reshape(-1)  # NumPy 2.0 kept an axis
    return Rows(pairs[0], pairs[1]), *(_sum_at(places, each, pairs.shape[1]) for each in values)


def _sum_at(places: NDArray[np.intp], values: Floats, count: int) -> Floats:
    return np.bincount(places, values, count).astype(np.float64)


@lru_cache(maxsize=8)
def _draw(patients: int, resamples: int, seed: int) -> Floats:
    """(R, P): how often each resample has drawn each patient."""
    share = np.full(patients, 1 / patients)
    return np.random.default_rng(seed).multinomial(patients, share, resamples).astype(np.float64)


def _find_percentiles(values: Floats) -> tuple[float, float]:
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
