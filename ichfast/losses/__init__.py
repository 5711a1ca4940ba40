"""Losses as modules, over the fused ops of :mod:`ichfast.ops`.

``DiceLoss``, ``JaccardLoss``, ``TverskyLoss`` and ``DiceCELoss`` take MONAI's arguments in MONAI's
order and give its numbers (MONAI's ``DiceLoss(jaccard=True)`` is ``JaccardLoss``), so a training
script can swap the import. Arguments of MONAI that they do not have raise a TypeError that says
what works.
"""

from ichfast.losses.attention import AttentionWMSELoss
from ichfast.losses.compound import DiceCELoss, TverskyBCELoss
from ichfast.losses.overlap import DiceLoss, JaccardLoss, TverskyLoss

__all__ = [
    "AttentionWMSELoss",
    "DiceCELoss",
    "DiceLoss",
    "JaccardLoss",
    "TverskyBCELoss",
    "TverskyLoss",
]
