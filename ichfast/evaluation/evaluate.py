"""One pass of a model over labelled slices: counts per slice, and the metrics that follow."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ichfast import metrics, ops
from ichfast.data import SliceSet
from ichfast.errors import DataError
from ichfast.team import ALONE, Team

EMPTY_RULE: metrics.EmptyRule = "nan"


class Segmenter(Protocol):
    """A model that can be evaluated: ``segment`` maps images (B,1,H,W) to logits (B,1,H,W)."""

    def segment(self, image: Tensor, /) -> Tensor: ...
    def __call__(self, image: Tensor, /) -> Any: ...
    def modules(self) -> Iterator[nn.Module]: ...
    def eval(self) -> nn.Module: ...


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Counts of a model on N slices and everything derived from them."""

    counts: Tensor  # (N, 3) int64 on the CPU: TP, FP, FN
    metrics: dict[str, Any]  # ready for JSON: an undefined score is None
    loss: float | None  # mean over slices, if a loss was asked for

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
    team: Team = ALONE,
) -> Evaluation:
    """Segment every slice and count voxels where the probability is above ``threshold``.

    ``loss(logits, target)`` gives the mean over a batch; it is averaged over slices, so the batch
    size does not change it. Nothing is read back from the device before the last slice.

    Of a team, the processes take the batches by turns and each gets the whole result: to the bit
    that of one process, as every batch is the same.
    """
    if slices.masks is None or len(slices) == 0:
        raise DataError("evaluation needs at least one slice with a mask, and got none")
    slices = slices.to(device)
    batches = torch.arange(len(slices)).split(batch_size)
    counts = torch.zeros(len(slices), 3, dtype=torch.int64, device=device)
    losses = torch.zeros(len(batches), dtype=torch.float64, device=device)
    with inference(model):
        for i in range(team.rank, len(batches), team.size):
            image, target = slices.batch(batches[i])
            assert target is not None
            logits = model.segment(image)
            own = slice(i * batch_size, (i + 1) * batch_size)
            counts[own] = ops.overlap_counts(torch.sigmoid(logits), target, threshold)[:, 0]
            if loss is not None:
                losses[i] = loss(logits, target).double() * len(image)
    total = team.sum(counts).cpu()
    return Evaluation(
        counts=total,
        metrics=_metrics(total, slices.patients, threshold),
        loss=None if loss is None else team.sum(losses).sum().item() / len(slices),
    )


@contextmanager
def inference(model: Segmenter) -> Iterator[None]:
    """No gradients, and ``eval()`` with every submodule's own mode restored at the end: a
    ``model.train()`` would also wake layers that somebody has put to rest on purpose."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _metrics(counts: Tensor, patients: tuple[str, ...], threshold: float) -> dict[str, Any]:
    scores = metrics.aggregate(counts, patients, empty=EMPTY_RULE)
    return {
        **{
            name: {key: None if math.isnan(value) else value for key, value in row.items()}
            for name, row in scores.items()
        },
        "n_slices": len(counts),
        "n_patients": len(set(patients)),
        "empty_rule": EMPTY_RULE,
        "empty_slices": int((counts.sum(1) == 0).sum()),
        "detection": metrics.detection(counts),
        "threshold": threshold,
    }
