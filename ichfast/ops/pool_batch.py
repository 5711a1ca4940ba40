"""From the resident pool to an augmented training batch in one pass."""

import torch
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

__all__ = ["augmentation", "pool_batch"]

MOST_SIDE = 2**24
"""of a slice and of the result, in pixels"""


def pool_batch(
    pool: TensorOrArray,
    indices: TensorOrArray,
    theta: TensorOrArray,
    windows: TensorOrArray,
    *,
    masks: TensorOrArray | None = None,
    slope: TensorOrArray | None = None,
    intercept: TensorOrArray | None = None,
    size: tuple[int, int] | None = None,
    function: str = "linear",
    dtype: torch.dtype = torch.float32,
) -> tuple[TensorOrArray, TensorOrArray | None]:
    """Slices of the pool, each under its own affine map and its own window.

    For each output pixel: the point of the slice that ``theta`` maps it to; the four pixels around
    it, HU = stored·slope + intercept clipped to [−1024, 3071] each, interpolated bilinearly, air
    (−1000 HU) outside; then windowed to [0, 1]. A mask follows the same map to the nearest pixel,
    0 outside. Nothing is drawn at random here: :func:`augmentation` makes ``theta`` from numbers.

    Args:
        pool: (N, H, W) int16, contiguous, H and W at least 2.
        indices: (B,) int64 into the pool; a slice may come several times.
        theta: (B, 2, 3), as :func:`torch.nn.functional.affine_grid` takes it with
            ``align_corners=False``; the identity leaves a slice as it is.
        windows: (B, K, 2), level and width in HU of each output channel.
        masks: (N, H, W) uint8 or bool, contiguous; not 0 is foreground.
        slope, intercept: (B,), rescale to HU; 1 and 0 where left out, for a pool of HU.
        size: (H', W') of the output; the pool's where left out.
        function: "linear" (DICOM's default), "linear_exact" or "sigmoid".
        dtype: of the images: float32, float16, bfloat16 or float64.

    All on one device, and none with a gradient. Tensors, or arrays of NumPy or CuPy, which are read
    where they lie; where ``pool`` is an array, the results are arrays of the same library.

    Positions are float32, right to 2⁻²² of the slice's side; beside ``grid_sample`` in float64 that
    is the largest difference.

    Returns:
        images (B, K, H', W'), and masks (B, 1, H', W') uint8, 0 or 1, or None where none are given.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit.
        RuntimeError: on the CPU, an index outside the pool or a bad window. On CUDA, where looking
            would stall the stream, such an image is NaN and such a mask 0.
    """
    library = library_of(pool)
    require_array_dtype("pool_batch", library, dtype)
    given = {"masks": masks, "slope": slope, "intercept": intercept}
    images, batch_masks = _pool_batch(
        to_tensor("pool_batch", "pool", pool),
        to_tensor("pool_batch", "indices", indices),
        to_tensor("pool_batch", "theta", theta),
        to_tensor("pool_batch", "windows", windows),
        **{n: None if x is None else to_tensor("pool_batch", n, x) for n, x in given.items()},
        size=size,
        function=function,
        dtype=dtype,
    )
    return (
        to_library(images, library),
        None if batch_masks is None else to_library(batch_masks, library),
    )


def _pool_batch(
    pool: Tensor,
    indices: Tensor,
    theta: Tensor,
    windows: Tensor,
    *,
    masks: Tensor | None,
    slope: Tensor | None,
    intercept: Tensor | None,
    size: tuple[int, int] | None,
    function: str,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None]:
    tensors = {"pool": pool, "indices": indices, "theta": theta, "windows": windows}
    optional = {"slope": slope, "intercept": intercept, "masks": masks}
    tensors |= {name: tensor for name, tensor in optional.items() if tensor is not None}
    for name, tensor in tensors.items():
        require_tensor("pool_batch", name, tensor)
        if tensor.is_complex():
            raise TypeError(f"pool_batch: {name} must be real, not {tensor.dtype}")
    _require_dtypes(pool, indices, masks)
    if dtype not in FLOATING:
        raise TypeError(f"pool_batch: dtype must be a floating one, not {dtype}")
    require_one_device("pool_batch", **tensors)
    require_no_grad("pool_batch", **tensors)
    _require_shapes(pool, indices, theta, windows, slope, intercept, masks)
    if size is None:
        size = (pool.shape[1], pool.shape[2])
    require_size("pool_batch", size)
    if max(*pool.shape[1:], *size) > MOST_SIDE:
        raise ValueError(
            f"pool_batch: a side may have {MOST_SIDE} pixels, beyond which float32 has not every "
            f"position; the pool is {tuple(pool.shape)} and size {tuple(size)}"
        )
    require_function("pool_batch", function)
    images, batch_masks = torch.ops.ichfast.pool_batch(
        pool, masks, indices, theta, slope, intercept, windows, size, function, dtype
    )
    return images, None if masks is None else batch_masks


def augmentation(
    flip: Tensor, angle: Tensor, scale: Tensor, shift: Tensor, aspect: float = 1.0
) -> Tensor:
    """``theta`` for :func:`pool_batch`: mirrored left to right, turned, scaled, then shifted.

    Args:
        flip: (B,) bool.
        angle: (B,) radians; positive turns the image counter-clockwise as it is seen.
        scale: (B,) above 0; 2 shows everything twice as large.
        shift: (B, 2), right and down, in widths and heights of the image.
        aspect: width / height in mm of a slice that is not square, so that turning keeps shapes.

    Returns:
        (B, 2, 3) float32: the map from output to input coordinates, so the inverse of the above.
    """
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    mirrored = torch.where(flip, -1.0, 1.0)
    rows = [
        torch.stack([mirrored * cos, mirrored * -sin / aspect], 1),
        torch.stack([sin * aspect, cos], 1),
    ]
    linear = torch.stack(rows, 1)
    # Normalised coordinates span 2 over the image.
    offset = linear @ (-2.0 * shift).unsqueeze(2)
    return torch.cat([linear, offset], 2).float()


def _require_dtypes(pool: Tensor, indices: Tensor, masks: Tensor | None) -> None:
    if pool.dtype != torch.int16:
        raise TypeError(f"pool_batch: pool must be int16, not {pool.dtype}")
    if indices.dtype != torch.int64:
        raise TypeError(f"pool_batch: indices must be int64, not {indices.dtype}")
    if masks is not None and masks.dtype not in (torch.uint8, torch.bool):
        raise TypeError(f"pool_batch: masks must be uint8 or bool, not {masks.dtype}")


def _require_shapes(
    pool: Tensor,
    indices: Tensor,
    theta: Tensor,
    windows: Tensor,
    slope: Tensor | None,
    intercept: Tensor | None,
    masks: Tensor | None,
) -> None:
    if pool.ndim != 3 or min(pool.shape[1:]) < 2 or pool.shape[1] * pool.shape[2] >= 2**31:
        raise ValueError(
            "pool_batch: pool must be (N, H, W) with H and W at least 2 and fewer than 2^31 "
            f"pixels, not {tuple(pool.shape)}"
        )
    for name, tensor in {"pool": pool, "masks": masks}.items():
        if tensor is not None and not tensor.is_contiguous():
            raise ValueError(f"pool_batch: {name} must be contiguous; pass {name}.contiguous()")
    if masks is not None and masks.shape != pool.shape:
        raise ValueError(
            f"pool_batch: masks must have the pool's shape {tuple(pool.shape)}, "
            f"not {tuple(masks.shape)}"
        )
    batch = indices.shape[0] if indices.ndim == 1 else -1
    if batch < 0:
        raise ValueError(f"pool_batch: indices must be (B,), not {tuple(indices.shape)}")
    if theta.shape != (batch, 2, 3):
        raise ValueError(f"pool_batch: theta must be ({batch}, 2, 3), not {tuple(theta.shape)}")
    if windows.ndim != 3 or windows.shape[0] != batch or windows.shape[2] != 2:
        raise ValueError(
            f"pool_batch: windows must be ({batch}, K, 2), level and width, "
            f"not {tuple(windows.shape)}"
        )
    for name, tensor in {"slope": slope, "intercept": intercept}.items():
        if tensor is not None and tensor.shape != (batch,):
            raise ValueError(
                f"pool_batch: {name} must be ({batch},), one per sample, not {tuple(tensor.shape)}"
            )


@torch.library.register_fake("ichfast::pool_batch")
def _(
    pool: Tensor,
    masks: Tensor | None,
    indices: Tensor,
    theta: Tensor,
    slope: Tensor | None,
    intercept: Tensor | None,
    windows: Tensor,
    size: list[int],
    function: str,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    batch = indices.shape[0]
    images = pool.new_empty((batch, windows.shape[1], *size), dtype=dtype)
    shape = (0,) if masks is None else (batch, 1, *size)
    return images, pool.new_empty(shape, dtype=torch.uint8)
