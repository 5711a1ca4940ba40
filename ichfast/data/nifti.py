"""A NIfTI scan in HU and the mask that lies on it, turned upright by the affine."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ichfast.data import quirks
from ichfast.data.grid import Form, Grid
from ichfast.data.limits import check_nifti
from ichfast.data.problems import Refused, refuse_failures, silence
from ichfast.data.series import Series
from ichfast.data.stacks import MIN_AXIAL, measure_tilt

orientations: Any = nib.orientations  # has no types
# Axes of a Series: slices towards the head, rows to the back, columns to the patient's left.
UPRIGHT = orientations.axcodes2ornt(("S", "P", "L"))


def read_nifti(
    path: Path, mask_path: Path | None, source: str, name: str, *, slices_last: bool = False
) -> tuple[Series, np.ndarray | None]:
    """The scan, still without a mask, and the scaled values of its mask in the same orientation.

    `slices_last` refuses a file whose last axis is not the one between foot and head. Sources count
    slices from 1 along that axis, as the file has them.
    """
    scan = _load(path, "scan")
    affine = np.asarray(scan.affine, dtype=float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise Refused("the scan's affine is singular, so its orientation is unknown")
    mask = None
    if mask_path is not None:
        mask, of_mask = _load_mask(mask_path, scan, affine)
    turn = orientations.ornt_transform(orientations.io_orientation(affine), UPRIGHT)
    up, rows, across = (int(np.flatnonzero(turn[:, 0] == axis)[0]) for axis in range(3))
    if slices_last and up != 2:
        raise Refused("the last axis is not the one from foot to head")

    stored = _to_stored(_read_voxels(scan, "scan", scaled=False))
    slope, intercept = scan.dataobj.slope, scan.dataobj.inter
    low, high = sorted(float(stored.take(i)) * slope + intercept for i in _find_extremes(stored))
    if low < quirks.POSSIBLE_HU[0] or high > quirks.POSSIBLE_HU[1]:
        raise Refused(f"not in HU: values from {low:.4g} to {high:.4g}, as no scanner makes them")
    values = None
    if mask is not None:
        own = _read_voxels(mask, "mask", scaled=True)
        values = orientations.apply_orientation(own, of_mask)

    n = scan.shape[up]
    columns = affine[:3, :3] * [[-1], [-1], [1]]  # RAS to DICOM's LPS
    spacing = np.linalg.norm(columns, axis=0)
    normal = np.cross(columns[:, rows], columns[:, across])
    normal *= np.sign(normal[2]) / np.linalg.norm(normal)
    if not normal[2] >= MIN_AXIAL:
        raise Refused("not axial slices")
    origin = affine[:3, 3] * [-1, -1, 1]
    positions = normal @ (origin[:, None] + columns[:, [up]] * np.arange(n))
    order = np.arange(n)[:: int(turn[up, 1])]
    grid = _make_grid(scan, affine, turn)
    series = Series(
        stored=np.ascontiguousarray(orientations.apply_orientation(stored, turn)),
        slope=np.full(n, slope, dtype=float),
        intercept=np.full(n, intercept, dtype=float),
        padding=None,
        mask=None,
        patient=name,
        study=name,
        series=name,
        positions=positions[order],
        spacing=(float(spacing[rows]), float(spacing[across])),
        tilt=measure_tilt(normal.tolist()),
        sources=tuple(f"{source}#{i + 1}" for i in order),
        grid=grid,
    )
    if values is not None:
        values = np.ascontiguousarray(orientations.apply_orientation(values, turn))
    return replace(series, quirks=quirks.detect(series)), values


def _make_grid(scan: Any, affine: np.ndarray, turn: np.ndarray) -> Grid:
    """`turn` takes the file's axes to the upright ones, as nibabel's orientations have it."""
    axes, flips = turn[:, 0].astype(int).tolist(), (turn[:, 1] < 0).tolist()
    edges = affine[:3, :3] * [[-1], [-1], [1]]  # RAS to DICOM's LPS
    corner = affine[:3, 3] * [-1, -1, 1]
    for k in range(3):
        if flips[k]:
            corner, edges[:, k] = corner + (scan.shape[k] - 1) * edges[:, k], -edges[:, k]
    up, down, across = (edges[:, axes.index(axis)] for axis in range(3))
    n, *size = (scan.shape[axes.index(axis)] for axis in range(3))
    return Grid(
        origins=corner + np.arange(n)[:, None] * up,
        down=down,
        across=across,
        size=(size[0], size[1]),
        order=(tuple(axes), tuple(flips)),
        thickness=float(np.linalg.norm(up)),
        file_forms=(affine, _get_form(scan.header.get_sform), _get_form(scan.header.get_qform)),
    )


def _get_form(get: Any) -> Form:
    """None for a qform that is no rotation: readers take the sform then."""
    try:
        matrix, code = get(coded=True)
    except ValueError:
        return None, 0
    return matrix, int(code)


def _load(path: Path, what: str, most: int | None = None) -> Any:
    with refuse_failures(f"the {what} is not a readable NIfTI file"), silence("nibabel.global"):
        check_nifti(path, most)
        image: Any = nib.load(path)
    shape = image.shape
    if len(shape) < 3 or 0 in shape or any(n != 1 for n in shape[3:]):
        raise Refused(f"the {what} is not one volume of three axes: its sizes are {shape}")
    return image


def _load_mask(path: Path, scan: Any, affine: np.ndarray) -> tuple[Any, np.ndarray]:
    """The mask, and how its axes turn into those of the scan."""
    mask = _load(path, "mask", 16 * math.prod(scan.shape))
    own = np.asarray(mask.affine, dtype=float)
    if not np.isfinite(own).all() or abs(np.linalg.det(own[:3, :3])) < 1e-9:
        raise Refused("scan and mask lie in different places: the mask's affine is singular")
    turn = orientations.ornt_transform(
        orientations.io_orientation(own), orientations.io_orientation(affine)
    )
    size, shape = scan.shape[:3], mask.shape[:3]
    turned = tuple(shape[axis] for axis in np.argsort(turn[:, 0]))
    if turned != size:
        raise Refused(f"sizes differ: scan {size}, mask {shape}")
    if not _are_aligned(affine, own @ orientations.inv_ornt_aff(turn, shape), size):
        raise Refused("scan and mask lie in different places: their affines differ")
    return mask, turn


def _are_aligned(scan: np.ndarray, mask: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether the corners agree to half a voxel, and so, the maps being affine, all voxels do."""
    corners = [[*corner, 1] for corner in np.ndindex(2, 2, 2)] * np.array([*shape, 1])
    shift = corners @ (np.linalg.solve(scan, mask) - np.eye(4)).T  # in voxels of the scan
    return bool((np.abs(shift) <= 0.5).all())  # False for a mask's affine that is not finite


def _read_voxels(image: Any, what: str, *, scaled: bool) -> np.ndarray:
    with refuse_failures(f"the {what} is damaged or truncated"):
        array: np.ndarray = np.asarray(
            image.get_fdata(dtype=np.float32) if scaled else image.dataobj.get_unscaled()
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise Refused(f"the {what} contains values that are not finite")
    return array.reshape(image.shape[:3])  # without axes of a single volume


def _to_stored(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.kind not in "iu":
        raise Refused(f"the scan's voxels are of type {array.dtype}")
    fits = array.min() >= -(2**15) and array.max() < 2**15
    return array.astype(np.int16 if fits else np.int32)


def _find_extremes(array: np.ndarray) -> tuple[int, int]:
    return int(array.argmin()), int(array.argmax())
