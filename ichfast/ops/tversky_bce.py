"""The Tversky loss and the cross-entropy together: one pass forward, one pass backward."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ichfast.ops._autograd import OpFunction, differentiate_gradients
from ichfast.ops._checks import (
    FLOATING,
    require_floating,
    require_no_grad,
    require_one_device,
    require_pair,
    require_tensor,
)
from ichfast.ops._layout import empty_gradient
from ichfast.ops._vmap import fold_into_batch
from ichfast.ops.reference.tversky_bce import tversky_bce as plain_tversky_bce
from ichfast.ops.tversky import compute_loss, sums_over_images
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
    require_pair("tversky_bce", "logits", logits, target)
    others: dict[str, Tensor] = {}
    if mask is not None:
        _require_mask(mask)
        others["mask"] = mask
    if pos_weight is not None:
        require_floating("tversky_bce", pos_weight=pos_weight)
        others["pos_weight"] = pos_weight
    require_one_device("tversky_bce", logits=logits, **others)
    require_no_grad("tversky_bce", target=target, **others)
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
    results: tuple[Tensor, Tensor, Tensor] = _TverskyBCE.run(
        logits, target, mask, pos_weight, group, options
    )
    return results


def _require_mask(mask: Tensor) -> None:
    require_tensor("tversky_bce", "mask", mask)
    if mask.dtype not in (torch.bool, torch.uint8, *FLOATING):
        raise TypeError(
            f"tversky_bce: mask must be bool, uint8 or floating, not {mask.dtype}; "
            "convert it with mask.bool()"
        )


class _TverskyBCE(OpFunction):
    @staticmethod
    def select(output: Any) -> Any:
        return output[:3]

    @staticmethod
    def forward(
        logits: Tensor,
        target: Tensor,
        mask: Tensor | None,
        pos_weight: Tensor | None,
        group: "dist.ProcessGroup | None",
        options: Any,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        tversky, cross_entropy, count, sums = torch.ops.ichfast.tversky_bce.default(
            logits, target, mask, pos_weight, *options
        )
        if group is not None:
            dtype = tversky.dtype
            all_sums = torch.cat([sums, torch.stack([cross_entropy, count], 1)], 1)
            sums, others = sum_over(all_sums, group).split([3, 2], 1)
            sums = sums.contiguous()
            tversky = compute_loss(sums, *options[:4]).to(dtype)
            cross_entropy, count = (x.to(dtype, copy=True) for x in others.unbind(1))
        return tversky, cross_entropy, count, sums

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.group, ctx.options = inputs
        _, _, count, sums = output
        ctx.mark_non_differentiable(count, sums)
        ctx.set_materialize_grads(False)  # zeros for these two
        ctx.save_for_backward(*tensors, sums)

    @staticmethod
    def backward(ctx: Any, *arrived: Tensor | None) -> tuple[Tensor | None, ...]:
        given = next((grad for grad in arrived[:2] if grad is not None), None)
        if given is None:
            return (None,) * 6
        grads = [torch.zeros_like(given) if grad is None else grad for grad in arrived[:2]]
        result = _TverskyBCEBackward.run_in_backward(
            *grads, *ctx.saved_tensors, ctx.group, ctx.options
        )
        return result, None, None, None, None, None


class _TverskyBCEBackward(OpFunction):
    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        *tensors, _, options = inputs
        result: Tensor = torch.ops.ichfast.tversky_bce_backward.default(*tensors, *options)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, _, ctx.group, ctx.options = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.group is not None:
            raise NotImplementedError(
                "tversky_bce: no double backward over a group; leave group out for that"
            )
        *grads, logits, target, mask, pos_weight = ctx.saved_tensors
        names = ("alpha", "beta", "smooth_nr", "smooth_dr", "batch")
        options = dict(zip(names, ctx.options, strict=True))

        def plain(logits: Tensor) -> tuple[Tensor, Tensor]:
            tversky, cross_entropy, _ = plain_tversky_bce(
                logits, target, mask, pos_weight, **options
            )
            return tversky, cross_entropy

        of_grads, (of_logits,) = differentiate_gradients(
            plain, [logits], [True], tuple(grads), [upstream]
        )
        return *of_grads, of_logits, *[None] * 6


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


fold_into_batch("tversky_bce", sums_over_images, per_channel=[3])  # pos_weight
fold_into_batch("tversky_bce_backward", sums_over_images, per_channel=[5])
