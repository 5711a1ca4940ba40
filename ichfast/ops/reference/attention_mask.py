"""The masked images in plain PyTorch."""

import torch
from torch import Tensor

from ichfast.ops.reference._dtypes import widen

__all__ = ["attention_mask"]


def attention_mask(image: Tensor, logits: Tensor) -> Tensor:
    """x ⊙ (1−m) and x ⊙ m as two channels; see :func:`ichfast.ops.attention_mask`."""
    x, z = widen(image, logits)
    foreground = torch.sigmoid(z)
    return torch.cat([x * (1 - foreground), x * foreground], 1).to(image.dtype)
