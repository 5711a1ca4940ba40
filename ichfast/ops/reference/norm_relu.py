"""Batch normalisation, ReLU and 2×2 max-pooling in plain PyTorch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ichfast.ops.reference._dtypes import widen

__all__ = ["norm_relu", "norm_relu_pool"]


def norm_relu(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    *,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
    relu: bool = True,
    beside: Tensor | None = None,
) -> Tensor:
    """``F.relu(F.batch_norm(…))``; see :func:`ichfast.ops.norm_relu`."""
    x, gamma, beta = widen(input, weight, bias)
    mean = None if running_mean is None else running_mean.to(x.dtype)
    variance = None if running_var is None else running_var.to(x.dtype)
    output = F.batch_norm(x, mean, variance, gamma, beta, training, float(momentum), eps)
    if training:
        for own, moved in ((running_mean, mean), (running_var, variance)):
            if own is not None and moved is not None:
                own.copy_(moved)
    output = (F.relu(output) if relu else output).to(input.dtype)
    return output if beside is None else torch.cat([beside, output], 1)


def norm_relu_pool(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    *,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """:func:`norm_relu`, and ``F.max_pool2d(…, 2)`` of it."""
    output = norm_relu(
        input,
        weight,
        bias,
        running_mean,
        running_var,
        training=training,
        momentum=momentum,
        eps=eps,
    )
    return output, F.max_pool2d(output, 2)
