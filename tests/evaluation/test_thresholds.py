"""The threshold baselines, against a search by brute force."""

import numpy as np
import pytest

from ichfast.evaluation.thresholds import tune_thresholds


def dice(chosen: np.ndarray, masks: np.ndarray) -> float:
    return float(2 * (chosen & masks).sum() / (chosen.sum() + masks.sum()))


def test_equals_brute_force() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((3, 16, 16)) < 0.2
    hu = np.where(masks, rng.normal(60, 9, masks.shape), rng.normal(35, 20, masks.shape))
    found = tune_thresholds(hu, masks)
    limits = range(130)
    best = max(dice(hu >= low, masks) for low in limits)
    band = max(
        dice((hu >= low) & (hu < high), masks) for low in limits for high in range(low + 1, 130)
    )
    assert found["threshold"]["dice"] == pytest.approx(best)
    assert found["band"]["dice"] == pytest.approx(band)
    low, high = found["band"]["low"], found["band"]["high"]
    assert dice((hu >= low) & (hu < high), masks) == pytest.approx(band)


def test_only_slices_with_blood_count() -> None:
    hu = np.full((2, 8, 8), 30.0)
    masks = np.zeros((2, 8, 8), bool)
    masks[0, :4] = True
    hu[0, :4] = 60
    hu[1] = 60  # would be false positives all over
    found = tune_thresholds(hu, masks)
    assert found["slices"] == 1
    assert found["threshold"]["dice"] == 1
    assert found["band"]["dice"] == 1


def test_a_band_excludes_bone_where_a_threshold_cannot() -> None:
    hu = np.full((1, 10, 10), 30.0)
    hu[0, 0] = 1000
    hu[0, 5] = 60
    found = tune_thresholds(hu, hu == 60)
    assert found["threshold"]["dice"] == pytest.approx(2 / 3)
    assert found["band"]["dice"] == 1


def test_an_open_band_has_no_upper_limit() -> None:
    hu = np.array([[[30.0, 2000.0]]])
    found = tune_thresholds(hu, hu > 100)
    assert found["band"]["dice"] == 1
    assert found["band"]["high"] is None or found["band"]["high"] > 2000


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"must both be"):
        tune_thresholds(np.zeros((2, 4, 4)), np.zeros((1, 4, 4)))
    with pytest.raises(ValueError, match="no slice has blood"):
        tune_thresholds(np.zeros((2, 4, 4)), np.zeros((2, 4, 4)))
