"""The intervals of a run's scores, in the shape of the scores that they belong to."""

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ichfast.evaluation.evaluate import Evaluation, Owned
from ichfast.evaluation.intervals import (
    Aggregation,
    Ratio,
    Rows,
    bootstrap,
    score_detection,
    score_overlap,
)
from ichfast.metrics import number_names, sum_by

Range = list[float] | None
"""the ends of an interval; None where fewer than two patients have the score"""


def find_intervals(found: Evaluation, slices: Owned) -> dict[str, Any]:
    """95 % intervals over patients of what `evaluate` found on ``slices``, ready for JSON, under
    the keys of the scores: ``dice`` and ``jaccard`` of all slices, the same of those with blood
    under ``positive``, ``sensitivity`` and ``specificity`` of slices and of scans."""
    names = list(slices.patients)
    patients = np.array(number_names(names, names), np.int64)
    counts = found.counts.numpy()
    blood = counts[:, 0] + counts[:, 2] > 0
    scans = list(zip(slices.patients, slices.series, strict=True))
    of_scans = sum_by(found.counts, scans)
    owners = number_names([patient for patient, _ in dict.fromkeys(scans)], names)
    slice_rates = _find_rates(found.counts, patients)
    scan_rates = _find_rates(of_scans, np.array(owners, np.int64))
    return {
        **_find_overlap(counts, patients),
        "positive": _find_overlap(counts[blood], patients[blood]),
        **{rate: {"slices": slice_rates[rate], "scans": scan_rates[rate]} for rate in slice_rates},
    }


def _find_overlap(
    counts: NDArray[np.int64], patients: NDArray[np.int64]
) -> dict[str, dict[str, Range]]:
    ways: tuple[Aggregation, ...] = get_args(Aggregation)
    if not len(counts):
        return {score: dict.fromkeys(ways) for score in ("dice", "jaccard")}
    rows = Rows.from_patients(patients)
    return {
        "dice": {way: _find_range(score_overlap(rows, counts, "dice", way)) for way in ways},
        "jaccard": {way: _find_range(score_overlap(rows, counts, "jaccard", way)) for way in ways},
    }


def _find_rates(counts: Tensor, patients: NDArray[np.int64]) -> dict[str, Range]:
    """Of slices or scans, each with its patient."""
    rates = score_detection(Rows.from_patients(patients), counts.numpy())
    return {name: _find_range(rate) for name, rate in rates.items()}


def _find_range(score: Ratio) -> Range:
    _, low, high, _ = bootstrap(score)
    return None if low is None or high is None else [low, high]
