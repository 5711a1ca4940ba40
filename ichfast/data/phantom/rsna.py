"""Write scans in the layout of RSNA 2019: one DICOM file per slice and a CSV file."""

import csv
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydicom import config
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from ichfast.data.phantom.lesions import SUBTYPES
from ichfast.data.phantom.patient import Scan
from ichfast.files import replace_whole

TABLE = "stage_2_train.csv"
FOLDER = "stage_2_train"
INTERCEPT = -1024


def write_patient(
    root: Path, index: int, scan: Scan, seed: int, rng: np.random.Generator
) -> list[tuple[str, tuple[bool, ...]]]:
    """Write a file per slice; return the image names with the subtypes seen on them."""
    patient, study, series = (
        "ID_" + _digest(seed, index, kind)[:digits]
        for kind, digits in (("patient", 8), ("study", 10), ("series", 10))
    )
    signed = bool(rng.random() < 0.5)
    doubled = bool(rng.random() < 0.3)  # some scanners write their window twice
    labels = []
    for k in range(len(scan.hu)):
        name = "ID_" + _digest(seed, index, f"slice {k}")[:9]
        # These names are not valid UIDs; those in the published files are not either.
        with config.disable_value_validation():
            data = _make_dataset(scan, k, signed, doubled)
            data.SOPClassUID = CTImageStorage
            data.SOPInstanceUID = name
            data.PatientID, data.StudyInstanceUID, data.SeriesInstanceUID = patient, study, series
            _save(root / FOLDER / f"{name}.dcm", data)
        labels.append((name, tuple(map(bool, scan.subtypes[k]))))
    return labels


def _digest(seed: int, index: int, what: str) -> str:
    return hashlib.sha256(f"ichfast phantom {seed} {index} {what}".encode()).hexdigest()


def _make_dataset(scan: Scan, k: int, signed: bool, doubled: bool) -> Dataset:
    data = Dataset()
    data.Modality = "CT"
    data.StudyID = ""
    size = scan.hu.shape[1]
    tilt = np.deg2rad(scan.tilt)
    down = np.array([0.0, np.cos(tilt), np.sin(tilt)])  # the direction in which the rows advance
    # The table moves along z; its step is longer than that along the tilted normal.
    centre = np.array([0.0, 0.0, (k - (len(scan.hu) - 1) / 2) * scan.step / np.cos(tilt)])
    corner = centre - (size - 1) / 2 * scan.pixel * (np.array([1.0, 0.0, 0.0]) + down)
    data.ImagePositionPatient = [f"{value:.6f}" for value in corner]
    data.ImageOrientationPatient = ["1", "0", "0", *(f"{value:.6f}" for value in down)]
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows = data.Columns = size
    data.PixelSpacing = [f"{scan.pixel:.6f}"] * 2
    data.BitsAllocated = 16
    data.BitsStored, data.HighBit = (16, 15) if signed else (12, 11)
    data.PixelRepresentation = int(signed)
    data.WindowCenter = ["00036", "00036"] if doubled else "30"
    data.WindowWidth = ["00080", "00080"] if doubled else "80"
    data.RescaleIntercept = str(INTERCEPT)
    data.RescaleSlope = "1"
    stored = scan.hu[k].astype(np.int32) - INTERCEPT
    data.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()
    return data


def _save(path: Path, data: Dataset) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    # Not pydicom's, whose version would vary the files.
    meta.ImplementationClassUID = UID("2.25.9202")
    meta.ImplementationVersionName = "ICHFAST_PHANTOM"
    file = FileDataset(str(path), data, file_meta=meta, preamble=b"\0" * 128)
    with replace_whole(path, lasting=False) as temporary:
        file.save_as(temporary, enforce_file_format=True)


def write_table(root: Path, labels: Iterable[tuple[str, tuple[bool, ...]]]) -> None:
    with (
        replace_whole(root / TABLE, lasting=False) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["ID", "Label"])
        for name, subtypes in sorted(labels):
            for kind, present in zip(SUBTYPES, subtypes, strict=True):
                writer.writerow([f"{name}_{kind}", int(present)])
            writer.writerow([f"{name}_any", int(any(subtypes))])
