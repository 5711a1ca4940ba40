"""The Tversky loss in plain PyTorch."""

import torch
from torch import Tensor

from ichfast.ops.reference._dtypes import widen

__all__ = ["tversky"]


def tversky(
    prediction: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    smooth_nr: float = 1e-5,
    smooth_dr: float = 1e-5,
    sigmoid: bool = False,
    batch: bool = False,
) -> Tensor:
    """1 − (TP + smooth_nr)/(TP + αFP + βFN + smooth_dr); see :func:`ichfast.ops.tversky`."""
    (p,) = widen(prediction)
    p = torch.sigmoid(p) if sigmoid else p
    t = target.to(p.dtype)
    dims = [0] * batch + list(range(2, p.ndim))
    tp = (p * t).sum(dims)
    fp = (p * (1 - t)).sum(dims)
    fn = ((1 - p) * t).sum(dims)
    return 1 - (tp + smooth_nr) / (tp + alpha * fp + beta * fn + smooth_dr)
