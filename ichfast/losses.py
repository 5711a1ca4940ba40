"""Losses as modules, over the fused ops of :mod:`ichfast.ops`.

``DiceLoss``, ``JaccardLoss`` and ``TverskyLoss`` take MONAI's argument names and give its numbers
(MONAI's ``DiceLoss(jaccard=True)`` is ``JaccardLoss``), so a training script can swap the import.
Arguments of MONAI that they do not have raise a TypeError that says what to do instead.
"""

from typing import Any, Literal

import torch.distributed as dist
from torch import Tensor, nn

from ichfast import ops

Reduction = Literal["mean", "sum", "none"]

# MONAI's further arguments: the default, which is let through, and what to do instead.
_MONAI_ONLY: dict[str, tuple[Any, str]] = {
    "to_onehot_y": (False, "pass a one-hot target: torch.nn.functional.one_hot"),
    "softmax": (False, "apply torch.softmax to the input first"),
    "other_act": (None, "apply the activation to the input first"),
    "squared_pred": (False, "there is no squared form here"),
    "jaccard": (False, "use ichfast.losses.JaccardLoss"),
    "weight": (None, "use reduction='none' and weigh the (B, C) losses"),
    "soft_label": (False, "soft targets are taken as they are"),
    "ignore_index": (None, "there is no ignored label here"),
}


def _refuse_monai_only(loss: str, arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        if name not in _MONAI_ONLY:
            raise TypeError(f"{loss} has no argument {name!r}")
        default, instead = _MONAI_ONLY[name]
        if value is not default:
            raise TypeError(f"{loss} does not take MONAI's {name}={value!r}: {instead}")


def _check_reduction(reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', not {reduction!r}")


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return loss.mean()
    return loss.sum() if reduction == "sum" else loss


class TverskyLoss(nn.Module):
    """1 − (TP + smooth_nr)/(TP + alpha·FP + beta·FN + smooth_dr); see :func:`ichfast.ops.tversky`.

    Args:
        include_background: with False, channel 0 is left out (where there are several).
        sigmoid: the input is logits.
        alpha, beta: weights of false positives and false negatives.
        reduction: "mean" or "sum" over images and channels, or "none": (B, C), (C,) with ``batch``.
        smooth_nr, smooth_dr: keep an image without any foreground defined.
        batch: sum over the batch before the division.
        group: with ``batch``, over the batches of all its processes.
    """

    def __init__(
        self,
        include_background: bool = True,
        *,
        sigmoid: bool = False,
        alpha: float = 0.5,
        beta: float = 0.5,
        reduction: Reduction = "mean",
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        batch: bool = False,
        group: "dist.ProcessGroup | None" = None,
        **monai_only: Any,
    ) -> None:
        super().__init__()
        _refuse_monai_only(type(self).__name__, monai_only)
        _check_reduction(reduction)
        self.include_background = include_background
        self.sigmoid = sigmoid
        self.alpha = alpha
        self.beta = beta
        self.reduction = reduction
        self.smooth_nr = smooth_nr
        self.smooth_dr = smooth_dr
        self.batch = batch
        self.group = group

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """``input`` and ``target``: (B, C, *spatial); what :func:`ichfast.ops.tversky` raises."""
        if not self.include_background and input.shape[1] > 1:
            input, target = input[:, 1:], target[:, 1:]
        loss = ops.tversky(
            input,
            target,
            alpha=self.alpha,
            beta=self.beta,
            smooth_nr=self.smooth_nr,
            smooth_dr=self.smooth_dr,
            sigmoid=self.sigmoid,
            batch=self.batch,
            group=self.group,
        )
        return self._shape(_reduce(loss, self.reduction), input)

    def _shape(self, loss: Tensor, input: Tensor) -> Tensor:
        return loss


class _OverlapLoss(TverskyLoss):
    """Dice and Jaccard: symmetric Tversky losses in MONAI's form, (2TP + s)/(2(…) + s)."""

    weight: float  # alpha = beta

    def __init__(
        self,
        include_background: bool = True,
        *,
        sigmoid: bool = False,
        reduction: Reduction = "mean",
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        batch: bool = False,
        group: "dist.ProcessGroup | None" = None,
        **monai_only: Any,
    ) -> None:
        _refuse_monai_only(type(self).__name__, monai_only)
        super().__init__(
            include_background,
            sigmoid=sigmoid,
            alpha=self.weight,
            beta=self.weight,
            reduction=reduction,
            # MONAI doubles numerator and denominator before it smooths them.
            smooth_nr=smooth_nr / 2,
            smooth_dr=smooth_dr / 2,
            batch=batch,
            group=group,
        )

    def _shape(self, loss: Tensor, input: Tensor) -> Tensor:
        # MONAI's unreduced Dice broadcasts against the input, its Tversky does not.
        return loss.reshape(*loss.shape, *[1] * (input.ndim - 2)) if loss.ndim else loss


class DiceLoss(_OverlapLoss):
    """1 − (2TP + smooth_nr)/(2TP + FP + FN + smooth_dr): MONAI's ``DiceLoss``.

    Arguments as :class:`TverskyLoss`, without alpha and beta; ``reduction="none"`` gives
    (B, C, 1, …), which broadcasts against the input.
    """

    weight = 0.5


class JaccardLoss(_OverlapLoss):
    """The soft Jaccard loss L_s of the method: MONAI's ``DiceLoss(jaccard=True)``.

    1 − (2TP + smooth_nr)/(2(TP + FP + FN) + smooth_dr); arguments as :class:`DiceLoss`.
    """

    weight = 1.0


class AttentionWMSELoss(nn.Module):
    """The unsupervised loss L_u of the method; see :func:`ichfast.ops.attention_wmse`.

    Args:
        attention_gradient: "stop" takes the mask as a constant; "flow" lets the gradient through it
            into the logits. The paper does not say which.
        sigmoid_reconstruction: the reconstruction is before its sigmoid.
        reduction: over the images: "mean", "sum" or "none".
    """

    def __init__(
        self,
        attention_gradient: Literal["stop", "flow"] = "stop",
        sigmoid_reconstruction: bool = True,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if attention_gradient not in ("stop", "flow"):
            raise ValueError(
                f"attention_gradient must be 'stop' or 'flow', not {attention_gradient!r}"
            )
        _check_reduction(reduction)
        self.attention_gradient = attention_gradient
        self.sigmoid_reconstruction = sigmoid_reconstruction
        self.reduction = reduction

    def forward(self, image: Tensor, logits: Tensor, reconstruction: Tensor) -> Tensor:
        """(B, 1, *S), (B, 1, *S), (B, 2, *S) → a scalar, or (B,) for "none"."""
        if self.attention_gradient == "stop":
            logits = logits.detach()
        loss = ops.attention_wmse(
            image, logits, reconstruction, sigmoid_reconstruction=self.sigmoid_reconstruction
        )
        return _reduce(loss, self.reduction)
