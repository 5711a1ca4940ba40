"""The Tversky loss and the cross-entropy together: one pass forward, one pass backward."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ichfast.ops._checks import (
    FLOATING,
    require_floating,
    require_no_grad,
    require_one_device,
    require_target,
    require_tensor,
)
from ichfast.ops._layout import empty_gradient
from ichfast.ops.reference.tversky_bce import tversky_bce as plain_tversky_bce
from ichfast.ops.tversky import compute_loss
from ichfast.team import sum_over

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
    group: "dist.ProcessGroup | None" = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Tversky loss, and sum of the binary cross-entropy, per image and channel. With p = σ(logits),
    the weights w of ``mask`` and the q of ``pos_weight``::

        tversky = 1 − (TP + smooth_nr) / (TP + alpha·FP + beta·FN + smooth_dr)
        TP = Σwpt,  FP = Σwp(1−t),  FN = Σw(1−p)t
        cross_entropy = −Σw[q·t·log p + (1−t)·log(1−p)]
        count = Σw

    The mean over all that counts is ``cross_entropy.sum() / count.sum()``; a mean of the images'
    means would weigh a voxel the more, the fewer count in its image. Where nothing counts, the
    cross-entropy, the count and the gradient are 0.

    Args:
        logits: (B, C, *spatial); float64, float32, float16 or bfloat16. Receives the gradient.
        target: the same shape, bool, uint8 or floating; soft targets in [0, 1] are allowed.
        mask: (B, C, *spatial), or (B, 1, *spatial) for all channels; which voxels count (bool, or
            uint8: all but 0), or how much (floating, weights in [0, 1]). Logits and targets that do
            not count may be any finite number. None: all count.
        pos_weight: (C,), floating; the weight of positive voxels in the cross-entropy. None: 1.
        alpha, beta: weights of false positives and false negatives.
        smooth_nr, smooth_dr: keep an image without any foreground defined.
        batch: sum over the images of the batch, before the division.
        group: with ``batch``, sum over the images of all processes of this group, in one
            all-reduce. Each gets the same numbers, and the gradient of them for its own images:
            the gradients of weights are then to be summed over the processes, not averaged.

    Returns:
        tversky, cross_entropy and count (which has no gradient), each (B, C), or (C,) with
        ``batch``; float64 for float64 logits, else float32.

    Raises:
        ValueError, TypeError: shapes differ, dtypes or devices do not fit, another argument than
            logits requires grad.
    """
    require_floating("tversky_bce", logits=logits)
    require_target("tversky_bce", target)
    others = {"target": target}
    if mask is not None:
        _require_mask(mask)
        others["mask"] = mask
    if pos_weight is not None:
        require_floating("tversky_bce", pos_weight=pos_weight)
        others["pos_weight"] = pos_weight
    require_one_device("tversky_bce", logits=logits, **others)
    require_no_grad("tversky_bce", **others)
    if not (logits.ndim >= 3 and logits.shape == target.shape):
        raise ValueError(
            "tversky_bce: logits and target must be (B, C, *spatial) of one shape, "
            f"not {tuple(logits.shape)} and {tuple(target.shape)}"
        )
    images, channels, *spatial = logits.shape
    if mask is not None:
        if mask.shape not in (logits.shape, (images, 1, *spatial)):
            raise ValueError(
                f"tversky_bce: mask must be {tuple(logits.shape)} as the logits, or with one "
                f"channel, not {tuple(mask.shape)}"
            )
        mask = (mask.view(torch.bool) if mask.dtype == torch.uint8 else mask).expand_as(logits)
    if pos_weight is not None and pos_weight.shape != (channels,):
        raise ValueError(
            f"tversky_bce: pos_weight must be ({channels},), one number per channel, "
            f"not {tuple(pos_weight.shape)}"
        )
    if group is not None and not batch:
        raise ValueError("tversky_bce: a group's images are summed over, which needs batch=True")
    options = (alpha, beta, smooth_nr, smooth_dr, batch)
    results: tuple[Tensor, Tensor, Tensor] = _TverskyBCE.apply(
        logits, target, mask, pos_weight, group, *options
    )
    return results


def _require_mask(mask: Tensor) -> None:
    require_tensor("tversky_bce", "mask", mask)
    if mask.dtype not in (torch.bool, torch.uint8, *FLOATING):
        raise TypeError(
            f"tversky_bce: mask must be bool, uint8 or floating, not {mask.dtype}; "
            "convert it with mask.bool()"
        )


class _TverskyBCE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        mask: Tensor | None,
        pos_weight: Tensor | None,
        group: "dist.ProcessGroup | None",
        *options: Any,
    ) -> tuple[Tensor, Tensor, Tensor]:
        tversky, cross_entropy, count, sums = torch.ops.ichfast.tversky_bce(
            logits, target, mask, pos_weight, *options
        )
        if group is not None:
            dtype = tversky.dtype
            all_sums = torch.cat([sums, torch.stack([cross_entropy, count], 1)], 1)
            sums, others = sum_over(all_sums, group).split([3, 2], 1)
            sums = sums.contiguous()
            tversky = compute_loss(sums, *options[:4]).to(dtype)
            cross_entropy, count = (x.to(dtype, copy=True) for x in others.unbind(1))
        ctx.mark_non_differentiable(count)
        ctx.set_materialize_grads(False)  # zeros for the count would take memory
        ctx.group = group
        ctx.save_for_backward(logits, target, mask, pos_weight, sums)
        ctx.options = options
        return tversky, cross_entropy, count

    @staticmethod
    def backward(ctx: Any, *arrived: Tensor | None) -> tuple[Tensor | None, ...]:
        logits, target, mask, pos_weight, sums = ctx.saved_tensors
        given = next((grad for grad in arrived[:2] if grad is not None), None)
        if given is None:
            return (None,) * 10
        grads = [torch.zeros_like(given) if grad is None else grad for grad in arrived[:2]]
        if torch.is_grad_enabled():  # double backward: differentiate the plain form instead
            if ctx.group is not None:
                raise NotImplementedError(
                    "tversky_bce: no double backward over a group; leave group out for that"
                )
            alpha, beta, smooth_nr, smooth_dr, batch = ctx.options
            tversky, cross_entropy, _ = plain_tversky_bce(
                logits,
                target,
                mask,
                pos_weight,
                alpha=alpha,
                beta=beta,
                smooth_nr=smooth_nr,
                smooth_dr=smooth_dr,
                batch=batch,
            )
            (result,) = torch.autograd.grad(
                (tversky, cross_entropy), logits, grads, create_graph=True
            )
        else:
            result = torch.ops.ichfast.tversky_bce_backward(
                *grads, logits, target, mask, pos_weight, sums, *ctx.options
            )
        return result, *[None] * 9


@torch.library.register_fake("ichfast::tversky_bce")
def _(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None,
    pos_weight: Tensor | None,
    a: float,
    b: float,
    nr: float,
    dr: float,
    batch: bool,
) -> tuple[Tensor, ...]:
    wide = torch.promote_types(logits.dtype, torch.float32)
    losses = [logits.new_empty(logits.shape[1 if batch else 0 : 2], dtype=wide) for _ in range(3)]
    return *losses, logits.new_empty((losses[0].numel(), 3), dtype=torch.float64)


@torch.library.register_fake("ichfast::tversky_bce_backward")
def _(grad_tversky: Tensor, grad_cross_entropy: Tensor, logits: Tensor, *others: Any) -> Tensor:
    return empty_gradient(logits)
