"""The Tversky loss with the cross-entropy in plain PyTorch."""

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
    positive = target.to(z.dtype)
    negative = 1 - positive
    count = z.new_ones(()).expand_as(z)
    if mask is not None:
        count = (mask != 0 if mask.dtype == torch.uint8 else mask).to(z.dtype).expand_as(z)
        positive, negative = positive * count, negative * count
    dims = [0] * batch + list(range(2, z.ndim))
    tp = (p * positive).sum(dims)
    fp = (p * negative).sum(dims)
    fn = ((1 - p) * positive).sum(dims)
    if pos_weight is not None:
        positive = positive * pos_weight.to(z.dtype).view(-1, *[1] * (z.ndim - 2))
    losses = -positive * functional.logsigmoid(z) - negative * functional.logsigmoid(-z)
    overlap = 1 - (tp + smooth_nr) / (tp + alpha * fp + beta * fn + smooth_dr)
    return overlap, losses.sum(dims), count.sum(dims)
