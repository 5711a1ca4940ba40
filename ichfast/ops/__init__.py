"""The ops: differentiable functions over fused native kernels.

:mod:`ichfast.ops.reference` has each of them in plain PyTorch.
"""

from ichfast.ops.attention_mask import attention_mask
from ichfast.ops.attention_wmse import attention_wmse
from ichfast.ops.ct_window import ct_window
from ichfast.ops.overlap_counts import overlap_counts
from ichfast.ops.pool_batch import augmentation, pool_batch
from ichfast.ops.tversky import tversky

__all__ = [
    "attention_mask",
    "attention_wmse",
    "augmentation",
    "ct_window",
    "overlap_counts",
    "pool_batch",
    "tversky",
]
