"""From stored values to network input in one pass over the pixels."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ichfast.ops._arrays import (
    TensorOrArray,
    library_of,
    require_array_dtype,
    to_library,
    to_tensor,
)
from ichfast.ops._checks import (
    FLOATING,
    require_function,
    require_no_grad,
    require_one_device,
    require_size,
    require_tensor,
)

__all__ = ["ct_window"]

STORED = (
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.uint16,
    torch.int32,
    torch.int64,
    *FLOATING,
)


def ct_window(
    stored: TensorOrArray,
    slope: Tensor | NDArray[Any] | None,
    intercept: Tensor | NDArray[Any] | None,
    windows: Tensor | NDArray[Any],
    size: tuple[int, int],
    *,
    function: str = "linear",
    padding: float | None = None,
    invert: bool = False,
    dtype: torch.dtype = torch.float32,
) -> TensorOrArray:
    """Windowed images from stored values (DICOM PS3.3 C.11.1 and C.11.2).

    In this order: padding becomes air (−1000 HU); HU = stored·slope + intercept; clipped to
    [−1024, 3071] HU; averaged over the exact area that each output pixel covers; windowed to
    [0, 1]; inverted where asked.

    Arguments may be NumPy or CuPy arrays in place of tensors. They are read where they lie; where
    ``stored`` is one, so is the result, without a copy and ordered on the streams of both sides.

    Args:
        stored: (B, H, W), integer or floating. No gradient.
        slope, intercept: (B,), rescale of each image to HU; None is 1 and 0, for images of HU.
        windows: (K, 2), level and width in HU of each output channel; a width is at least 1 for
            "linear" and above 0 for the other functions.
        size: (H', W') of the output.
        function: "linear" (DICOM's default), "linear_exact" or "sigmoid".
        padding: the stored value that stands for "outside the field of view".
        invert: for MONOCHROME1.
        dtype: of the result: float32, float16, float64 or, for tensors, bfloat16.

    Returns:
        (B, K, H', W'), a tensor or an array as ``stored``.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, or an array is such that no
            tensor lies over its memory (masked, negative strides, foreign byte order).
        NotImplementedError: no kernels for the device.
        RuntimeError: on the CPU, a width is too small or a level not finite (found by the kernel,
            which is the first to look at it). On CUDA, where looking would stall the stream, the
            images of such a window are NaN.
    """
    library = library_of(stored)
    require_array_dtype("ct_window", library, dtype)
    images = _ct_window(
        to_tensor("ct_window", "stored", stored),
        None if slope is None else to_tensor("ct_window", "slope", slope),
        None if intercept is None else to_tensor("ct_window", "intercept", intercept),
        to_tensor("ct_window", "windows", windows),
        size,
        function,
        padding,
        invert,
        dtype,
    )
    result: TensorOrArray = to_library(images, library)
    return result


def _ct_window(
    stored: Tensor,
    slope: Tensor | None,
    intercept: Tensor | None,
    windows: Tensor,
    size: tuple[int, int],
    function: str,
    padding: float | None,
    invert: bool,
    dtype: torch.dtype,
) -> Tensor:
    optional = {"slope": slope, "intercept": intercept}
    rescale = {name: tensor for name, tensor in optional.items() if tensor is not None}
    tensors = {"stored": stored, **rescale, "windows": windows}
    for name, tensor in tensors.items():
        require_tensor("ct_window", name, tensor)
    if stored.dtype not in STORED:
        raise TypeError(f"ct_window: stored must be integer or floating, not {stored.dtype}")
    for name, tensor in tensors.items():
        if tensor.is_complex():
            raise TypeError(f"ct_window: {name} must be real, not {tensor.dtype}")
    if dtype not in FLOATING:
        raise TypeError(f"ct_window: dtype must be a floating one, not {dtype}")
    require_one_device("ct_window", **tensors)
    require_no_grad("ct_window", **tensors)
    if stored.ndim != 3 or 0 in stored.shape[1:]:
        raise ValueError(
            "ct_window: stored must be (B, H, W) with H and W at least 1, "
            f"not {tuple(stored.shape)}"
        )
    for name, tensor in rescale.items():
        if tensor.shape != stored.shape[:1]:
            raise ValueError(
                f"ct_window: {name} must be ({stored.shape[0]},), one per image, "
                f"not {tuple(tensor.shape)}"
            )
    if windows.ndim != 2 or windows.shape[1] != 2:
        raise ValueError(
            f"ct_window: windows must be (K, 2), level and width, not {tuple(windows.shape)}"
        )
    require_size("ct_window", size)
    require_function("ct_window", function)
    images: Tensor = torch.ops.ichfast.ct_window(
        stored, slope, intercept, windows, size, function, padding, invert, dtype
    )
    return images


@torch.library.register_fake("ichfast::ct_window")
def _(
    stored: Tensor,
    slope: Tensor | None,
    intercept: Tensor | None,
    windows: Tensor,
    size: list[int],
    function: str,
    padding: float | None,
    invert: bool,
    dtype: torch.dtype,
) -> Tensor:
    return stored.new_empty((stored.shape[0], windows.shape[0], *size), dtype=dtype)
