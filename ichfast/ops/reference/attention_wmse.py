"""The unsupervised loss L_u in plain PyTorch."""

from typing import Literal

import torch
from torch import Tensor

from ichfast.ops.reference._dtypes import widen

__all__ = ["attention_wmse"]


def attention_wmse(
    image: Tensor,
    logits: Tensor,
    reconstruction: Tensor,
    *,
    sigmoid_reconstruction: bool = True,
    balance: Literal["paper", "region"] = "paper",
) -> Tensor:
    """L_u of Wang et al. 2020, as in its Equation 1 or balanced by region; see
    :func:`ichfast.ops.attention_wmse`."""
    image, logits, reconstruction = widen(image, logits, reconstruction)
    foreground = torch.sigmoid(logits)
    background = 1 - foreground
    r = torch.sigmoid(reconstruction) if sigmoid_reconstruction else reconstruction
    square_b = (image * background - r[:, :1]).square().flatten(1)
    square_f = (image * foreground - r[:, 1:]).square().flatten(1)
    background, foreground = background.flatten(1), foreground.flatten(1)
    if balance == "region":
        squares = square_b + square_f
        in_background = (background * squares).sum(1) / (background.sum(1) + 1)
        in_foreground = (foreground * squares).sum(1) / (foreground.sum(1) + 1)
        return (in_background + in_foreground) / 4
    return background.mean(1) * square_b.mean(1) + foreground.mean(1) * square_f.mean(1)
