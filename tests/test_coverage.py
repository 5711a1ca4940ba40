"""The coverage benchmark: its volumes and shares, on scans whose logits are made up."""

import math

import numpy as np
import pytest

from benchmarks.coverage import Measured, cover, format_result
from ichfast.evaluation.calibrate import LARGEST, STEPS

BINS = 2 * LARGEST * STEPS + 1


def make_measured(scans: int) -> Measured:
    """Voxels of 1 µL with logits of a spread of their own; every seventh scan has no blood."""
    random = np.random.default_rng(0)
    logits, native, truth = [], [], []
    for i in range(scans):
        blood = 0 if i % 7 == 6 else round(random.lognormal(5, 1))
        seen = round(blood * random.lognormal(0, 0.3))
        values = np.append(random.normal(3, 3, seen), random.normal(-8, 2, 4000))
        places = np.round((values.clip(-LARGEST, LARGEST) + LARGEST) * STEPS).astype(int)
        there = np.arange(len(values)) < seen
        logits.append([np.bincount(places[there == kind], minlength=BINS) for kind in (0, 1)])
        native.append(np.bincount(places, minlength=BINS))
        truth.append([blood / 1000] * 2)
    ml = np.full((scans, 2), 1 / 1000)
    counts = np.array(native)
    return Measured(np.array(logits), counts, counts, np.array(truth), ml)


def test_volumes_above_a_logit() -> None:
    measured = make_measured(3)
    counts = measured.native[:, LARGEST * STEPS + 1 :].sum(1)
    assert np.allclose(measured.find_volumes(0.0), counts[:, None] / 1000)
    assert (measured.find_volumes(math.log(9)) <= measured.find_volumes(0.0)).all()


def test_coverage_is_what_the_number_of_scans_makes_it() -> None:
    row = cover(make_measured(200), calibrate=40, splits=60)
    assert (row["calibrate"], row["test"]) == (40, 160)
    for grid in ("native", "grid"):
        assert row["coverage"][grid]["mean"] == pytest.approx(0.9, abs=0.03)
    assert row["coverage"]["every"]["mean"] >= row["coverage"]["native"]["mean"]
    assert row["scan_score"]["sensitivity"]["mean"] > 0.9
    result = {"command": "c", "scans": 200, "with_blood": 171, "splits": 60, "rows": [row]}
    lines = format_result(result).splitlines()
    assert sum(line.startswith("| 40 | 160 | ") for line in lines) == 1
    few = cover(make_measured(40), calibrate=5, splits=2)
    assert few["coverage"]["native"] is None
    assert "| – |" in format_result(result | {"rows": [few]})
