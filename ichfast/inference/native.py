"""A model against masks on the scans' own grid, one scan at a time."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ichfast.data import SUBTYPES, Problems, Series
from ichfast.data.layouts import detect_layout
from ichfast.data.slabs import measure_slabs, measure_volume, pixel_area
from ichfast.errors import DataError
from ichfast.evaluation.evaluate import Evaluation, score
from ichfast.evaluation.surface import TOLERANCES, Surface, measure_surface
from ichfast.inference.model import Model


@dataclass(frozen=True)
class ScanVolume:
    """A scan whose mask is known on all of its slices. mL are None where they cannot be known."""

    patient: str
    series: str
    blood: bool
    ml: float | None
    """of the model's mask"""
    true_ml: float | None
    interval: tuple[float, float] | None
    score: float | None
    """what the model's scan score is about: the mask's volume in its unit; None without one"""


@dataclass(eq=False)
class Native:
    """N slices with known masks."""

    patients: list[str] = field(default_factory=list)
    series: list[str] = field(default_factory=list)
    spacings: list[tuple[float, float]] = field(default_factory=list)
    subtypes: list[tuple[str, ...] | None] = field(default_factory=list)
    counts: list[NDArray[np.int64]] = field(default_factory=list)  # (k, 3) TP, FP, FN
    areas: list[NDArray[np.float64]] = field(default_factory=list)  # (k,)
    outlines: list[NDArray[np.float64]] = field(default_factory=list)  # (k, 1 + T) HD95 and NSD
    kinds: list[NDArray[np.float64]] = field(default_factory=list)
    """(k, 5, 2) voxels of each of SUBTYPES, and how many of them were found; NaN: unknown"""
    scans: list[ScanVolume] = field(default_factory=list)

    def evaluate(self, threshold: float) -> Evaluation:
        hd95, *nsd = np.concatenate(self.outlines).T
        return score(
            torch.from_numpy(np.concatenate(self.counts)),
            torch.from_numpy(np.concatenate(self.areas)),
            self,
            threshold,
            Surface(hd95, np.stack(nsd, 1)),
        )


def measure_native(model: Model, root: Path, problems: Problems, *, progress: bool) -> Native:
    """Every scan below ``root`` that has masks."""
    layout = detect_layout(root)
    layout.require_masks(root, "test on")
    found = Native()
    for series in layout.read(root, problems, progress=progress):
        if series.has_mask().any():
            add_scan(found, model, series)
    if not found.counts:
        raise DataError(f"{root}: no scan has a mask to test on; {problems.summary()}")
    return found


def add_scan(found: Native, model: Model, series: Series) -> None:
    known, mask = series.has_mask(), series.mask
    assert mask is not None
    volumes = []
    for own, probability in model.segment_series(series):
        predicted, target = probability > model.threshold, mask[own]
        kept = known[own]
        volumes.append(count_volumes(model, probability, target))
        found.counts.append(count_overlap(predicted, target)[kept])
        found.areas.append(probability.sum((1, 2), dtype=np.float64)[kept])
        spacings = np.tile(np.array(series.spacing, np.float64), (int(kept.sum()), 1))
        outlines = measure_surface(predicted[kept], target[kept], spacings, TOLERANCES)
        found.outlines.append(np.column_stack(outlines))
        kinds = None if series.kinds is None else series.kinds[own]
        found.kinds.append(count_kinds(kinds, predicted)[kept])
    for i in np.flatnonzero(known).tolist():
        found.patients.append(series.patient)
        found.series.append(series.series)
        found.spacings.append(series.spacing)
        found.subtypes.append(series.name_subtypes(i))
    if known.all():
        found.scans.append(measure_scan(model, series, np.concatenate(volumes)))


def count_overlap(predicted: NDArray[np.bool_], target: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(k, 3) TP, FP, FN of (k, H, W) masks."""
    both = np.count_nonzero(predicted & target, axis=(1, 2))
    every = [np.count_nonzero(one, axis=(1, 2)) for one in (predicted, target)]
    return np.stack([both, every[0] - both, every[1] - both], 1)


def count_kinds(
    kinds: NDArray[np.uint8] | None, predicted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(k, 5, 2) voxels of each subtype, and those that were found; NaN without ``kinds``."""
    if kinds is None:
        return np.full((len(predicted), len(SUBTYPES), 2), np.nan)
    pairs = [
        [
            np.count_nonzero(one, axis=(1, 2))
            for one in (kinds == 1 + place, (kinds == 1 + place) & predicted)
        ]
        for place in range(len(SUBTYPES))
    ]
    return np.moveaxis(np.array(pairs, np.float64), 2, 0)


def count_volumes(
    model: Model, probability: NDArray[np.float32], target: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """(k, 4) pixels of the truth, the mask, and above the thresholds of the interval."""
    thresholds = (model.threshold, *(model.calibration.thresholds or (1.0, 1.0)))
    found = [np.count_nonzero(probability > one, axis=(1, 2)) for one in thresholds]
    return np.stack([np.count_nonzero(target, axis=(1, 2)), *found], 1)


def measure_scan(model: Model, series: Series, counts: NDArray[np.int64]) -> ScanVolume:
    """From the (n, 4) pixels of `count_volumes`."""
    area = pixel_area(series.spacing)
    slabs = measure_slabs(series.positions, series.grid.thickness if series.grid else None)
    ml: list[float] | None = None
    if area is not None and slabs is not None:
        ml = [measure_volume(column, area, slabs) for column in counts.T]
    named = series.subtypes is not None and bool(series.subtypes.any())
    return ScanVolume(
        patient=series.patient,
        series=series.series,
        blood=named or bool(counts[:, 0].any()),
        ml=None if ml is None else ml[1],
        true_ml=None if ml is None else ml[0],
        interval=None if ml is None else model.calibration.interval((ml[2], ml[3])),
        score=model.measure_for_scan(series, counts[:, 1].tolist(), ml[1] if ml else None),
    )
