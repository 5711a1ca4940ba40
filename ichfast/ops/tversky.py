"""The Tversky loss: one pass forward, one pass backward, three sums kept in between."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ichfast.ops._autograd import OpFunction, differentiate_gradients
from ichfast.ops._checks import require_no_grad, require_pair
from ichfast.ops._layout import empty_gradient
from ichfast.ops._vmap import fold_into_batch
from ichfast.ops.reference.tversky import tversky as plain_tversky
from ichfast.team import sum_over

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
    group: "dist.ProcessGroup | None" = None,
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
        group: with ``batch``, sum over the images of all processes of this group, in one
            all-reduce. Each gets the same loss, and the gradient of it for its own images: the
            gradients of weights are then to be summed over the processes, not averaged.

    Returns:
        (B, C), or (C,) with ``batch``; float64 for float64 predictions, else float32.

    Raises:
        ValueError, TypeError: shapes differ, dtypes or devices do not fit, target requires grad.
    """
    require_pair("tversky", "prediction", prediction, target)
    require_no_grad("tversky", target=target)
    if group is not None and not batch:
        raise ValueError("tversky: a group's images are summed over, which needs batch=True")
    options = (alpha, beta, smooth_nr, smooth_dr, sigmoid, batch)
    loss: Tensor = _Tversky.run(prediction, target, group, options)
    return loss


class _Tversky(OpFunction):
    @staticmethod
    def select(output: Any) -> Any:
        return output[0]

    @staticmethod
    def forward(
        prediction: Tensor, target: Tensor, group: "dist.ProcessGroup | None", options: Any
    ) -> tuple[Tensor, Tensor]:
        loss, sums = torch.ops.ichfast.tversky.default(prediction, target, *options)
        if group is not None:
            loss = compute_loss(sum_over(sums, group), *options[:4]).to(loss.dtype)
        return loss, sums

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        prediction, target, ctx.group, ctx.options = inputs
        _, sums = output
        ctx.mark_non_differentiable(sums)
        ctx.set_materialize_grads(False)  # zeros for the sums
        ctx.save_for_backward(prediction, target, sums)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
        result = _TverskyBackward.run_in_backward(grad, *ctx.saved_tensors, ctx.group, ctx.options)
        return result, None, None, None


class _TverskyBackward(OpFunction):
    @staticmethod
    def forward(
        grad: Tensor, prediction: Tensor, target: Tensor, sums: Tensor, group: Any, options: Any
    ) -> Tensor:
        result: Tensor = torch.ops.ichfast.tversky_backward.default(
            grad, prediction, target, sums, *options
        )
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        grad, prediction, target, _, ctx.group, ctx.options = inputs
        ctx.save_for_backward(grad, prediction, target)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.group is not None:
            raise NotImplementedError(
                "tversky: no double backward over a group; leave group out for that"
            )
        grad, prediction, target = ctx.saved_tensors
        names = ("alpha", "beta", "smooth_nr", "smooth_dr", "sigmoid", "batch")
        options = dict(zip(names, ctx.options, strict=True))

        def plain(prediction: Tensor) -> Tensor:
            return plain_tversky(prediction, target, **options)

        of_grad, (of_prediction,) = differentiate_gradients(
            plain, [prediction], [True], grad, [upstream]
        )
        return of_grad, of_prediction, None, None, None, None


def compute_loss(
    sums: Tensor, alpha: float, beta: float, smooth_nr: float, smooth_dr: float
) -> Tensor:
    """(C, 3) sums of TP, FP and FN → (C,) losses."""
    tp, fp, fn = sums.unbind(1)
    return 1 - (tp + smooth_nr) / (tp + alpha * fp + beta * fn + smooth_dr)


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


def sums_over_images(*args: Any) -> bool:
    return bool(args[-1])  # batch


fold_into_batch("tversky", sums_over_images)
fold_into_batch("tversky_backward", sums_over_images)
