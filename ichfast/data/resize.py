"""A scan's slices at another size: one area average for images and masks, wherever they go."""

import numpy as np
import torch
from torch import Tensor

from ichfast.data.problems import Problems
from ichfast.data.series import Series
from ichfast.errors import DataError
from ichfast.ops.ct_window import ct_window

# From -1024 to 3072 HU, so wider than what `ct_window` clips to, and a power of two, so that
# windowing and undoing it are exact in float32.
_LOW, _WIDTH = -1024.0, 4096.0


def resize_hu(scan: Series, slices: np.ndarray, size: int) -> np.ndarray:
    """(k, S, S) int16: Hounsfield units of these slices, as `average_hu` makes them."""
    stored = _take_slices(scan.stored, slices)
    slope, intercept = (
        torch.from_numpy(numbers[slices]).float() for numbers in (scan.slope, scan.intercept)
    )
    hu: np.ndarray = average_hu(
        torch.from_numpy(stored), slope, intercept, (size, size), scan.padding
    ).numpy()
    return hu


def average_hu(
    stored: Tensor,
    slope: Tensor,
    intercept: Tensor,
    size: tuple[int, int],
    padding: float | None = None,
) -> Tensor:
    """(k, H', W') int16: Hounsfield units of the (k, H, W) stored values, as `ct_window` makes
    them (padding is air, clipped to -1024 ... 3071, averaged over each pixel's area), to the
    nearest integer. DataError where they are not finite.
    """
    share = ct_window(
        stored,
        slope,
        intercept,
        torch.tensor([[_LOW + _WIDTH / 2, _WIDTH]], device=stored.device),
        size,
        function="linear_exact",
        padding=padding,
    )[:, 0]
    # Integers rescaled by finite numbers stay finite; checking every pixel is slow.
    finite = not stored.is_floating_point() and (slope.isfinite() & intercept.isfinite()).all()
    if not finite and not share.isfinite().all():  # a rescale beyond float32
        raise DataError("its Hounsfield units are not finite")
    return share.mul_(_WIDTH).add_(_LOW).round_().to(torch.int16)


def _take_slices(stored: np.ndarray, slices: np.ndarray) -> np.ndarray:
    """These slices, without a copy where possible."""
    neighbours: np.ndarray = stored[slices[0] : slices[-1] + 1]
    if (np.diff(slices) == 1).all() and neighbours.flags.c_contiguous and stored.flags.writeable:
        return neighbours
    chosen: np.ndarray = stored[slices]
    return chosen


def resize_masks(scan: Series, size: int) -> Tensor:
    """(n, 1, S, S) uint8: at least half of the pixel's area is haemorrhage. The same area average
    as the images', with a window that leaves 0 ... 1 as it is.
    """
    if scan.mask is None:
        raise DataError(f"{scan.sources[0]}: no mask")
    area = ct_window(
        torch.from_numpy(scan.mask.astype(np.uint8)),
        None,
        None,
        torch.tensor([[0.5, 1.0]]),
        (size, size),
        function="linear_exact",
    )
    return (area > 0.5 - 1e-4).to(torch.uint8)  # a half stays a half whatever the rounding


def resize_spacing(scan: Series, size: int) -> tuple[float, float]:
    """mm between rows and between columns at this size; NaN where the scan has no spacing."""
    rows, columns = scan.stored.shape[1:]
    return scan.spacing[0] * rows / size, scan.spacing[1] * columns / size


def find_positive(scan: Series, masks: Tensor | None, problems: Problems) -> np.ndarray:
    """Indices of the slices with haemorrhage: by the masks at this size where they are given and
    known, else by the labels. None, and a problem, where there are neither.
    """
    if masks is None and scan.subtypes is None:
        problems.skip(scan.sources[0], "no labels, so its positive slices are not known")
    positive = np.zeros(len(scan), dtype=bool)
    if scan.subtypes is not None:
        positive |= scan.subtypes.any(1)
    if masks is not None:
        positive = np.where(scan.has_mask(), masks.flatten(1).any(1).numpy(), positive)
    return np.flatnonzero(positive)
