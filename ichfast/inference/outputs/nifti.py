"""Masks as NIfTI: on the source's own grid, and on a regular one where the source's is not."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ichfast.data.grid import SAME_POSITION_MM, TO_RAS, Form, Grid
from ichfast.data.series import Series
from ichfast.data.slabs import find_edges
from ichfast.errors import DataError
from ichfast.files import replace_whole, report_errors

FIX = "Free space or choose another folder with --out."
FINEST_MM = 0.5  # of a regular grid, unless the source's own step is finer
SLAB_ERROR = 0.01  # of a slab's thickness on the regular grid


def write_mask(path: Path, series: Series, mask: np.ndarray) -> None:
    """The mask, (n, H, W) bool, as uint8 on the grid of the series: of DICOM, the axes and header
    of dcm2niix; of NIfTI, the file's own; of pictures, which do not say where they lie, columns,
    rows from the first to the last and slices, in a header that leaves units and place unknown.

    Raises WriteError where the file cannot be written. What was there before stays.
    """
    if series.grid is None:
        _save(path, _make_image(mask.transpose(2, 1, 0), None))
    else:
        grid = series.grid
        _write(path, grid.to_nifti(mask), grid.affine, *grid.forms)


def write_regular(path: Path, series: Series, mask: np.ndarray) -> None:
    """The mask, (n, H, W) bool, as uint8 on a rectangular grid of even steps, which any reader gets
    right: for series whose own grid is not one (`Grid.is_regular`).

    Raises:
        DataError: the files of the series do not say where they lie.
        WriteError: as `write_mask`.
    """
    voxels, affine = make_regular(_require_grid(series), mask)
    _write(path, voxels, affine, (affine, 1), (affine, 1))


def make_regular(grid: Grid, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mask on a grid without shear: (columns, rows from the last to the first, slices), as
    dcm2niix has them, and the affine to RAS mm.

    Each of the slices, which lie at even steps along the normal, is the one in whose slab it lies,
    moved in its plane by whole pixels: so areas are kept, and the volume to `SLAB_ERROR` where
    `_choose_step` finds such a step.
    """
    positions = grid.origins @ grid.normal
    edges = find_edges(positions, grid.thickness or 1.0)
    assert edges is not None
    step = _choose_step(positions, edges)
    bounds = _count_below(edges, step)
    shifts = np.rint(grid.measure_shifts()).astype(int)
    first = shifts.min(axis=0)
    rows, columns = grid.size + np.ptp(shifts, axis=0)
    regular = np.zeros((bounds[-1], rows, columns), bool)
    for i, (down, across) in enumerate(shifts - first):
        inside = regular[bounds[i] : bounds[i + 1], down:, across:]
        inside[:, : grid.size[0], : grid.size[1]] = mask[i]

    up = step * grid.normal
    corner = grid.origins[0] + (edges[0] + step / 2 - positions[0]) * grid.normal
    corner += (first[0] + rows - 1) * grid.down + first[1] * grid.across
    affine = np.eye(4)
    affine[:3] = (TO_RAS * [grid.across, -grid.down, up, corner]).T
    return regular[:, ::-1].transpose(2, 1, 0), affine


def _choose_step(positions: np.ndarray, edges: np.ndarray) -> float:
    """mm: the median step of the series or a fraction of it, down to `FINEST_MM`: the largest with
    which every slab has its thickness to `SLAB_ERROR`, or else the one that is nearest to that.
    """
    slabs = np.diff(edges)
    steps = np.diff(positions)
    steps = steps[steps >= SAME_POSITION_MM]
    median = float(np.quantile(steps, 0.5, method="lower")) if len(steps) else edges[-1] - edges[0]
    best, least = median, np.inf
    for part in range(1, max(int(median / FINEST_MM), 1) + 1):
        step = median / part
        error = np.abs(np.diff(_count_below(edges, step)) * step / slabs - 1).max()
        if error <= SLAB_ERROR:
            return step
        if error < least:
            best, least = step, error
    return best


def _count_below(edges: np.ndarray, step: float) -> np.ndarray:
    """(n + 1,) how many of the regular slices lie below each edge: the first one's middle is half a
    step above the first edge.
    """
    # An edge that falls on a middle but for rounding counts it in, wherever it lies.
    counts: np.ndarray = np.floor((edges - edges[0]) / step + 0.5 + 1e-6).astype(int)
    return counts


def _require_grid(series: Series) -> Grid:
    if series.grid is None:
        raise DataError(
            f"{series.sources[0]}: its files do not say where they lie in the patient, which NIfTI "
            "has to; convert DICOM or NIfTI of the same scan"
        )
    return series.grid


def _write(path: Path, voxels: np.ndarray, affine: np.ndarray, sform: Form, qform: Form) -> None:
    image = _make_image(voxels, affine)
    image.set_qform(*qform)
    image.set_sform(*sform)
    image.header.set_xyzt_units("mm")
    _save(path, image)


def _make_image(voxels: np.ndarray, affine: np.ndarray | None) -> Any:
    return nib.Nifti1Image(voxels.view(np.uint8), affine)  # type: ignore[no-untyped-call]


def _save(path: Path, image: Any) -> None:
    with report_errors(path, FIX), replace_whole(path, lasting=False) as partial:
        nib.save(image, partial)
