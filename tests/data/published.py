"""Small sets in the published layouts, with the quirks that the real ones have. Nothing in them is
real: a drawn head (`head`) under the names and headers that these sources describe.

- CT-ICH 1.3.1 and 1.0.0: physionet.org/content/ct-ich, the readmes of both versions, and Hssayeni
  et al., Data 5(1):14, 2020.
- RSNA 2019: kaggle.com/competitions/rsna-intracranial-hemorrhage-detection/data, and Flanders et
  al., Radiology: Artificial Intelligence 2(3):e190211, 2020.
- nnU-Net: github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md.
- BHSD: github.com/White65534/BHSD, label_192.zip.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image
from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"


def head(size: int = 32) -> np.ndarray:
    """(size, size) HU, upright and without symmetry: air, skull, brain, and one bright spot in
    front on the patient's right (upper left of the picture).
    """
    y, x = np.mgrid[:size, :size] / (size - 1) * 2 - 1
    hu = np.full((size, size), -1000)
    hu[x**2 / 0.6 + y**2 / 0.8 < 1] = 1000
    hu[x**2 / 0.4 + y**2 / 0.55 < 1] = 35
    hu[(x + 0.3) ** 2 + (y + 0.3) ** 2 < 0.03] = 70
    return hu


def dicom(stored: np.ndarray, z: float = 0.0, **tags: Any) -> FileDataset:
    """A CT slice; `tags` by keyword replace the defaults, None leaves a tag out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CT_IMAGE
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = tags.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    defaults = {
        "SOPClassUID": CT_IMAGE,
        "SOPInstanceUID": f"1.2.3.{abs(int(z * 1000))}",
        "Modality": "CT",
        "PatientID": "patient",
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": "1.2.3",
        "ImagePositionPatient": [-100, -100, z],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.5, 0.5],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "BitsAllocated": 8 * stored.itemsize,
        "BitsStored": 8 * stored.itemsize,
        "PixelRepresentation": int(stored.dtype.kind == "i"),
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
    }
    values = {**defaults, **tags}
    values.setdefault("HighBit", values["BitsStored"] - 1 if values["BitsStored"] else None)
    dataset = FileDataset(
        "",
        Dataset(),
        file_meta=meta,
        preamble=b"\0" * 128,
        is_little_endian=meta.TransferSyntaxUID.is_little_endian,
    )
    for keyword, value in values.items():
        if value is None:
            continue
        if "UID" in keyword:  # RSNA's are not valid
            vr = "UI"
        elif "PixelPadding" in keyword:
            vr = "SS" if value < 0 else "US"
        else:
            setattr(dataset, keyword, value)
            continue
        dataset[keyword] = DataElement(Tag(keyword), vr, value, validation_mode=config.IGNORE)
    if "PixelData" not in tags:
        dataset.PixelData = stored.tobytes()
    return dataset


TABLE = "hemorrhage_diagnosis_raw_ct.csv"
COLUMNS = (
    "PatientNumber,SliceNumber,Intraventricular,Intraparenchymal,Subarachnoid,Epidural,Subdural,"
    "No_Hemorrhage,Fracture_Yes_No"
)

N = 4  # slices of every scan
LPS = np.diag([-0.5, -0.5, 5.0, 1.0])  # axes to the left, back, up: the upright picture itself
KINDS = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")


def scan(size: int = 32) -> np.ndarray:
    """(N, size, size) HU, the slices told apart by a few HU."""
    return np.stack([head(size) + k for k in range(N)]).astype(np.int16)


def spot(size: int = 32) -> np.ndarray:
    """Its mask: the bright spot on the third slice."""
    mask = np.zeros((N, size, size), dtype=bool)
    mask[2] = head(size) == 70
    return mask


def save_nifti(path: Path, upright: np.ndarray, affine: np.ndarray = LPS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(upright.transpose(2, 1, 0), affine), path)


def ct_ich_131(root: Path) -> Path:
    """049, 058 and 066: 059-065 do not exist, though the table names 060. Masks are integers with a
    scale; the table starts with a byte order mark; the demographics have two rows of names and a
    footer, and are named otherwise than in the readme.
    """
    rows = [COLUMNS]
    for number in (49, 58, 60, 66):
        rows += [f"{number},{k + 1},0,0,0,{int(k == 2)},0,{int(k != 2)},0" for k in range(N)]
        if number == 60:
            continue
        save_nifti(root / "ct_scans" / f"{number:03d}.nii", scan())
        raw = np.where(spot(), 127, -128).astype(np.int8)
        path = root / "masks" / f"{number:03d}.nii"
        save_nifti(path, raw)
        with path.open("r+b") as file:
            header = nibabel.Nifti1Header.from_fileobj(file)
            header["scl_slope"], header["scl_inter"] = 0.99998, 128.003
            file.seek(0)
            file.write(header.binaryblock)
    (root / TABLE).write_bytes(("\ufeff" + "\r\n".join(rows) + "\r\n").encode())
    (root / "Patient_demographics.csv").write_bytes(
        b"\xef\xbb\xbfPatient Number,Age (years),Gender,Hemorrhage type,,,,,Fracture\r\n"
        b",,,Intraventricular,Intraparenchymal,Subarachnoid,Epidural,Subdural,(yes 1/no 0)\r\n"
        b"49,40,Male,0,0,0,1,0,0\r\nTotal,40,,0,0,0,1,0,0\r\n"
    )
    return root


def ct_ich_100(root: Path, table: str = "hemorrhage_diagnosis.csv", patients: int = 2) -> Path:
    """049, 050 …, 64 pixels a side instead of 650; masks with the ringing of JPEG."""
    rows = [COLUMNS]
    for number in range(49, 49 + patients):
        folder = root / "Patients_CT" / f"{number:03d}"
        for window, low, width in (("brain", -20, 120), ("bone", -900, 3200)):
            (folder / window).mkdir(parents=True)
            for k, hu in enumerate(scan(64)):
                grey = np.clip((hu - low) / width, 0, 1) * 255
                save_jpeg(folder / window / f"{k + 1}.jpg", grey)
        save_jpeg(folder / "brain" / "3_HGE_Seg.jpg", spot(64)[2] * 255)
        rows += [f"{number},{k + 1},0,0,0,{int(k == 2)},0,{int(k != 2)},0" for k in range(N)]
    (root / table).write_bytes(("\ufeff" + "\r\n".join(rows) + "\r\n").encode())
    return root


def save_jpeg(path: Path, grey: np.ndarray) -> None:
    Image.fromarray(np.round(grey).astype(np.uint8)).save(path, quality=90)


def rsna(root: Path, stage: int = 2) -> Path:
    """Two patients of four slices, named without order. No UID is valid; SliceThickness,
    SliceLocation and InstanceNumber are missing; some windows are doubled; half of the files are
    wrapped 12-bit; six rows occur twice; one file is truncated.
    """
    folder = root / ("stage_2_train" if stage == 2 else "stage_1_train_images")
    folder.mkdir(parents=True)
    rows = []
    for patient in range(2):
        for k, hu in enumerate(scan()):
            name = f"ID_{(patient * N + (k * 3) % N + 1) * 0x123457:09x}"
            wrapped = patient == 1
            dataset = dicom(
                (hu % 4096 if wrapped else hu + 1024).astype(np.uint16),
                z=5.0 * k,
                SOPInstanceUID=name,
                PatientID=f"ID_{patient:08x}",
                StudyInstanceUID=f"ID_{patient:010x}",
                SeriesInstanceUID=f"ID_{patient + 7:010x}",
                BitsStored=12,
                RescaleIntercept=0 if wrapped else -1024,
                WindowCenter=["00036", "00036"] if patient else 30,
                WindowWidth=["00080", "00080"] if patient else 80,
            )
            with warnings.catch_warnings(action="ignore"):  # of the invalid UIDs
                dataset.save_as(folder / f"{name}.dcm", enforce_file_format=True)
            rows += [
                f"{name}_{kind},{int(k == 2 and kind in ('subdural', 'any'))}" for kind in KINDS
            ]
    path = folder / f"{rows[0].rpartition('_')[0]}.dcm"
    path.write_bytes(path.read_bytes()[:-1000])
    text = "\n".join(["ID,Label", *rows, *rows[6:12]]) + "\n"
    (root / f"stage_{stage}_train.csv").write_text(text)
    return root


def nnunet(root: Path, labels: dict[str, int] | None = None) -> Path:
    """As nnU-Net v2 wants it; the mask's spot is label 1."""
    for case in ("ICH_001", "ICH_002"):
        save_nifti(root / "imagesTr" / f"{case}_0000.nii.gz", scan())
        save_nifti(root / "labelsTr" / f"{case}.nii.gz", spot().astype(np.uint8))
    description = {
        "channel_names": {"0": "CT"},
        "labels": labels or {"background": 0, "haemorrhage": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def bhsd(root: Path) -> Path:
    """Labels 1 to 5 for the types, the folder of masks with a space in its name."""
    for case, label in (("case_a", 1), ("case_b", 5)):
        save_nifti(root / "images" / f"{case}.nii.gz", scan())
        save_nifti(root / "ground truths" / f"{case}.nii.gz", (spot() * label).astype(np.uint8))
    return root
