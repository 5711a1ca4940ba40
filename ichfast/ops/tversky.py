"""The Tversky loss: one pass forward, one pass backward, three sums kept in between."""

from typing import Any

import torch
from torch import Tensor

from ichfast.ops import reference
from ichfast.ops._checks import (
    require_floating,
    require_no_grad,
    require_one_device,
    require_target,
)
from ichfast.ops._layout import empty_gradient


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
    """Tversky loss per image and channel (Salehi et al. 2017)::

        1 − (TP + smooth_nr) / (TP + alpha·FP + beta·FN + smooth_dr)
        TP = Σpt,  FP = Σp(1−t),  FN = Σ(1−p)t

    alpha = beta = 1 is the soft Jaccard loss, alpha = beta = ½ the Dice loss. An image without
    foreground still punishes what is predicted in it.

    Args:
        prediction: (B, C, *spatial) probabilities, or logits with ``sigmoid``; float64, float32,
            float16 or bfloat16. Receives the gradient.
        target: the same shape, bool, uint8 or floating; soft targets in [0, 1] are allowed.
        sigmoid: apply a sigmoid to the prediction first.
        batch: sum over the images of the batch before the division.

    Returns:
        (B, C), or (C,) with ``batch``; float64 for float64 predictions, else float32.

    Raises:
        ValueError, TypeError: shapes differ, dtypes or devices do not fit, target requires grad.
    """
    require_floating("tversky", prediction=prediction)
    require_target("tversky", target)
    require_one_device("tversky", prediction=prediction, target=target)
    require_no_grad("tversky", target=target)
    if not (prediction.ndim >= 3 and prediction.shape == target.shape):
        raise ValueError(
            "tversky: prediction and target must be (B, C, *spatial) of one shape, "
            f"not {tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    options = (alpha, beta, smooth_nr, smooth_dr, sigmoid, batch)
    loss: Tensor = _Tversky.apply(prediction, target, *options)
    return loss


class _Tversky(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor, *options: Any) -> Tensor:
        loss: Tensor
        loss, sums = torch.ops.ichfast.tversky(prediction, target, *options)
        ctx.save_for_backward(prediction, target, sums)
        ctx.options = options
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        prediction, target, sums = ctx.saved_tensors
        if torch.is_grad_enabled():  # double backward: differentiate the plain form instead
            alpha, beta, smooth_nr, smooth_dr, sigmoid, batch = ctx.options
            loss = reference.tversky(
                prediction,
                target,
                alpha=alpha,
                beta=beta,
                smooth_nr=smooth_nr,
                smooth_dr=smooth_dr,
                sigmoid=sigmoid,
                batch=batch,
            )
            (result,) = torch.autograd.grad(loss, prediction, grad, create_graph=True)
        else:
            result = torch.ops.ichfast.tversky_backward(
                grad, prediction, target, sums, *ctx.options
            )
        return result, *[None] * 7


@torch.library.register_fake("ichfast::tversky")
def _(
    prediction: Tensor,
    target: Tensor,
    a: float,
    b: float,
    nr: float,
    dr: float,
    s: bool,
    batch: bool,
) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(prediction.dtype, torch.float32)
    loss = prediction.new_empty(prediction.shape[1 if batch else 0 : 2], dtype=wide)
    return loss, prediction.new_empty((loss.numel(), 3), dtype=torch.float64)


@torch.library.register_fake("ichfast::tversky_backward")
def _(grad: Tensor, prediction: Tensor, target: Tensor, sums: Tensor, *options: Any) -> Tensor:
    return empty_gradient(prediction)
