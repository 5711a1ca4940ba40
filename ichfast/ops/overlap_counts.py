"""TP, FP and FN in one pass: all that Dice, Jaccard, sensitivity and precision need."""

import torch
from torch import Tensor

from ichfast.ops._checks import require_pair

__all__ = ["overlap_counts"]


def overlap_counts(prediction: Tensor, target: Tensor, threshold: float = 0.5) -> Tensor:
    """True positive, false positive and false negative voxels per image and channel.

    Args:
        prediction: (B, C, *spatial), floating; positive where it exceeds ``threshold``. For logits
            the threshold ½ of the mask is 0.
        target: the same shape, bool, uint8 or floating; positive where > 0.

    Returns:
        (B, C, 3) int64: TP, FP, FN; all three −1 where a voxel of the prediction or of a floating
        target is NaN, so that a broken network cannot pass for one that finds nothing.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit.
    """
    require_pair("overlap_counts", "prediction", prediction, target)
    counts: Tensor = torch.ops.ichfast.overlap_counts(
        prediction.detach(), target.detach(), threshold
    )
    return counts


@torch.library.register_fake("ichfast::overlap_counts")
def _(prediction: Tensor, target: Tensor, threshold: float) -> Tensor:
    return prediction.new_empty((*prediction.shape[:2], 3), dtype=torch.int64)
