"""A run's intervals: those of `ichfast.evaluation.intervals`, under the keys of the scores."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from slice_sets import slice_set

from ichfast.data import SliceSet
from ichfast.evaluation import Evaluation, find_intervals
from ichfast.evaluation.intervals import Rows, average, bootstrap, score_overlap

PATIENTS = ("a", "a", "b", "b", "c", "c", "d")
COUNTS = torch.tensor([[9, 1, 2], [0, 0, 0], [0, 3, 0], [4, 4, 1], [0, 0, 7], [2, 0, 2], [0, 0, 0]])


def make_slices(patients: tuple[str, ...] = PATIENTS) -> SliceSet:
    pixels = torch.zeros(len(patients), 1, 4, 4)
    return slice_set(pixels, pixels.to(torch.uint8), patients)


def find(counts: torch.Tensor = COUNTS, slices: SliceSet | None = None) -> dict:
    areas = torch.zeros(len(counts), dtype=torch.float64)
    found = Evaluation(counts=counts, areas=areas, metrics={}, loss=None)
    return find_intervals(found, slices or make_slices())


def ends(score) -> list[float]:
    _, low, high, _ = bootstrap(score)
    assert low is not None
    return [low, high]


def test_overlap_of_all_slices_and_of_those_with_blood() -> None:
    found = find()
    numbers = np.array([0, 0, 1, 1, 2, 2, 3])
    blood = np.array([True, False, False, True, True, True, False])
    for way in ("pooled", "per_slice", "per_patient"):
        for score in ("dice", "jaccard"):
            every = score_overlap(Rows.from_patients(numbers), COUNTS, score, way)
            own = score_overlap(Rows.from_patients(numbers[blood]), COUNTS[blood], score, way)
            assert found[score][way] == ends(every)
            assert found["positive"][score][way] == ends(own)
    assert found["dice"]["per_slice"] != found["positive"]["dice"]["per_slice"]
    assert json.loads(json.dumps(found)) == found


def test_rates_of_slices_and_of_scans() -> None:
    # Two scans of patient a: one with blood found, one without and without alarm.
    slices = replace(make_slices(), series=("a1", "a2", "b1", "b1", "c1", "c1", "d1"))
    found = find(slices=slices)
    right = np.array([1, np.nan, np.nan, 1, 0, 1, np.nan])
    patients = Rows.from_patients([0, 0, 1, 1, 2, 2, 3])
    assert found["sensitivity"]["slices"] == ends(average(patients, right, "per_slice"))
    right = np.array([np.nan, 1, 0, np.nan, np.nan, np.nan, 1])
    assert found["specificity"]["slices"] == ends(average(patients, right, "per_slice"))
    owners = Rows.from_patients([0, 0, 1, 2, 3])  # a1, a2, b1, c1, d1
    found_scans = np.array([1, np.nan, 1, 1, np.nan])
    assert found["sensitivity"]["scans"] == ends(average(owners, found_scans, "per_slice"))
    quiet_scans = np.array([np.nan, 1, np.nan, np.nan, 1])
    assert found["specificity"]["scans"] == ends(average(owners, quiet_scans, "per_slice"))


@pytest.mark.parametrize("counts", [COUNTS[:2], torch.zeros(2, 3, dtype=torch.int64)])
def test_no_interval_of_one_patient_or_of_no_score(counts) -> None:
    found = find(counts, make_slices(("a", "a")))
    assert found["dice"] == dict.fromkeys(("pooled", "per_slice", "per_patient"))
    assert found["positive"]["jaccard"]["pooled"] is None
    assert found["sensitivity"] == {"slices": None, "scans": None}
