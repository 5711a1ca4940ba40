"""CT series of a drawn head with a bleed of known volume, as complete DICOM files in the geometries
that scanners make: straight, tilted gantry, uneven spacing, both, and a scan without a bleed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

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
    files: tuple[Path, ...]  # n
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
    transpose: bool = False,
    flip_rows: bool = False,
    flip_columns: bool = False,
    descending: bool = False,
    patient: str = "head",
    **tags: Any,
) -> WrittenSeries:
    """One file per slice, `000.dcm` and on by instance number.

    Args:
        geometry: One of `GEOMETRIES`; "negative" is flat.
        shape: H and W of the upright slice.
        spacing: mm between its rows and between its columns.
        slices: How many there are with those that are missing.
        step: mm along the long axis from a slice to the next; where uneven, half of it through the
            lower half of the slices, as many protocols have it.
        missing: Slices that are not written, counted from the inferior one.
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
        files=tuple(root / f"{slices - 1 - k if descending else k:03}.dcm" for k in kept),
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
    stored = written.as_filed(hu - INTERCEPT).astype(np.uint16)
    row, column = (-across if flip_columns else across), (-down if flip_rows else down)
    orientation = (*column, *row) if transpose else (*row, *column)
    corner = (shape[0] - 1) * flip_rows * written.down + (
        shape[1] - 1
    ) * flip_columns * written.across
    for pixels, path, origin, k in zip(stored, written.files, origins, kept, strict=True):
        number = slices - k if descending else k + 1
        dataset = make_ct(patient, geometry, number, pixels)
        dataset.ImagePositionPatient = [round(float(v), 6) for v in origin + corner]
        dataset.ImageOrientationPatient = [round(float(v), 9) for v in orientation]
        dataset.PixelSpacing = list(spacing[::-1] if transpose else spacing)
        dataset.SliceThickness = step
        dataset.GantryDetectorTilt = round(float(np.degrees(angle)), 3)
        for keyword, value in tags.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)
        dataset.save_as(path, enforce_file_format=True)
    return written


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


def make_ct(patient: str, series: str, number: int, pixels: np.ndarray) -> Dataset:
    """A CT image (PS3.3 A.3) with all that its modules require, but where it lies."""

    def uid(part: object) -> str:
        return generate_uid(entropy_srcs=["ichfast", patient, series, str(part)])

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    values = {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": CTImageStorage,
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
        "Modality": "CT",
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
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "WindowCenter": 40,
        "WindowWidth": 80,
        "RescaleIntercept": INTERCEPT,
        "RescaleSlope": 1,
        "RescaleType": "HU",
        "PixelData": pixels.tobytes(),
    }
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset
