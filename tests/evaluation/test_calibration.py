"""Temperature, conformal interval and scan score: against known truths, and why there are none."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from slice_sets import slice_set
from torch import Tensor, nn
from torch.nn import functional as F

from ichfast.errors import DataError
from ichfast.evaluation.calibrate import (
    LARGEST,
    STEPS,
    Scans,
    calibrate,
    choose_threshold,
    count_pixels,
    fit_interval,
    fit_logistic,
    fit_scan_score,
    fit_temperature,
    gather_scans,
)
from ichfast.evaluation.calibration import Calibration, ScanScore, VolumeInterval

INTERVAL = VolumeInterval(level=0.9, thresholds=(0.9, 0.1), margin=0.2, scans=12)
SCORE = ScanScore(
    unit="mL",
    threshold=0.5,
    sensitivity=0.9,
    specificity=0.8,
    positive=10,
    negative=20,
    intercept=-2.0,
    slope=3.0,
)


class Bright(nn.Module):
    """Logits from the brightness, ``sharpness`` times too sure."""

    def __init__(self, sharpness: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.sharpness, self.shift = sharpness, shift

    def segment(self, image: Tensor) -> Tensor:
        return self.sharpness * (20 * image - 10 + self.shift)

    def forward(self, image: Tensor) -> Tensor:
        return self.segment(image)


def count(logits: np.ndarray, blood: np.ndarray) -> np.ndarray:
    places = np.round((logits.clip(-LARGEST, LARGEST) + LARGEST) * STEPS).astype(int)
    bins = 2 * LARGEST * STEPS + 1
    return np.stack([np.bincount(places[blood == kind], minlength=bins) for kind in (0, 1)])


@pytest.mark.parametrize("truth", [0.3, 1.0, 2.5, 8.0])
def test_the_temperature_of_simulated_pixels_is_found(truth) -> None:
    random = np.random.default_rng(0)
    sure = random.normal(-1, 2, 200_000)
    blood = random.random(len(sure)) < 1 / (1 + np.exp(-sure))
    found = fit_temperature(count(sure * truth, blood))
    assert found == pytest.approx(truth, rel=0.03)


def test_the_temperature_has_the_least_loss() -> None:
    random = np.random.default_rng(1)
    logits = np.round(random.normal(0, 4, 5000) * STEPS) / STEPS
    blood = random.random(5000) < 1 / (1 + np.exp(-logits / 3 - 0.5))
    found = fit_temperature(count(logits, blood))

    def loss(temperature: float) -> float:
        signed = np.where(blood, logits, -logits) / temperature
        return float(np.logaddexp(0, -signed).mean())

    assert found is not None
    assert loss(found) <= min(loss(found * factor) for factor in (0.9, 0.99, 1.01, 1.1))


def test_where_there_is_no_temperature() -> None:
    logits = np.array([-3.0, -2.0, 2.0, 3.0])
    assert fit_temperature(count(logits, np.array([False] * 4))) is None  # no blood
    assert fit_temperature(count(logits, logits > 0)) is None  # separable: the surer the better
    assert fit_temperature(count(logits, logits < 0)) is None  # worse than chance


@given(st.floats(0.05, 20), st.floats(0, 1), st.floats(-15, 15))
def test_calibration_leaves_the_mask_as_it_is(temperature, threshold, logit) -> None:
    calibration = Calibration(
        temperature=temperature, volume=INTERVAL, scan=SCORE, patients=20, reasons={}
    )
    moved = calibration.move_threshold(threshold)
    before, after = 1 / (1 + math.exp(-logit)), 1 / (1 + math.exp(-logit / temperature))
    assert 0 <= moved <= 1
    if abs(before - threshold) > 1e-6:
        assert (before > threshold) == (after > moved)


def make_scans(random: np.random.Generator, n: int, negative: int = 0) -> Scans:
    """Bleeds of all sizes, whose outlines the model finds with an error of its own."""
    truth = random.lognormal(1.5, 1.5, n)
    truth[:negative] = 0
    seen = np.cbrt(truth)[:, None] + random.normal(0, 0.3, (n, 1)) + [[0, -0.1, 0.15]]
    volumes = np.column_stack([truth, np.maximum(seen, 0) ** 3])
    volumes[:negative, 1:] *= random.random((negative, 1)) < 0.3
    return Scans(truth > 0, volumes * 100, volumes)


def covers(interval: VolumeInterval, scans: Scans) -> np.ndarray:
    ends = [interval.find(*row) for row in scans.volumes[:, 2:]]
    return np.array(
        [low <= t <= high for t, (low, high) in zip(scans.volumes[:, 0], ends, strict=True)]
    )


@pytest.mark.parametrize("n", [9, 19, 40])
def test_the_interval_covers_as_it_says(n) -> None:
    """The mean over calibration sets: k/(n + 1) for n scans, and nothing below 90 %."""
    random = np.random.default_rng(n)
    shares = []
    for _ in range(300):
        interval = fit_interval(make_scans(random, n))
        assert isinstance(interval, VolumeInterval)
        assert interval.scans == n
        shares.append(covers(interval, make_scans(random, 100)).mean())
    expected = math.ceil((n + 1) * 0.9 - 1e-9) / (n + 1)
    assert np.mean(shares) == pytest.approx(expected, abs=0.015)


def test_scans_without_blood_do_not_dilute_the_interval() -> None:
    random = np.random.default_rng(0)
    scans = make_scans(random, 60, negative=30)
    interval = fit_interval(scans)
    assert isinstance(interval, VolumeInterval)
    nothing = (scans.volumes[:, [0, 3]] == 0).all(1)
    assert interval.scans == 60 - nothing.sum()
    low, high = interval.find(0, 0)
    assert low == 0 < high


def test_an_interval_contains_its_volumes_the_right_way_round() -> None:
    low, high = INTERVAL.find(8, 27)
    assert (low, high) == pytest.approx((1.8**3, 3.2**3))
    narrow = INTERVAL.model_copy(update={"margin": -2.0})
    assert narrow.find(8, 27)[0] <= narrow.find(8, 27)[1]


def test_too_few_scans_for_an_interval() -> None:
    scans = make_scans(np.random.default_rng(0), 8)
    assert "8 validation patients have a scan" in str(fit_interval(scans))
    assert "9 are needed" in str(fit_interval(scans))
    unknown = replace(scans, volumes=np.full_like(scans.volumes, np.nan))
    assert "the spacing of the validation scans is not known" in str(fit_interval(unknown))


def test_a_scan_score() -> None:
    scans = make_scans(np.random.default_rng(2), 60, negative=30)
    score = fit_scan_score(scans)
    assert isinstance(score, ScanScore)
    assert (score.unit, score.positive, score.negative) == ("mL", 30, 30)
    called = scans.volumes[:, 1] > score.threshold
    best = called[scans.blood].mean() + (~called[~scans.blood]).mean()
    assert score.sensitivity + score.specificity <= best
    assert score.sensitivity > 0.8
    probabilities = [score.estimate_probability(volume) for volume in (0, 1, 10, 1e9)]
    assert probabilities == sorted(probabilities)
    assert probabilities[0] < 0.3
    unknown = replace(scans, volumes=np.full_like(scans.volumes, np.nan))
    in_pixels = fit_scan_score(unknown)
    assert isinstance(in_pixels, ScanScore)
    assert in_pixels.unit == "pixels per slice"
    assert in_pixels.threshold == pytest.approx(100 * score.threshold)


def test_where_there_is_no_scan_score() -> None:
    random = np.random.default_rng(3)
    few = make_scans(random, 20, negative=4)
    assert "16 validation patients have haemorrhage and 4 have none" in str(fit_scan_score(few))
    scans = make_scans(random, 40, negative=20)
    upside_down = replace(scans, blood=~scans.blood)
    assert "does not tell" in str(fit_scan_score(upside_down))
    nothing = replace(scans, volumes=np.zeros_like(scans.volumes))
    assert "does not tell" in str(fit_scan_score(nothing))


def test_the_threshold_is_youden_s_and_the_lowest_of_several() -> None:
    blood = np.array([False, False, True, False, True])
    assert choose_threshold(np.array([0.0, 1.0, 2.0, 3.0, 4.0]), blood) == 1.5
    assert choose_threshold(np.array([0.0, 0.0, 2.0, 0.0, 4.0]), blood) == 1.0
    assert choose_threshold(np.array([2.0, 2.0, 2.0, 2.0, 2.0]), blood) == 1.0
    assert choose_threshold(np.zeros(5), blood) == 0.0


def test_the_logistic_regression_is_scikit_learn_s() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(4)
    scores = random.normal(3, 2, 400)
    blood = random.random(400) < 1 / (1 + np.exp(3 - scores))
    # Platt's targets as weighted rows of both kinds.
    positive, negative = blood.sum(), (~blood).sum()
    target = np.where(blood, (positive + 1) / (positive + 2), 1 / (negative + 2))
    model = linear_model.LogisticRegression(C=1e9, tol=1e-10, max_iter=1000)
    model.fit(
        np.tile(scores, 2)[:, None],
        np.repeat([True, False], 400),
        sample_weight=np.append(target, 1 - target),
    )
    expected = model.intercept_[0], model.coef_[0, 0]
    assert fit_logistic(scores, blood) == pytest.approx(expected, rel=1e-4)
    intercept, slope = fit_logistic(np.arange(10.0), np.arange(10) > 4)
    assert 0 < slope < math.inf
    assert -intercept / slope == pytest.approx(4.5)


def make_slices(n: int = 20, per_scan: int = 3, seed: int = 0) -> Any:
    """Scans 5 mm apart with pixels of 2 × 3 mm; every other one has blood, as bright as the
    likelier it is."""
    random = np.random.default_rng(seed)
    images = torch.from_numpy(random.uniform(0, 0.45, (n * per_scan, 1, 8, 8)))
    masks = torch.zeros(images.shape, dtype=torch.uint8)
    for i in range(n):
        if i % 2:
            images[i * per_scan + 1, 0, 2:6, 2 : 3 + i % 4] = random.uniform(0.55, 0.9)
            masks[i * per_scan + 1, 0, 2:6, 2:5] = 1
    patients = tuple(f"p{i // per_scan}" for i in range(n * per_scan))
    slices = slice_set(images, masks, patients, (2.0, 3.0))
    return replace(slices, positions=tuple(5.0 * (i % per_scan) for i in range(n * per_scan)))


def test_pixels_are_counted_and_become_millilitres() -> None:
    slices = make_slices()
    model = Bright()
    counts = count_pixels(model, slices, 0.5, 2.0, batch_size=7)
    image, target = slices.batch(range(len(slices)))
    fine = F.interpolate(model.segment(image), (32, 32), mode="bilinear", align_corners=False)
    probability = (fine / 2).sigmoid()
    assert counts[:, 0].tolist() == target.sum((1, 2, 3)).tolist()
    assert counts[:, 1].tolist() == ((fine > 0).sum((1, 2, 3)) / 16).tolist()
    assert counts[:, 2].tolist() == ((probability > 0.9).sum((1, 2, 3)) / 16).tolist()
    assert counts[:, 3].tolist() == ((probability > 0.1).sum((1, 2, 3)) / 16).tolist()
    scans = gather_scans(slices, counts)
    assert scans.blood.tolist() == [bool(i % 2) for i in range(20)]
    assert np.allclose(scans.volumes, 3 * scans.pixels * 2 * 3 * 5 / 1000)


def test_volumes_at_calibration_are_those_at_inference() -> None:
    """Of a net whose logits are single peaks, which interpolation cuts off."""
    slices = make_slices()
    peaks = torch.zeros(8, 8)
    peaks[::2, ::2] = 3.0

    class Peaks(Bright):
        def segment(self, image: Tensor) -> Tensor:
            return (peaks - 2.0).expand(image.shape)

    counts = count_pixels(Peaks(), slices, 0.5, 1.0, batch_size=16)
    for side in (24, 40, 41):
        own = F.interpolate(
            (peaks - 2.0)[None, None], (side, side), mode="bilinear", align_corners=False
        )
        share = (own > 0).double().mean().item()
        assert counts[0, 1] / 64 == pytest.approx(share, abs=0.06)
    assert (peaks > 2).double().mean().item() > share + 0.1


def test_one_scan_of_each_patient_counts() -> None:
    slices = make_slices()
    series = tuple(f"s{i // 3}" for i in range(60))
    pairs = replace(slices, series=series, patients=tuple(f"p{i // 6}" for i in range(60)))
    scans = gather_scans(pairs, count_pixels(Bright(), pairs, 0.5, 1.0, batch_size=16))
    assert len(scans.blood) == 10
    assert not scans.blood.any()  # the second ones bleed
    named = replace(pairs, subtypes=(("subdural",), *[()] * 59))
    assert gather_scans(named, np.zeros((60, 4))).blood.tolist() == [True] + [False] * 9


def test_a_whole_calibration_survives_its_json() -> None:
    slices = make_slices(40)
    found = calibrate(Bright(0.5), slices, threshold=0.5, batch_size=16)
    assert found.temperature is not None
    assert found.volume is not None
    assert found.scan is not None
    assert (found.patients, found.reasons, found.thresholds) == (40, {}, (0.9, 0.1))
    assert Calibration.model_validate_json(found.model_dump_json()) == found
    ends = found.interval((1.0, 2.0))
    assert ends is not None
    assert ends[0] < ends[1]
    other = calibrate(Bright(0.5), slices, threshold=0.5, batch_size=7)
    assert other == found


def test_what_is_missing_is_said() -> None:
    slices = make_slices(4)
    found = calibrate(Bright(), replace(slices, spacings=((math.nan,) * 2,) * 12), **OPTIONS)
    assert found.volume is None
    assert found.scan is None
    assert found.interval((1, 2)) is None
    assert "spacing" in found.reasons["volume"]
    assert found.reasons.keys() >= {"volume", "scan"}
    assert slices.masks is not None
    empty = replace(slices, masks=torch.zeros_like(slices.masks))
    assert "no slice" in calibrate(Bright(), empty, **OPTIONS).reasons["temperature"]
    with pytest.raises(DataError, match="needs at least one slice with a mask"):
        calibrate(Bright(), replace(slices, masks=None), **OPTIONS)
    for wrong in ({"reasons": {"volume": "no"}}, {"temperature": -1.0}):
        with pytest.raises(ValueError, match=r"reasons|greater than 0"):
            Calibration(**Calibration.make_empty("none").model_dump() | wrong)
    with pytest.raises(ValueError, match="the sure one must come first"):
        VolumeInterval(level=0.9, thresholds=(0.1, 0.9), margin=0.0, scans=9)


OPTIONS: dict[str, Any] = {"threshold": 0.5, "batch_size": 16}
