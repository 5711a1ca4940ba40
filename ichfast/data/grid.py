"""Where a series' voxels lie in the patient, and the way back to how its files hold them."""

from dataclasses import dataclass

import numpy as np

TO_RAS = np.array([-1.0, -1.0, 1.0])  # DICOM's axes point to the left and back, NIfTI's otherwise
SAME_POSITION_MM = 0.01
SPACING_MM = 0.1  # between steps that count as even

Order = tuple[tuple[int, ...], tuple[bool, ...]]
"""axes and flips: axis k is the upright volume's axis axes[k], and runs against it if flips[k]"""
Form = tuple[np.ndarray | None, int]
"""a matrix from voxels to RAS mm in a NIfTI header, and its code; None with the code 0"""


@dataclass(frozen=True, eq=False)
class Grid:
    """All vectors in DICOM's LPS mm. The centre of the upright voxel (i, row, column) is
    origins[i] + row·down + column·across.
    """

    origins: np.ndarray  # (n, 3)
    down: np.ndarray  # (3,) from a row to the next
    across: np.ndarray  # (3,) from a column to the next
    size: tuple[int, int]  # rows and columns of the upright slice
    order: Order  # of the files' own axes: DICOM slices, rows, columns; NIfTI as in the file
    thickness: float | None = None  # mm, as the files say; for a series of one slice
    file_forms: tuple[np.ndarray, Form, Form] | None = None  # NIfTI: affine in use, sform, qform

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.origins), *self.size

    @property
    def normal(self) -> np.ndarray:
        """(3,) of length 1, towards the head."""
        normal = np.cross(self.across, self.down)
        normal /= np.linalg.norm(normal)
        return normal

    def restore(self, volume: np.ndarray) -> np.ndarray:
        """(n, H, W) upright -> a view as the files hold it: of DICOM (n, rows, columns), the slices
        still inferior -> superior; of NIfTI the file's own axes.
        """
        return self._reorder(volume, self.order)

    def to_nifti(self, volume: np.ndarray) -> np.ndarray:
        """(n, H, W) upright -> a view with the axes of `affine`: of NIfTI the file's own, of DICOM
        those of dcm2niix (columns, rows from the last to the first, slices along the cross product
        of ImageOrientationPatient).
        """
        return self._reorder(volume, self._find_nifti_order())

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) from the voxels of `to_nifti` to RAS mm. Of DICOM it is dcm2niix's, which is true
        for even spacing without tilt: docs/geometry.md.
        """
        if self.file_forms is not None:
            return self.file_forms[0]
        axes, flips = self._find_nifti_order()
        towards_feet = flips[axes.index(0)]
        steps = np.stack([self._find_step(towards_feet), self.down, self.across])
        corner = self.origins[-1 if towards_feet else 0]
        affine = np.eye(4)
        for k, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
            affine[:3, k] = TO_RAS * (-steps[axis] if flip else steps[axis])
            if flip and axis:
                corner = corner + (self.shape[axis] - 1) * steps[axis]
        affine[:3, 3] = TO_RAS * corner
        return affine

    @property
    def forms(self) -> tuple[Form, Form]:
        """The sform and the qform of a NIfTI file on this grid. A qform has no shear: that of
        DICOM stacks the slices along their normal.
        """
        if self.file_forms is not None:
            return self.file_forms[1:]
        affine = self.affine
        straight = affine.copy()
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        normal *= np.sign(normal @ affine[:3, 2]) / np.linalg.norm(normal)
        straight[:3, 2] = np.linalg.norm(affine[:3, 2]) * normal
        return (affine, 1), (straight, 1)

    def is_regular(self) -> bool:
        """Whether the slices lie at even distances and exactly above each other, so that one
        rectangular grid holds them: to `SPACING_MM`, and to half a pixel from first to last.
        """
        steps = np.diff(self.origins @ self.normal)
        if len(steps) and (np.ptp(steps) > SPACING_MM or steps.min() < SAME_POSITION_MM):
            return False
        return bool((np.abs(self.measure_shifts()) <= 0.5).all())

    def measure_shifts(self) -> np.ndarray:
        """(n, 2) pixels down and across by which each slice lies off the first one's normal."""
        offsets = self.origins - self.origins[0]
        edges = np.stack([self.down, self.across], axis=1)
        # The normal is perpendicular to both edges, so it has no part in the least squares.
        shifts: np.ndarray = np.linalg.lstsq(edges, offsets.T, rcond=None)[0].T
        return shifts

    def _reorder(self, volume: np.ndarray, order: Order) -> np.ndarray:
        if volume.shape != self.shape:
            raise ValueError(f"volume has the shape {volume.shape}, its series {self.shape}")
        axes, flips = order
        return volume.transpose(axes)[tuple(slice(None, None, -1 if f else 1) for f in flips)]

    def _find_nifti_order(self) -> Order:
        if self.file_forms is not None:
            return self.order
        (_, rows, columns), (_, flip_rows, flip_columns) = self.order
        # Upright slices have across × down towards the head; a transposition turns it over, and so
        # does a flip.
        towards_feet = (rows > columns) ^ flip_rows ^ flip_columns
        return (columns, rows, 0), (flip_columns, not flip_rows, towards_feet)

    def _find_step(self, towards_feet: bool) -> np.ndarray:
        """(3,) from a slice to the next one, as dcm2niix has it: in the direction from the first to
        the last, and as long as the first of the distances along the normal.
        """
        positions = self.origins @ self.normal
        steps = np.diff(positions)
        steps = steps[steps >= SAME_POSITION_MM]
        if not len(steps):
            step, length = self.normal, self.thickness or 1.0
        else:
            step, length = self.origins[-1] - self.origins[0], steps[-1 if towards_feet else 0]
        step *= length / np.linalg.norm(step)
        return step
