"""The memory layout of native results, for the fake kernels: ``foldable`` of csrc/common/layout.h."""

import torch
from torch import Tensor


def empty_foldable(like: Tensor) -> Tensor:
    """What the native kernels allocate for a gradient of ``like``.

    The strides of the argument where its spatial dimensions fold into one (contiguous,
    channels-last, channel slices), contiguous where the kernel had to copy it first.
    """
    expected = None
    for size, stride in zip(reversed(like.shape[2:]), reversed(like.stride()[2:]), strict=True):
        if size == 1:
            continue
        if expected is not None and stride != expected:
            return torch.empty_like(like, memory_format=torch.contiguous_format)
        expected = stride * size
    return torch.empty_like(like)
