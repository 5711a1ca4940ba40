"""The unsupervised loss L_u in plain PyTorch."""

import torch
from torch import Tensor

from ichfast.ops.reference._dtypes import widen

__all__ = ["attention_wmse"]


def attention_wmse(
    image: Tensor, logits: Tensor, reconstruction: Tensor, *, sigmoid_reconstruction: bool = True
) -> Tensor:
    """L_u of Wang et al. 2020, Equation 1; see :func:`ichfast.ops.attention_wmse`."""
    image, logits, reconstruction = widen(image, logits, reconstruction)
    foreground = torch.sigmoid(logits)
    background = 1 - foreground
    r = torch.sigmoid(reconstruction) if sigmoid_reconstruction else reconstruction
    error_b = (image * background - r[:, :1]).square().flatten(1).mean(1)
    error_f = (image * foreground - r[:, 1:]).square().flatten(1).mean(1)
    return background.flatten(1).mean(1) * error_b + foreground.flatten(1).mean(1) * error_f
