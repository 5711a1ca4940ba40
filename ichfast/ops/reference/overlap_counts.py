"""TP, FP and FN in plain PyTorch."""

import torch
from torch import Tensor

__all__ = ["overlap_counts"]


def overlap_counts(prediction: Tensor, target: Tensor, threshold: float = 0.5) -> Tensor:
    """TP, FP, FN per image and channel; see :func:`ichfast.ops.overlap_counts`."""
    p = prediction > threshold
    t = target > 0
    return torch.stack([p & t, p & ~t, ~p & t], 2).flatten(3).sum(3)
