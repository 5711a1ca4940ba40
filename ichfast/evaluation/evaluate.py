"""One pass of a model over labelled slices: counts per slice, and the metrics that follow."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ichfast import metrics
from ichfast.data import SliceSet
from ichfast.errors import DataError
from ichfast.evaluation.intervals import Rows, average
from ichfast.evaluation.surface import EMPTY_RULE as SURFACE_RULE
from ichfast.evaluation.surface import TOLERANCES, Surface, measure_surface, name_columns
from ichfast.ops.overlap_counts import overlap_counts
from ichfast.team import ALONE, Team

EMPTY_RULE: metrics.EmptyRule = "nan"


class Segmenter(Protocol):
    """A model that can be evaluated: ``segment`` maps images (B,1,H,W) to logits (B,1,H,W)."""

    def segment(self, image: Tensor, /) -> Tensor: ...
    def __call__(self, image: Tensor, /) -> Any: ...
    def modules(self) -> Iterator[nn.Module]: ...
    def eval(self) -> nn.Module: ...


class Owned(Protocol):
    """Slices that belong to somebody; a `SliceSet` is such."""

    @property
    def patients(self) -> Sequence[str]: ...
    @property
    def series(self) -> Sequence[str]: ...
    @property
    def spacings(self) -> Sequence[tuple[float, float]]:
        """mm between rows and between columns; NaN: unknown."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Counts of a model on N slices and everything derived from them."""

    counts: Tensor  # (N, 3) int64 on the CPU: TP, FP, FN
    areas: Tensor  # (N,) float64 on the CPU: sum of the probabilities, the expected area in pixels
    metrics: dict[str, Any]  # ready for JSON: an undefined score is None
    loss: float | None  # mean over slices, if a loss was asked for
    surface: Surface | None = None  # of each slice, if it was asked for

    @property
    def dice(self) -> Tensor:
        """Dice of each slice (N,), NaN where neither target nor prediction has a voxel."""
        return metrics.dice(self.counts, empty=EMPTY_RULE)


def evaluate(
    model: Segmenter,
    slices: SliceSet,
    *,
    batch_size: int,
    threshold: float = 0.5,
    device: torch.device | str = "cpu",
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    surfaces: bool = False,
    team: Team = ALONE,
) -> Evaluation:
    """Segment every slice and count voxels where the probability is above ``threshold``.

    ``loss(logits, target)`` gives the mean over a batch; it is averaged over slices, so the batch
    size does not change it. ``surfaces`` adds HD95 and NSD, which are computed on the CPU; without
    them, nothing is read back from the device before the last slice.

    The processes of a team take the batches in turn and each gets the whole result, bit for bit
    that of a single process, since every batch is the same.
    """
    if slices.masks is None or len(slices) == 0:
        raise DataError("evaluation needs at least one slice with a mask, and got none")
    slices = slices.to(device)
    batches = torch.arange(len(slices)).split(batch_size)
    counts = torch.zeros(len(slices), 3, dtype=torch.int64, device=device)
    areas = torch.zeros(len(slices), dtype=torch.float64, device=device)
    losses = torch.zeros(len(batches), dtype=torch.float64, device=device)
    outlines = torch.zeros(len(slices), 1 + len(TOLERANCES), dtype=torch.float64)
    with switch_to_inference(model):
        for i in range(team.rank, team.size * math.ceil(len(batches) / team.size), team.size):
            team.check_stop()  # by all equally often, also those that have a batch less
            if i >= len(batches):
                break
            image, target = slices.batch(batches[i])
            assert target is not None
            logits = model.segment(image)
            probability = torch.sigmoid(logits)
            own = slice(i * batch_size, i * batch_size + len(image))
            counts[own] = overlap_counts(probability, target, threshold)[:, 0]
            areas[own] = probability.sum((1, 2, 3), dtype=torch.float64)
            if surfaces:
                found = measure_surface(
                    (probability > threshold)[:, 0].numpy(force=True),
                    target[:, 0].numpy(force=True),
                    np.array(slices.spacings[own]),
                )
                outlines[own] = torch.from_numpy(np.column_stack(found))
            if loss is not None:
                losses[i] = loss(logits, target).double() * len(image)
    total = team.sum(counts).cpu()
    whole = None
    if surfaces:
        hd95, *nsd = team.sum(outlines).numpy().T
        whole = Surface(hd95, np.stack(nsd, 1))
    mean = None if loss is None else team.sum(losses).sum().item() / len(slices)
    return score(total, team.sum(areas).cpu(), slices, threshold, whole, mean)


def score(
    counts: Tensor,
    areas: Tensor,
    slices: Owned,
    threshold: float,
    surface: Surface | None,
    loss: float | None = None,
) -> Evaluation:
    """What follows from the counts (N, 3), areas (N,) and outlines of ``slices``."""
    outlines = {} if surface is None else _average_surface(surface, counts, slices)
    return Evaluation(
        counts=counts,
        areas=areas,
        metrics=_compute_metrics(counts, slices, threshold) | outlines,
        loss=loss,
        surface=surface,
    )


@contextmanager
def switch_to_inference(model: Segmenter) -> Iterator[None]:
    """No gradients, and ``eval()`` with every submodule's own mode restored at the end: a
    ``model.train()`` would also wake layers that were put in evaluation mode on purpose."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _compute_metrics(counts: Tensor, slices: Owned, threshold: float) -> dict[str, Any]:
    positive = (counts[:, 0] + counts[:, 2] > 0).nonzero()[:, 0].tolist()
    of_slices = metrics.count_confusion(counts)
    scans = list(zip(slices.patients, slices.series, strict=True))
    of_scans = metrics.count_confusion(counts, scans)
    return {
        **_score_overlap(counts, slices.patients),
        "positive": _score_overlap(counts[positive], [slices.patients[i] for i in positive]),
        "empty_rule": EMPTY_RULE,
        "empty_slices": int((counts.sum(1) == 0).sum()),
        "detection": metrics.count_detections(counts),
        "confusion": {"slices": of_slices, "scans": of_scans},
        **{
            name: {"slices": _none_if_nan(rate(of_slices)), "scans": _none_if_nan(rate(of_scans))}
            for name, rate in (
                ("sensitivity", metrics.sensitivity),
                ("specificity", metrics.specificity),
            )
        },
        "threshold": threshold,
    }


def _score_overlap(counts: Tensor, patients: Sequence[str]) -> dict[str, Any]:
    """Dice and Jaccard in three aggregations; None where there is nothing to score."""
    if len(counts):
        scores = metrics.aggregate(counts, patients, empty=EMPTY_RULE)
    else:
        scores = dict.fromkeys(("dice", "jaccard"), dict.fromkeys(metrics.AGGREGATIONS, math.nan))
    return {
        **{name: {key: _none_if_nan(x) for key, x in row.items()} for name, row in scores.items()},
        "n_slices": len(counts),
        "n_patients": len(set(patients)),
    }


def _average_surface(found: Surface, counts: Tensor, slices: Owned) -> dict[str, Any]:
    """Means over the slices that have the score and over their patients, and how many slices have
    it only by the rule for one empty mask."""
    rows = Rows.from_patients(metrics.number_names(slices.patients, slices.patients))

    def means(values: ArrayLike) -> dict[str, float | None]:
        return {
            "per_slice": average(rows, values, "per_slice").estimate,
            "per_patient": average(rows, values, "per_patient").estimate,
        }

    tp, fp, fn = counts.unbind(1)
    measured = torch.from_numpy(~np.isnan(found.hd95))
    return {
        "hd95": means(found.hd95),
        "nsd": {name: means(column) for name, column in name_columns(found.nsd).items()},
        "surface": {
            "n_slices": int(measured.sum()),
            "missed": int((measured & (tp + fp == 0)).sum()),
            "false_alarms": int((measured & (tp + fn == 0)).sum()),
            "no_spacing": int(np.isnan(slices.spacings).any(1).sum()),
            "empty_rule": SURFACE_RULE,
        },
    }


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
