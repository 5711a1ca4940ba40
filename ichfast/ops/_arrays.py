"""NumPy and CuPy arrays in and out of the ops, over the same memory."""

import sys
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

# CuPy publishes no types: its arrays are Any to a type checker, and fit.
TensorOrArray = TypeVar("TensorOrArray", Tensor, NDArray[Any])

# Type codes of bool, integers up to 64 bits, and floating and complex numbers of up to two doubles.
TYPE_CODES = "?bBhHiIlLqQefdFD"


def library_of(value: object) -> ModuleType | None:
    """numpy or cupy where ``value`` is an array of theirs.

    CuPy is not imported for that: where it was not yet, nobody has an array of it.
    """
    if isinstance(value, Tensor):  # and nothing else to trace for torch.compile
        return None
    for name in ("numpy", "cupy"):
        library = sys.modules.get(name)
        if library is not None and isinstance(value, library.ndarray):
            return library
    return None


def require_array_dtype(op: str, library: ModuleType | None, dtype: torch.dtype) -> None:
    """A result of ``dtype`` can be an array of ``library``; any can be a tensor."""
    if library is not None and dtype == torch.bfloat16:
        raise TypeError(
            f"{op}: no array of {library.__name__} holds bfloat16; ask for dtype=torch.float16 or "
            "torch.float32, or pass tensors"
        )


def to_tensor(op: str, name: str, value: Any) -> Tensor:
    """A tensor as it is; an array as a tensor over its memory, which is not to be written to.

    Raises:
        TypeError, ValueError: neither of them, or an array such that no tensor has its mask, dtype,
            byte order, strides or alignment.
    """
    if isinstance(value, Tensor):
        return value
    library = library_of(value)
    if library is None:
        raise TypeError(
            f"{op}: {name} must be a torch.Tensor or an array of NumPy or CuPy, "
            f"not {type(value).__name__}"
        )
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{op}: {name} is a masked array, and its mask would be lost; pass {name}.filled(...)"
        )
    if value.dtype.char not in TYPE_CODES:
        raise TypeError(
            f"{op}: {name} has dtype {value.dtype}, which no tensor has; "
            f"convert it with {name}.astype(...)"
        )
    # from_dlpack ends the process at a negative stride, so this is not left to torch to find.
    if any(stride < 0 or stride % value.itemsize for stride in value.strides):
        raise ValueError(
            f"{op}: {name} has strides of {value.strides} bytes, which no tensor has; "
            f"pass {name}.copy()"
        )
    if library is not np:
        return from_dlpack(value)  # orders torch's stream behind the array's own
    if not value.flags.aligned:
        raise ValueError(f"{op}: {name} is not aligned to its elements; pass {name}.copy()")
    if not value.dtype.isnative:
        raise ValueError(
            f"{op}: {name} has dtype {value.dtype.str}, which is not this machine's byte order; "
            f"pass {name}.astype({name}.dtype.newbyteorder('='))"
        )
    return torch.from_numpy(value if value.flags.writeable else np.asarray(_Memory(value)))


def to_library(tensor: Tensor, library: ModuleType | None) -> Any:
    """The tensor as an array of ``library`` over its memory; itself where that is None."""
    if library is None:
        return tensor
    return tensor.numpy() if library is np else library.from_dlpack(tensor)


class _Memory:
    """The memory of a read-only array (a memory map, a frozen buffer), said to be writable.

    Torch would warn of it; to filter the warning would reach into every thread.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array  # keeps it alive
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}
