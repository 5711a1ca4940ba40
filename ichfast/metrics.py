"""Dice and Jaccard from counts of voxels, with one named rule for masks without a voxel.

Everything here starts from integer counts (..., 3) = TP, FP, FN as ``ichfast.ops.overlap_counts``
gives them, so a score can be pooled or averaged afterwards, exactly, without the masks.

    Dice = 2TP / (2TP + FP + FN)        Jaccard = TP / (TP + FP + FN) = Dice / (2 − Dice)

The only undefined case is TP = FP = FN = 0: nothing to find and nothing predicted. Blood that is
missed entirely scores 0 and a prediction where there is no blood scores 0; neither ever leaves a
mean. ``docs/metrics.md`` says why that matters.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

EmptyRule = Literal["nan", "one", "zero"]
"""What an item scores when target and prediction are both empty: ``"nan"``, undefined and left out
of means; ``"one"``, a perfect answer; ``"zero"``, an item that earns nothing."""

AGGREGATIONS = ("pooled", "per_slice", "per_patient")

_EMPTY_VALUE = {"nan": float("nan"), "one": 1.0, "zero": 0.0}


def dice(counts: Tensor, *, empty: EmptyRule = "nan") -> Tensor:
    """2TP / (2TP + FP + FN) in float64, for counts (..., 3) -> (...)."""
    tp, fp, fn = _unbind(counts)
    return _ratio(2 * tp, 2 * tp + fp + fn, empty)


def jaccard(counts: Tensor, *, empty: EmptyRule = "nan") -> Tensor:
    """TP / (TP + FP + FN) in float64, for counts (..., 3) -> (...)."""
    tp, fp, fn = _unbind(counts)
    return _ratio(tp, tp + fp + fn, empty)


def aggregate(
    counts: Tensor, patients: Sequence[str], *, empty: EmptyRule = "nan"
) -> dict[str, dict[str, float]]:
    """Dice and Jaccard of slices (N, 3) in three aggregations: few papers say which is theirs.

    ``pooled``: of all counts added up, so large bleeds weigh most. ``per_slice``: the mean over
    slices. ``per_patient``: counts added up within each patient, then the mean over patients, so
    every patient weighs the same. A mean over nothing defined is NaN.
    """
    if counts.ndim != 2 or len(counts) != len(patients) or len(counts) == 0:
        raise ValueError(
            f"counts must be (N, 3) with one patient for each of N >= 1 slices, "
            f"got {tuple(counts.shape)} and {len(patients)} patients"
        )
    counts = counts.cpu()
    groups = {
        "pooled": counts.sum(0, keepdim=True),
        "per_slice": counts,
        "per_patient": sum_by(counts, patients),
    }
    return {
        name: {key: score(group, empty=empty).nanmean().item() for key, group in groups.items()}
        for name, score in (("dice", dice), ("jaccard", jaccard))
    }


def count_detections(counts: Tensor) -> dict[str, int]:
    """Slices with blood and how many of them were missed entirely (no voxel of overlap); slices
    without blood and how many of them raised a false alarm (any voxel predicted)."""
    tp, fp, fn = _unbind(counts.cpu())
    positive = tp + fn > 0
    return {
        "positive": int(positive.sum()),
        "missed": int((positive & (tp == 0)).sum()),
        "negative": int((~positive).sum()),
        "false_alarms": int((~positive & (fp > 0)).sum()),
    }


def count_confusion(counts: Tensor, scans: Sequence[Hashable] | None = None) -> dict[str, int]:
    """Slices (N, 3), or the scans that ``scans`` (N) names, called right and wrong. One is called
    positive if any voxel is predicted, and is positive if the target has any."""
    tp, fp, fn = _unbind(counts.cpu() if scans is None else sum_by(counts.cpu(), scans))
    positive, called = tp + fn > 0, tp + fp > 0
    return {
        "tp": int((positive & called).sum()),
        "fp": int((~positive & called).sum()),
        "fn": int((positive & ~called).sum()),
        "tn": int((~positive & ~called).sum()),
    }


def sensitivity(confusion: Mapping[str, int]) -> float:
    """TP / (TP + FN) of slices or scans; NaN where none is positive."""
    positive = confusion["tp"] + confusion["fn"]
    return confusion["tp"] / positive if positive else float("nan")


def specificity(confusion: Mapping[str, int]) -> float:
    """TN / (TN + FP) of slices or scans; NaN where none is negative."""
    negative = confusion["tn"] + confusion["fp"]
    return confusion["tn"] / negative if negative else float("nan")


def _unbind(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if counts.ndim == 0 or counts.shape[-1] != 3 or counts.dtype != torch.int64:
        raise ValueError(
            f"counts must be int64 with a last dimension of 3 (TP, FP, FN), "
            f"got {counts.dtype} {tuple(counts.shape)}"
        )
    tp, fp, fn = counts.unbind(-1)
    return tp, fp, fn


def _ratio(numerator: Tensor, denominator: Tensor, empty: EmptyRule) -> Tensor:
    if empty not in get_args(EmptyRule):
        raise ValueError(f"empty must be one of {', '.join(get_args(EmptyRule))}, got {empty!r}")
    ratio = numerator.double() / denominator.double()  # 0/0 only where all three counts are 0
    return torch.where(denominator == 0, _EMPTY_VALUE[empty], ratio)


def number_names(names: Sequence[Hashable], order: Sequence[Hashable]) -> list[int]:
    """The position of each name among the distinct names of ``order``."""
    place = {name: i for i, name in enumerate(dict.fromkeys(order))}
    return [place[name] for name in names]


def sum_by(counts: Tensor, names: Sequence[Hashable]) -> Tensor:
    """Counts (N, 3) added up for each of the N names: a row each, in the order of their first."""
    index = torch.tensor(number_names(names, names))
    return counts.new_zeros(len(set(names)), 3).index_add_(0, index, counts)
