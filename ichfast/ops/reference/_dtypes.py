"""In which dtype the plain forms compute."""

import torch
from torch import Tensor


def widen(*tensors: Tensor) -> list[Tensor]:
    """In their common dtype, at least float32: a sum of float16 overflows at 65504."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in tensors]
