"""Fits a `Calibration` on scans of patients whom a model was not trained on."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ichfast.data import SliceSet
from ichfast.data.slabs import measure_slabs, measure_volume, pixel_area
from ichfast.errors import DataError
from ichfast.evaluation.calibration import Calibration, ScanScore, Unit, VolumeInterval
from ichfast.evaluation.evaluate import Segmenter, switch_to_inference
from ichfast.team import ALONE, Team

LEVEL = 0.9
SURE, POSSIBLE = 0.9, 0.1
"""calibrated probabilities of the two volumes that an interval starts from"""
FEWEST = 5
"""scans with blood, and without, for a score of scans"""
LARGEST, STEPS = 32, 64
"""logits are counted up to this size, in so many bins for each unit"""
COLDEST, HOTTEST = 0.05, 20.0
FINE = 4
"""times as many pixels a side, for volumes: a head of 512 pixels at 96 to 256 has 2 to 5"""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scans:
    """Volumes of K scans, one of each patient."""

    blood: NDArray[np.bool_]  # (K,) by mask or table
    pixels: Floats  # (K, 4) mean per slice, of the truth, the mask, SURE and POSSIBLE
    volumes: Floats  # (K, 4) mL of the same; NaN where the spacing is not known


def calibrate(
    model: Segmenter,
    slices: SliceSet,
    *,
    threshold: float,
    batch_size: int,
    device: torch.device | str = "cpu",
    team: Team = ALONE,
) -> Calibration:
    """On whole scans: all ``slices`` of each, with and without blood. ``threshold`` is the
    probability above which the model's mask has a pixel. Bit for bit the same on every process of a
    team."""
    reasons: dict[str, str] = {}
    temperature = fit_temperature(count_logits(model, slices, batch_size, device, team))
    if temperature is None:
        reasons["temperature"] = (
            "no slice of the validation patients has haemorrhage"
            if not slices.positive.any()
            else f"no temperature from {COLDEST:g} to {HOTTEST:g} fits the validation pixels"
        )
    counts = count_pixels(model, slices, threshold, temperature or 1.0, batch_size, device, team)
    scans = gather_scans(slices, counts)
    volume = fit_interval(scans)
    scan = fit_scan_score(scans)
    if isinstance(volume, str):
        reasons["volume"] = volume
    if isinstance(scan, str):
        reasons["scan"] = scan
    return Calibration(
        temperature=temperature,
        volume=None if isinstance(volume, str) else volume,
        scan=None if isinstance(scan, str) else scan,
        patients=len(scans.blood),
        reasons=reasons,
    )


def count_logits(
    model: Segmenter,
    slices: SliceSet,
    batch_size: int,
    device: torch.device | str = "cpu",
    team: Team = ALONE,
) -> NDArray[np.int64]:
    """(2, B) pixels without and with blood in each bin of logits: all that the fit of a temperature
    needs, in little memory and the same in any order."""
    bins = 2 * LARGEST * STEPS + 1
    counts = torch.zeros(2 * bins, dtype=torch.int64)
    for _, logits, target in run_batches(model, slices, batch_size, device, team):
        place = logits.nan_to_num().clamp(-LARGEST, LARGEST).add(LARGEST).mul(STEPS).round().long()
        places = (place + bins * target.long()).flatten()
        counts += torch.bincount(places, minlength=2 * bins).cpu()
    found: NDArray[np.int64] = team.sum(counts.to(device)).cpu().view(2, bins).numpy()
    return found


def fit_temperature(counts: NDArray[np.int64]) -> float | None:
    """The T for which sigmoid(logit / T) has the least negative log-likelihood (Guo et al., ICML
    2017). In 1/T that is convex, with the derivative Σ z·(σ(z/T) − y), whose zero is bisected; None
    where it has none between the limits."""
    logits = np.arange(-LARGEST * STEPS, LARGEST * STEPS + 1) / STEPS
    blood, every = counts[1], counts.sum(0)

    def slope(sharpness: float) -> float:
        sure = 0.5 * (1 + np.tanh(sharpness * logits / 2))
        return float(logits @ (every * sure - blood))

    low, high = 1 / HOTTEST, 1 / COLDEST
    if not blood.any() or slope(low) >= 0 or slope(high) <= 0:
        return None
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)


def count_pixels(
    model: Segmenter,
    slices: SliceSet,
    threshold: float,
    temperature: float,
    batch_size: int,
    device: torch.device | str = "cpu",
    team: Team = ALONE,
) -> Floats:
    """(N, 4) pixels of each slice: of the truth, the mask, SURE and POSSIBLE. The last three are
    counted where logits have been interpolated to a finer grid, as they are for a scan's own, which
    takes the tips off narrow peaks; FINE² of its pixels are one."""
    counts = torch.zeros(len(slices), 4, dtype=torch.float64, device=device)
    for own, logits, target in run_batches(model, slices, batch_size, device, team):
        counts[own, 0] = (target > 0).sum((1, 2, 3)).double()
        for i in range(len(logits)):  # one at a time, as they are large
            fine = refine(logits[i : i + 1])
            calibrated = (fine / temperature).sigmoid()
            masks = (fine.sigmoid() > threshold, calibrated > SURE, calibrated > POSSIBLE)
            found = torch.stack([mask.sum() for mask in masks]).double()
            counts[own.start + i, 1:] = found / FINE**2
    pixels: Floats = team.sum(counts).cpu().numpy()
    return pixels


def refine(logits: Tensor) -> Tensor:
    """(B, 1, FINE·S, FINE·S) of (B, 1, S, S), bilinear."""
    return F.interpolate(logits, scale_factor=FINE, mode="bilinear", align_corners=False)


def run_batches(
    model: Segmenter, slices: SliceSet, batch_size: int, device: torch.device | str, team: Team
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Places, logits (B, 1, S, S) and targets of this process's batches."""
    if slices.masks is None or len(slices) == 0:
        raise DataError("calibration needs at least one slice with a mask, and got none")
    slices = slices.to(device)
    batches = torch.arange(len(slices)).split(batch_size)
    with switch_to_inference(model):
        for i in range(team.rank, len(batches), team.size):
            image, target = slices.batch(batches[i])
            assert target is not None
            start = i * batch_size
            yield slice(start, start + len(image)), model.segment(image), target


def gather_scans(slices: SliceSet, counts: Floats) -> Scans:
    """Each patient's first scan: scans of one patient are no independent witnesses."""
    first: dict[str, str] = {}
    rows: dict[str, list[int]] = {}
    for i, (patient, series) in enumerate(zip(slices.patients, slices.series, strict=True)):
        if first.setdefault(patient, series) == series:
            rows.setdefault(patient, []).append(i)
    blood, pixels, volumes = [], [], []
    for own in rows.values():
        own.sort(key=lambda i: slices.positions[i])
        pixels.append(counts[own].mean(0))
        volumes.append(measure_scan(slices, own, counts[own]))
        named = any(slices.subtypes[i] for i in own) if slices.subtypes else False
        blood.append(named or pixels[-1][0] > 0)
    return Scans(np.array(blood), np.array(pixels, np.float64), np.array(volumes))


def measure_scan(slices: SliceSet, rows: list[int], counts: Floats) -> Floats:
    """(4,) mL of (n, 4) pixels on the slices of a scan; NaN where they cannot be known."""
    area = pixel_area(slices.spacings[rows[0]])
    slabs = measure_slabs(np.array([slices.positions[i] for i in rows]))
    if area is None or slabs is None:
        return np.full(counts.shape[1], np.nan)
    return np.array([measure_volume(column, area, slabs) for column in counts.T])


def fit_interval(scans: Scans) -> VolumeInterval | str:
    """Split conformal regression, or why not. Scans without blood in which the model sees none
    either would only dilute it: their interval holds 0 in any case."""
    known = ~np.isnan(scans.volumes).any(1)
    if not known.any():
        return "the spacing of the validation scans is not known, so neither are their mL"
    truth, _, sure, possible = np.cbrt(scans.volumes[known]).T
    told = (truth > 0) | (possible > 0)
    errors = np.sort(np.maximum(sure - truth, truth - possible)[told])
    # Of n exchangeable scans and a new one, its error is no larger than the k-th of the others'
    # with probability k/(n + 1) at least.
    k = math.ceil((len(errors) + 1) * LEVEL - 1e-9)
    if k > len(errors):
        needed = math.ceil(LEVEL / (1 - LEVEL) - 1e-9)
        return (
            f"{len(errors)} validation patients have a scan with haemorrhage, or with what the "
            f"model takes for it, and {needed} are needed"
        )
    return VolumeInterval(
        level=LEVEL,
        thresholds=(SURE, POSSIBLE),
        margin=float(errors[k - 1]),
        scans=len(errors),
    )


def fit_scan_score(scans: Scans) -> ScanScore | str:
    """Threshold and logistic regression of the mask's volume, or why not."""
    blood = scans.blood
    positive, negative = int(blood.sum()), int((~blood).sum())
    if min(positive, negative) < FEWEST:
        return (
            f"{positive} validation patients have haemorrhage and {negative} have none, and "
            f"{FEWEST} of each are needed"
        )
    unit: Unit = "pixels per slice" if np.isnan(scans.volumes).any() else "mL"
    scores = np.cbrt((scans.volumes if unit == "mL" else scans.pixels)[:, 1])
    intercept, slope = fit_logistic(scores, blood)
    if slope <= 0:
        return "the volume of the mask does not tell scans with haemorrhage from those without"
    others = ~np.eye(len(scores), dtype=bool)
    called = np.array(
        [
            score > choose_threshold(scores[rest], blood[rest])
            for score, rest in zip(scores, others, strict=True)
        ]
    )
    return ScanScore(
        unit=unit,
        threshold=choose_threshold(scores, blood) ** 3,
        sensitivity=float(called[blood].mean()),
        specificity=float((~called[~blood]).mean()),
        positive=positive,
        negative=negative,
        intercept=intercept,
        slope=slope,
    )


def choose_threshold(scores: Floats, blood: NDArray[np.bool_]) -> float:
    """The threshold, half-way between two scores (or 0 and the lowest), with the largest sum of
    sensitivity and specificity (Youden, Cancer 3:32, 1950); of several the lowest."""
    ends = np.unique(np.append(scores, 0.0))
    between = (ends[1:] + ends[:-1]) / 2
    if not len(between):
        return 0.0
    found = 1 - np.searchsorted(np.sort(scores[blood]), between, "right") / blood.sum()
    cleared = np.searchsorted(np.sort(scores[~blood]), between, "right") / (~blood).sum()
    return float(between[np.argmax(found + cleared)])


def fit_logistic(scores: Floats, blood: NDArray[np.bool_]) -> tuple[float, float]:
    """Intercept and slope by Newton's method. Platt's targets (1999), one scan more of the other
    kind, keep the slope finite where a threshold separates both kinds."""
    positive, negative = blood.sum(), (~blood).sum()
    target = np.where(blood, (positive + 1) / (positive + 2), 1 / (negative + 2))
    spread = scores.std()
    if spread == 0:
        return float(np.log(positive / negative)), 0.0
    design = np.column_stack([np.ones_like(scores), (scores - scores.mean()) / spread])
    weights = np.zeros(2)
    for _ in range(100):
        sure = 0.5 * (1 + np.tanh(design @ weights / 2))
        curvature = design.T @ (design * (sure * (1 - sure))[:, None]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, design.T @ (target - sure))
        weights += step / max(1.0, np.abs(step).max())
        if np.abs(step).max() < 1e-9:
            break
    slope = weights[1] / spread
    return float(weights[0] - slope * scores.mean()), float(slope)
