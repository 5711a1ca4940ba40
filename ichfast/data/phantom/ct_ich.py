"""Write scans in the layout of CT-ICH v1.3.1: NIfTI volumes and two CSV files."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from ichfast.data.phantom.lesions import SUBTYPES
from ichfast.data.phantom.patient import Scan
from ichfast.files import replace_whole

# The published order of the columns, which is not that of SUBTYPES.
COLUMNS = ("intraventricular", "intraparenchymal", "subarachnoid", "epidural", "subdural")
_ORDER = [SUBTYPES.index(name) for name in COLUMNS]

DIAGNOSIS = "hemorrhage_diagnosis_raw_ct.csv"
DEMOGRAPHICS = "Patient_demographics.csv"


@dataclass(frozen=True)
class Record:
    """What the CSV files say about one patient."""

    number: int
    age: int
    male: bool
    subtypes: tuple[tuple[bool, ...], ...]  # per slice, in the order of SUBTYPES


def patient_number(index: int) -> int:
    """49-58, then 66 and up: the published set has no patients 59-65."""
    return 49 + index if index < 10 else 56 + index


def write_patient(root: Path, index: int, scan: Scan) -> Record:
    number = patient_number(index)
    _write_volume(root / "ct_scans" / f"{number:03d}.nii", scan.hu, scan)
    # Floats into a file of int16: nibabel chooses a slope and an intercept, and the values read
    # back are close to 0 and 255, as in the published masks. An empty mask is stored as zeros.
    _write_volume(root / "masks" / f"{number:03d}.nii", scan.mask * np.float32(255), scan)
    subtypes = tuple(tuple(map(bool, row)) for row in scan.subtypes)
    return Record(number, scan.age, scan.male, subtypes)


def _write_volume(path: Path, slices: np.ndarray, scan: Scan) -> None:
    """Slices as (z, row, column) in display order become (x, y, z) with a LAS affine.

    x runs to the patient's left as the columns do, y to the front against the rows, and the affine,
    whose world points right, front and up, says so.
    """
    volume = slices[:, ::-1, :].transpose(2, 1, 0)
    affine = np.diag([-scan.pixel, scan.pixel, scan.step, 1.0])
    centre = (np.array(volume.shape) - 1) / 2
    affine[:3, 3] = -affine[:3, :3] @ centre
    image = nibabel.Nifti1Image(volume, affine)  # type: ignore[no-untyped-call]
    header = image.header
    header.set_data_dtype(np.int16)  # type: ignore[no-untyped-call]
    header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
    with replace_whole(path, lasting=False) as temporary:
        nibabel.save(image, temporary)


def write_tables(root: Path, records: Sequence[Record]) -> None:
    _write_csv(root / DIAGNOSIS, _list_diagnoses(records))
    _write_csv(root / DEMOGRAPHICS, _list_demographics(records))


def _list_diagnoses(records: Sequence[Record]) -> Iterable[Sequence[object]]:
    names = [name.capitalize() for name in COLUMNS]
    yield ["PatientNumber", "SliceNumber", *names, "No_Hemorrhage", "Fracture_Yes_No"]
    for record in records:
        for k, subtypes in enumerate(record.subtypes):
            flags = [int(subtypes[i]) for i in _ORDER]
            yield [record.number, k + 1, *flags, int(not any(flags)), 0]


def _list_demographics(records: Sequence[Record]) -> Iterable[Sequence[object]]:
    yield ["Patient Number", "Age (years)", "Gender", "Hemorrhage type", "", "", "", "", "Fracture"]
    yield ["", "", "", *(name.capitalize() for name in COLUMNS), "(yes 1/no 0)"]
    for record in records:
        found = [int(any(row[i] for row in record.subtypes)) for i in _ORDER]
        yield [record.number, record.age, "Male" if record.male else "Female", *found, 0]
    yield [f"{len(records)} synthetic patients", "", "", "", "", "", "", "", ""]


def _write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    with (
        replace_whole(path, lasting=False) as temporary,
        open(temporary, "w", newline="", encoding="utf-8-sig") as file,
    ):
        csv.writer(file).writerows(rows)
