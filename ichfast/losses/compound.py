"""Losses of overlap and cross-entropy together, in one pass over logits and target."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ichfast.losses._arguments import prepare, refuse
from ichfast.ops._checks import require_tensor
from ichfast.ops.tversky_bce import tversky_bce


class TverskyBCELoss(nn.Module):
    """lambda_tversky·Tversky + lambda_ce·cross-entropy of per-channel sigmoids, with a mask.

    The mean of the Tversky losses of all images and channels (see :func:`ichfast.ops.tversky_bce`),
    and the mean of the binary cross-entropy over all that the mask counts: with weights w,
    Σw·loss / Σw, and 0 where nothing counts. nnU-Net's loss with an ignore label divides by the
    voxels counted, not by those of all C channels; lambda_ce=C is the same.

    Args:
        include_background: with False, channel 0 is left out (where there are several).
        alpha, beta: weights of false positives and false negatives in the Tversky loss.
        lambda_tversky, lambda_ce: weights of the two parts.
        weight: of each channel that is not left out, in both parts.
        pos_weight: of positive voxels in the cross-entropy, for each channel that is not left out.
        reduction: "mean", or "sum" of the Tversky losses and of the voxels' cross-entropies.
        smooth_nr, smooth_dr: keep an image without any foreground defined.
        batch: sum over the batch before the division in the Tversky loss.
        group: with ``batch``, over the batches of all its processes.
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        include_background: bool = True,
        alpha: float = 0.5,
        beta: float = 0.5,
        lambda_tversky: float = 1.0,
        lambda_ce: float = 1.0,
        weight: Sequence[float] | Tensor | None = None,
        pos_weight: Sequence[float] | Tensor | None = None,
        reduction: Literal["mean", "sum"] = "mean",
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        batch: bool = False,
        *,
        group: "dist.ProcessGroup | None" = None,
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum"):
            raise ValueError(
                f"{type(self).__name__}: reduction must be 'mean' or 'sum', not {reduction!r}"
            )
        self.include_background = include_background
        self.alpha = alpha
        self.beta = beta
        self.lambda_tversky = lambda_tversky
        self.lambda_ce = lambda_ce
        for name, numbers in (("weight", weight), ("pos_weight", pos_weight)):
            if numbers is not None:
                numbers = torch.as_tensor(numbers)
                numbers = numbers if numbers.is_floating_point() else numbers.float()
            self.register_buffer(name, numbers)
        self.reduction = reduction
        self.smooth_nr = smooth_nr
        self.smooth_dr = smooth_dr
        self.batch = batch
        self.group = group

    def forward(self, input: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """A scalar of ``input``, logits (B, C, *spatial), and ``target``, of the same shape, bool,
        integer or floating. ``mask``: see :func:`ichfast.ops.tversky_bce`, which also says what is
        raised."""
        logits, target = prepare(
            self, input, target, include_background=self.include_background, to_onehot_y=False
        )
        if isinstance(mask, Tensor) and mask.shape == input.shape != logits.shape:
            mask = mask[:, 1:]
        tversky, cross_entropy, count = tversky_bce(
            logits,
            target,
            mask,
            self.pos_weight,
            alpha=self.alpha,
            beta=self.beta,
            smooth_nr=self.smooth_nr,
            smooth_dr=self.smooth_dr,
            batch=self.batch,
            group=self.group,
        )
        if self.weight is not None:
            if self.weight.shape != tversky.shape[-1:]:
                raise ValueError(
                    f"{type(self).__name__}: weight must be ({tversky.shape[-1]},), one number per "
                    f"channel that is not left out, not {tuple(self.weight.shape)}"
                )
            weight = self.weight.to(tversky)
            tversky, cross_entropy = tversky * weight, cross_entropy * weight
        if self.reduction == "sum":
            return self.lambda_tversky * tversky.sum() + self.lambda_ce * cross_entropy.sum()
        mean = cross_entropy.sum() / count.sum().clamp(min=1e-8)  # 0 where nothing counts
        return self.lambda_tversky * tversky.mean() + self.lambda_ce * mean


_SOFTMAX = (
    "the cross-entropy of a softmax is not computed here; use TverskyBCELoss for per-channel "
    "sigmoids, monai.losses.DiceCELoss for a softmax"
)
_MONAI_ONLY: dict[str, tuple[Any, str]] = {
    "softmax": (False, _SOFTMAX),
    "other_act": (None, "the input is logits of a sigmoid; monai.losses.DiceCELoss has others"),
    "squared_pred": (False, "there is no squared form here; monai.losses.DiceCELoss has it"),
    "label_smoothing": (
        0.0,
        "it smooths the targets of a softmax, and MONAI ignores it for one channel; leave it out",
    ),
}


class DiceCELoss(TverskyBCELoss):
    """lambda_dice·Dice + lambda_ce·cross-entropy of one channel: MONAI's ``DiceCELoss``.

    Args:
        sigmoid: the input is logits; must be True.
        jaccard: the soft Jaccard loss takes the place of Dice.
        reduction: "mean", or "sum" over images and over voxels.
        smooth_nr, smooth_dr: keep an image without any foreground defined.
        batch: sum over the batch before the division in the Dice loss.
        weight: of positive voxels in the cross-entropy.
        lambda_dice, lambda_ce: weights of the two parts.
        include_background, to_onehot_y: nothing follows from them for one channel, as in MONAI.
        softmax, other_act, squared_pred, label_smoothing: hold MONAI's places; only their defaults
            are taken, and the error for anything else says what works.
        group: with ``batch``, over the batches of all its processes.
    """

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Callable[[Tensor], Tensor] | None = None,
        squared_pred: bool = False,
        jaccard: bool = False,
        reduction: Literal["mean", "sum"] = "mean",
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        batch: bool = False,
        weight: Sequence[float] | float | Tensor | None = None,
        lambda_dice: float = 1.0,
        lambda_ce: float = 1.0,
        label_smoothing: float = 0.0,
        *,
        group: "dist.ProcessGroup | None" = None,
    ) -> None:
        refuse(
            self,
            _MONAI_ONLY,
            softmax=softmax,
            other_act=other_act,
            squared_pred=squared_pred,
            label_smoothing=label_smoothing,
        )
        if not sigmoid:
            raise TypeError(
                "DiceCELoss needs sigmoid=True: both parts take logits here. Without it, MONAI's "
                "takes one input as probabilities for Dice and as logits for the cross-entropy"
            )
        super().__init__(
            alpha=1.0 if jaccard else 0.5,
            beta=1.0 if jaccard else 0.5,
            lambda_tversky=lambda_dice,
            lambda_ce=lambda_ce,
            pos_weight=None if weight is None else torch.as_tensor(weight).reshape(-1),
            reduction=reduction,
            # MONAI doubles numerator and denominator before it smooths them.
            smooth_nr=smooth_nr / 2,
            smooth_dr=smooth_dr / 2,
            batch=batch,
            group=group,
        )

    def forward(self, input: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """As :class:`TverskyBCELoss`, of one channel: (B, 1, *spatial)."""
        require_tensor("DiceCELoss", "input", input)
        if input.ndim >= 3 and input.shape[1] != 1:
            raise ValueError(f"DiceCELoss takes one channel, not {input.shape[1]}: {_SOFTMAX}")
        return super().forward(input, target, mask)
