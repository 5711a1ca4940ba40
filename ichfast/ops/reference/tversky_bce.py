"""The Tversky loss with the cross-entropy in plain PyTorch."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from ichfast.ops.reference._dtypes import widen

__all__ = ["tversky_bce"]


def tversky_bce(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    pos_weight: Tensor | None = None,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    smooth_nr: float = 1e-5,
    smooth_dr: float = 1e-5,
    batch: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """1 − (TP + smooth_nr)/(TP + αFP + βFN + smooth_dr), the sum of the cross-entropy and the
    number of voxels; see :func:`ichfast.ops.tversky_bce`."""
    (z,) = widen(logits)
    p = torch.sigmoid(z)
    target = target.to(z.dtype)
    positive, negative = target, 1 - target
    counted = None
    if mask is not None:
        counted = (mask != 0 if mask.dtype == torch.uint8 else mask).to(z.dtype).expand_as(z)
        positive, negative = positive * counted, negative * counted
    dims = [0] * batch + list(range(2, z.ndim))
    tp = (p * positive).sum(dims)
    fp = (p * negative).sum(dims)
    fn = ((1 - p) * positive).sum(dims)
    overlap = 1 - (tp + smooth_nr) / (tp + alpha * fp + beta * fn + smooth_dr)
    if pos_weight is not None:
        pos_weight = pos_weight.to(z.dtype).view(-1, *[1] * (z.ndim - 2))
    cross_entropy = functional.binary_cross_entropy_with_logits(
        z, target, counted, reduction="none", pos_weight=pos_weight
    ).sum(dims)
    if counted is None:
        count = torch.full_like(overlap, math.prod([z.shape[dim] for dim in dims]))
    else:
        count = counted.sum(dims)
    return overlap, cross_entropy, count
