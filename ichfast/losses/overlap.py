"""Losses of overlap: Tversky, Dice and Jaccard."""

from collections.abc import Callable, Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from ichfast.losses._arguments import (
    Reduction,
    check_reduction,
    prepare,
    reduce,
    refuse,
)
from ichfast.ops.tversky import tversky

# MONAI's further arguments; see `refuse`.
_MONAI_ONLY: dict[str, tuple[Any, str]] = {
    "softmax": (
        False,
        "pass torch.softmax(input, 1) as the input, or, with a single channel, leave it out",
    ),
    "other_act": (None, "apply the activation yourself, and pass its output as the input"),
    "squared_pred": (False, "there is no squared form here; monai.losses.DiceLoss has it"),
    "jaccard": (False, "use ichfast.losses.JaccardLoss without this argument"),
    "weight": (
        None,
        "take the losses of reduction='none' and weigh their C channels yourself: "
        "(losses.reshape(-1, C) * torch.tensor(weight)).mean()",
    ),
    "soft_label": (
        False,
        "it is another formula, TP = Σmin(p, t), and soft targets are multiplied here, TP = Σpt. "
        "For targets of 0 and 1 both are equal: leave it out; else use MONAI's loss",
    ),
    "ignore_index": (
        None,
        "there is no ignored label here; multiply probabilities (with sigmoid=False) and one-hot "
        "target by a mask that is 0 at the voxels to be ignored, or take TverskyBCELoss, which has "
        "a mask",
    ),
}


class TverskyLoss(nn.Module):
    """1 − (TP + smooth_nr)/(TP + alpha·FP + beta·FN + smooth_dr); see :func:`ichfast.ops.tversky`.

    Args:
        include_background: with False, channel 0 is left out (where there are several).
        to_onehot_y: the target is labels 0 to C − 1 of shape (B, 1, *spatial), of any dtype
            (where there are several channels).
        sigmoid: the input is logits.
        alpha, beta: weights of false positives and false negatives.
        reduction: "mean" or "sum" over images and channels, or "none": (B, C), (C,) with ``batch``.
        smooth_nr, smooth_dr: keep an image without any foreground defined.
        batch: sum over the batch before the division.
        softmax, other_act, soft_label, ignore_index: hold MONAI's places; only their defaults are
            taken, and the error for anything else says what works.
        group: with ``batch``, over the batches of all its processes.
    """

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Callable[[Tensor], Tensor] | None = None,
        alpha: float = 0.5,
        beta: float = 0.5,
        reduction: Reduction = "mean",
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        batch: bool = False,
        soft_label: bool = False,
        ignore_index: int | None = None,
        *,
        group: "dist.ProcessGroup | None" = None,
        **monai_only: Any,
    ) -> None:
        super().__init__()
        refuse(
            self,
            _MONAI_ONLY,
            softmax=softmax,
            other_act=other_act,
            soft_label=soft_label,
            ignore_index=ignore_index,
            **monai_only,
        )
        check_reduction(reduction)
        self.include_background = include_background
        self.to_onehot_y = to_onehot_y
        self.sigmoid = sigmoid
        self.alpha = alpha
        self.beta = beta
        self.reduction = reduction
        self.smooth_nr = smooth_nr
        self.smooth_dr = smooth_dr
        self.batch = batch
        self.group = group

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """``input`` and ``target``: (B, C, *spatial), the target bool, integer or floating; with
        ``to_onehot_y`` the target is (B, 1, *spatial). Raises what :func:`ichfast.ops.tversky`
        does."""
        input, target = prepare(
            self,
            input,
            target,
            include_background=self.include_background,
            to_onehot_y=self.to_onehot_y,
        )
        loss = tversky(
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
        return self._shape(reduce(loss, self.reduction), input)

    def _shape(self, loss: Tensor, input: Tensor) -> Tensor:
        return loss


class _OverlapLoss(TverskyLoss):
    """Dice and Jaccard: symmetric Tversky losses in MONAI's form, (2TP + s)/(2(…) + s)."""

    symmetric_weight: float  # alpha = beta

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Callable[[Tensor], Tensor] | None = None,
        squared_pred: bool = False,
        jaccard: bool = False,
        reduction: Reduction = "mean",
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        batch: bool = False,
        weight: Sequence[float] | float | Tensor | None = None,
        soft_label: bool = False,
        ignore_index: int | None = None,
        *,
        group: "dist.ProcessGroup | None" = None,
        **unknown: Any,
    ) -> None:
        refuse(self, _MONAI_ONLY, **unknown)
        super().__init__(
            include_background,
            to_onehot_y,
            sigmoid,
            softmax,
            other_act,
            alpha=self.symmetric_weight,
            beta=self.symmetric_weight,
            reduction=reduction,
            # MONAI doubles numerator and denominator before it smooths them.
            smooth_nr=smooth_nr / 2,
            smooth_dr=smooth_dr / 2,
            batch=batch,
            soft_label=soft_label,
            ignore_index=ignore_index,
            group=group,
            squared_pred=squared_pred,
            jaccard=jaccard,
            weight=weight,
        )

    def _shape(self, loss: Tensor, input: Tensor) -> Tensor:
        # MONAI's unreduced Dice broadcasts against the input, its Tversky does not.
        return loss.reshape(*loss.shape, *[1] * (input.ndim - 2)) if loss.ndim else loss


class DiceLoss(_OverlapLoss):
    """1 − (2TP + smooth_nr)/(2TP + FP + FN + smooth_dr): MONAI's ``DiceLoss``.

    Arguments as :class:`TverskyLoss`, without alpha and beta; ``reduction="none"`` gives
    (B, C, 1, …), which broadcasts against the input.
    """

    symmetric_weight = 0.5


class JaccardLoss(_OverlapLoss):
    """The soft Jaccard loss L_s of the method: MONAI's ``DiceLoss(jaccard=True)``.

    1 − (2TP + smooth_nr)/(2(TP + FP + FN) + smooth_dr); arguments as :class:`DiceLoss`.
    """

    symmetric_weight = 1.0
