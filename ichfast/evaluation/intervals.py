"""How much a score depends on the choice of patients: intervals from resampling patients.

Slices of a patient resemble each other, so patients are drawn anew, with repetition, and all rows
of a patient go along: every slice, and every fold and seed. (Percentile bootstrap over clusters:
Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; Davison and Hinkley, 1997,
section 3.8.) Every score here is a ratio of two sums over patients, `Ratio`, so that a resample is
two dot products, and 2,000 of them take milliseconds.

    rows = Rows.from_patients(patients)        # a number for each slice
    dice = score_overlap(rows, counts, "dice", "pooled")
    bootstrap(dice)                            # estimate with its 95 % interval
    bootstrap_difference(dice, of_another)     # on the same patients, resampled together
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

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


@dataclass(frozen=True, eq=False)
class Ratio:
    """A score as the sum of ``above`` over the sum of ``below``; a patient without it has 0, 0."""

    patients: NDArray[np.int64]  # (P,) each once, in order
    above: Floats  # (P,)
    below: Floats  # (P,)

    @property
    def estimate(self) -> float | None:
        """The score of the patients as they are; None where no patient has it."""
        below = self.below.sum()
        return float(self.above.sum() / below) if below else None


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


def bootstrap(score: Ratio, *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The score with its 95 % percentile interval. A resample that draws nobody who has the score
    is left out."""
    estimate = score.estimate
    if np.count_nonzero(score.below) < 2:
        return Interval(estimate, None, None, TOO_FEW)
    low, high = _find_percentiles(_resample(_draw(len(score.patients), resamples, seed), score))
    return Interval(estimate, low, high)


def bootstrap_difference(
    one: Ratio, other: Ratio, *, resamples: int = RESAMPLES, seed: int = 0
) -> PairedDifference:
    """``one`` less ``other``, both with the same patients in every resample."""
    if not np.array_equal(one.patients, other.patients):
        lone = np.setxor1d(one.patients, other.patients)
        raise ValueError(f"not the same patients: {len(lone)} have one of the two scores only")
    first, second = one.estimate, other.estimate
    estimate = None if first is None or second is None else first - second
    if np.count_nonzero(np.minimum(one.below, other.below)) < 2:
        return PairedDifference(estimate, None, None, None, TOO_FEW)
    draws = _draw(len(one.patients), resamples, seed)
    differences = _resample(draws, one) - _resample(draws, other)
    low, high = _find_percentiles(differences)
    known = differences[~np.isnan(differences)]
    return PairedDifference(estimate, low, high, float((known > 0).mean()))


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


def _draw(patients: int, resamples: int, seed: int) -> Floats:
    """(R, P): how often each resample has drawn each patient."""
    share = np.full(patients, 1 / patients)
    return np.random.default_rng(seed).multinomial(patients, share, resamples).astype(np.float64)


def _resample(draws: Floats, score: Ratio) -> Floats:
    """(R,), NaN where nobody drawn has the score."""
    above, below = draws @ score.above, draws @ score.below
    nobody: Floats = np.full(len(below), np.nan)
    return np.divide(above, below, out=nobody, where=below > 0)


def _find_percentiles(values: Floats) -> tuple[float, float]:
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
