"""Slice sets made in memory."""

import torch
from torch import Tensor

from ichfast.data import SliceSet

WINDOW = (500.5, 1001.0)  # LINEAR: [0, 1] is 0 to 1000 HU


def slice_set(
    images: Tensor,
    masks: Tensor | None,
    patients: tuple[str, ...],
    spacing: tuple[float, float] = (1.0, 1.0),
) -> SliceSet:
    """Images (N, 1, S, S) in [0, 1], to the nearest thousandth, as Hounsfield units."""
    n = len(images)
    return SliceSet(
        hu=(images[:, 0] * 1000).round().to(torch.int16).contiguous(),
        masks=None if masks is None else masks[:, 0].contiguous(),
        rows=torch.arange(n),
        window=WINDOW,
        patients=patients,
        series=patients,
        positions=tuple(float(i) for i in range(n)),
        sources=patients,
        spacings=(spacing,) * n,
    )
