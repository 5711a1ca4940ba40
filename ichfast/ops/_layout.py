"""The memory layout of native results, for the fake kernels: the twin of csrc/common/layout.h."""

import torch
from torch import Tensor


def empty_gradient(like: Tensor) -> Tensor:
    """What the native kernels allocate for a gradient of ``like``.

    The order of the argument's strides where its spatial dimensions fold into one (contiguous,
    channels-last, channel slices), contiguous where the kernel had to copy it first.
    """
    if _folds(like):
        result = torch.empty_like(like)
        if _folds(result):
            return result
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def _folds(tensor: Tensor) -> bool:
    expected = None
    for size, stride in zip(reversed(tensor.shape[2:]), reversed(tensor.stride()[2:]), strict=True):
        if size < 2:
            continue
        if expected is not None and stride != expected:
            return False
        expected = stride * size
    return True
