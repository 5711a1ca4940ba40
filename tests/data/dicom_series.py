"""CT series of a drawn head with a bleed of known volume, as complete DICOM files in the geometries
that scanners make: straight, tilted gantry, uneven spacing, both, and a scan without a bleed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from enhanced_files import enhanced as make_enhanced
from published import dicom as make_dicom
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid

GEOMETRIES = ("flat", "tilted", "uneven", "both", "negative")
TILT = 18.0  # degrees, nose up
# Semi-axes in mm of what is drawn, in LPS around the middle of the scan.
SKULL, BRAIN = (72.0, 92.0, 95.0), (65.0, 85.0, 88.0)
BLEED, BLEED_CENTRE = (18.0, 24.0, 16.0), (-25.0, -12.0, 0.0)  # on the right, in front
AIR_HU, SKULL_HU, BRAIN_HU, BLEED_HU = -1000, 900, 35, 65
INTERCEPT = -1024


@dataclass(frozen=True, eq=False)
class WrittenSeries:
    """What was written; n slices, inferior -> superior, in LPS mm."""

    root: Path
    sources: tuple[str, ...]  # n, as the series names them
    hu: np.ndarray  # (n, H, W) int16, upright
    mask: np.ndarray  # (n, H, W) bool, upright: voxels whose centre lies in the bleed
    volume_ml: float  # of the bleed, by its formula
    positions: np.ndarray  # (n,) along the slice normal
    origins: np.ndarray  # (n, 3) centre of voxel (i, 0, 0) of the upright series
    down: np.ndarray  # (3,) from a row to the next of the upright slice
    across: np.ndarray  # (3,) from a column to the next
    transpose: bool
    flip_rows: bool
    flip_columns: bool

    @property
    def files(self) -> tuple[Path, ...]:
        """n, of each slice; the same where it holds them all."""
        return tuple(self.root / source.partition("#")[0] for source in self.sources)

    def as_filed(self, upright: np.ndarray) -> np.ndarray:
        """(n, H, W) upright -> (n, rows, columns) of the files."""
        turned = upright[:, :: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]
        return turned.transpose(0, 2, 1) if self.transpose else turned


def write_ct_series(
    root: Path,
    geometry: str = "flat",
    *,
    shape: tuple[int, int] = (64, 64),
    spacing: tuple[float, float] = (3.5, 3.5),
    slices: int = 16,
    step: float = 5.0,
    missing: tuple[int, ...] = (),
    enhanced: bool = False,
    transpose: bool = False,
    flip_rows: bool = False,
    flip_columns: bool = False,
    descending: bool = False,
    patient: str = "head",
    **tags: Any,
) -> WrittenSeries:
    """One file per slice, `000.dcm` and on by instance number, or one for all, `series.dcm`.

    Args:
        geometry: One of `GEOMETRIES`; "negative" is flat.
        shape: H and W of the upright slice.
        spacing: mm between its rows and between its columns.
        slices: How many there are with those that are missing.
        step: mm along the long axis from a slice to the next; where uneven, half of it through the
            lower half of the slices, as many protocols have it.
        missing: Slices that are not written, counted from the inferior one.
        enhanced: One Enhanced CT, readable but without the acquisition details that its standard
            wants; highdicom.legacy makes a valid file of the single ones.
        transpose, flip_rows, flip_columns: How the files hold the upright slice: flipped, and then
            transposed.
        descending: Instance numbers run from the superior slice to the inferior one.
        patient: PatientID. UIDs follow from it and the geometry.
        tags: By keyword, replace those of every file; None leaves one out.
    """
    root.mkdir(parents=True, exist_ok=True)
    angle = np.radians(TILT if geometry in ("tilted", "both") else 0.0)
    down = np.array([0.0, np.cos(angle), -np.sin(angle)])
    across = np.array([1.0, 0.0, 0.0])
    normal = np.array([0.0, np.sin(angle), np.cos(angle)])
    heights = place_slices(slices, step, uneven=geometry in ("uneven", "both"))
    kept = [k for k in range(slices) if k not in missing]
    # The table moves along z, whatever the gantry's tilt.
    centre = (shape[0] - 1) / 2 * spacing[0] * down + (shape[1] - 1) / 2 * spacing[1] * across
    origins = np.array([0.0, 0.0, 1.0]) * heights[kept, None] - centre
    y, x = np.mgrid[: shape[0], : shape[1]]
    offsets = y[..., None] * spacing[0] * down + x[..., None] * spacing[1] * across
    hu, mask = draw(origins[:, None, None] + offsets, bleed=geometry != "negative")
    written = WrittenSeries(
        root=root,
        sources=tuple(
            f"series.dcm#{n}" if enhanced else f"{slices - 1 - k if descending else k:03}.dcm"
            for n, k in enumerate(kept, 1)
        ),
        hu=hu,
        mask=mask,
        volume_ml=(geometry != "negative") * 4 / 3 * np.pi * float(np.prod(BLEED)) / 1000,
        positions=origins @ normal,
        origins=origins,
        down=spacing[0] * down,
        across=spacing[1] * across,
        transpose=transpose,
        flip_rows=flip_rows,
        flip_columns=flip_columns,
    )
    row, column = (-across if flip_columns else across), (-down if flip_rows else down)
    last_row, last_column = (shape[0] - 1) * flip_rows, (shape[1] - 1) * flip_columns
    corners = origins + last_row * written.down + last_column * written.across
    shared = {
        "ImageOrientationPatient": _round((*column, *row) if transpose else (*row, *column)),
        "PixelSpacing": list(spacing[::-1] if transpose else spacing),
        "SliceThickness": step,
        "GantryDetectorTilt": round(float(np.degrees(angle)), 3),
        "RescaleIntercept": INTERCEPT,
        "RescaleSlope": 1,
        "RescaleType": "HU",
    }
    stored = written.as_filed(hu - INTERCEPT).astype(np.uint16)
    places = [{"ImagePositionPatient": _round(corner)} for corner in corners]
    if enhanced:
        about = {**describe_ct(patient, geometry, 1), **tags}
        dataset = make_enhanced(stored, corners[:, 2], shared=shared, frames=places, **about)
        _save(dataset, root / "series.dcm")
        return written
    for pixels, source, place, k in zip(stored, written.sources, places, kept, strict=True):
        number = slices - k if descending else k + 1
        about = {**describe_ct(patient, geometry, number), **shared, **place, **tags}
        _save(make_dicom(pixels, **about), root / source)
    return written


def _save(dataset: FileDataset, path: Path) -> None:
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)


def _round(vector: Iterable[float]) -> list[float]:
    return [round(float(value), 9) for value in vector]


def place_slices(slices: int, step: float, *, uneven: bool) -> np.ndarray:
    """(slices,) mm along the long axis, their middle at 0."""
    steps = np.full(slices - 1, step)
    if uneven:
        steps[: slices // 2] /= 2
    heights = np.concatenate([[0.0], np.cumsum(steps)])
    return heights - heights[-1] / 2


def draw(points: np.ndarray, *, bleed: bool) -> tuple[np.ndarray, np.ndarray]:
    """HU and mask at (..., 3) LPS mm."""

    def within(axes: tuple[float, ...], centre: tuple[float, ...] = (0.0, 0.0, 0.0)) -> Any:
        return (((points - centre) / axes) ** 2).sum(-1) < 1

    hu = np.full(points.shape[:-1], AIR_HU, np.int16)
    hu[within(SKULL)] = SKULL_HU
    hu[within(BRAIN)] = BRAIN_HU
    mask = within(BLEED, BLEED_CENTRE) & bleed
    hu[mask] = BLEED_HU
    return hu, mask


def describe_ct(patient: str, series: str, number: int) -> dict[str, Any]:
    """What the modules of a CT image (PS3.3 A.3) require beside pixels and place, by keyword."""

    def uid(part: object) -> str:
        return generate_uid(entropy_srcs=["ichfast", patient, series, str(part)])

    return {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPInstanceUID": uid(number),
        "StudyDate": "20240102",
        "SeriesDate": "20240102",
        "AcquisitionDate": "20240102",
        "ContentDate": "20240102",
        "StudyTime": "101112",
        "SeriesTime": "101112",
        "AcquisitionTime": "101112",
        "ContentTime": "101112",
        "AccessionNumber": "A1",
        "Manufacturer": "Drawn",
        "ReferringPhysicianName": "",
        "StudyDescription": "Head",
        "SeriesDescription": series,
        "ManufacturerModelName": "Head",
        "PatientName": "Drawn^Head",
        "PatientID": patient,
        "PatientBirthDate": "19500101",
        "PatientSex": "O",
        "BodyPartExamined": "HEAD",
        "KVP": 120,
        "DeviceSerialNumber": "1",
        "SoftwareVersions": "1",
        "PatientPosition": "HFS",
        "StudyInstanceUID": uid("study"),
        "SeriesInstanceUID": uid("series"),
        "StudyID": "1",
        "SeriesNumber": 2,
        "AcquisitionNumber": 1,
        "InstanceNumber": number,
        "FrameOfReferenceUID": uid("frame of reference"),
        "PositionReferenceIndicator": "",
        "BitsStored": 12,
        "WindowCenter": 40,
        "WindowWidth": 80,
    }
