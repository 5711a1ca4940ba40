"""CT-ICH v1.3.1 (Hssayeni et al., PhysioNet): ct_scans/*.nii, masks/*.nii, labels in a CSV."""

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from tqdm import tqdm

from ichfast.data import quirks
from ichfast.data.files import list_folder, open_table, relative
from ichfast.data.problems import Problems, Refused, quietly, refusing
from ichfast.data.series import SUBTYPES, Series
from ichfast.data.stacks import tilt
from ichfast.errors import DataError

TABLE = "hemorrhage_diagnosis_raw_ct.csv"
orientations: Any = nib.orientations  # has no types
# Axes of a Series: slices towards the head, rows to the back, columns to the patient's left.
UPRIGHT = orientations.axcodes2ornt(("S", "P", "L"))
# A head CT has air and bone in it. Windowed pictures (0 to 255) and masks have neither.
AIR_BELOW, BONE_ABOVE = -500.0, 255.0

Labels = dict[int, dict[int, list[bool]]]  # patient -> slice number (from 1) -> SUBTYPES


def list_scans(root: Path) -> list[str]:
    """The names of the set's scans, in its order."""
    here = {path.name.lower(): path for path in list_folder(root)}
    return list(_volumes(here.get("ct_scans")))


def read_ct_ich(root: Path, problems: Problems, *, progress: bool = False) -> Iterator[Series]:
    """Every patient's scan with its mask and its labels per slice."""
    return _read_scans(root, problems, None, progress)


def read_scan(root: Path, name: str, problems: Problems) -> Iterator[Series]:
    """One of `list_scans`; the problems of the set as a whole are told as well."""
    return _read_scans(root, problems, name, False)


def _read_scans(
    root: Path, problems: Problems, only: str | None, progress: bool
) -> Iterator[Series]:
    here = {path.name.lower(): path for path in list_folder(root)}
    scans = _volumes(here.get("ct_scans"))
    masks = _volumes(here.get("masks"))
    if not scans:
        raise DataError(f"{root}: no .nii files in the folder ct_scans")
    if not masks:
        raise DataError(
            f"{root}: no .nii files in the folder masks; put the set's masks there, beside ct_scans"
        )
    labels = read_labels(here[TABLE], problems) if TABLE in here else {}
    if not labels:
        problems.skip(TABLE, "missing, so there are no labels per slice")
    problems.expect(len(scans))
    for name in sorted(masks.keys() - scans.keys()):
        problems.add(relative(masks[name], root), f"mask without a scan ct_scans/{name}.nii")
    if only is not None:
        scans = {only: scans[only]}
    for name, path in tqdm(scans.items(), "scans", disable=None if progress else True):
        source = relative(path, root)
        try:
            if name not in masks:
                raise Refused(f"scan without a mask masks/{name}.nii")
            series = _read(source, path, masks[name])
            own = labels.get(int(name), {}) if name.isdecimal() else {}
            yield _with_labels(series, own, source, problems)
        except Refused as refused:
            problems.record(source, refused)


def _volumes(folder: Path | None) -> dict[str, Path]:
    if folder is None or not folder.is_dir():
        return {}
    found = (path for path in list_folder(folder) if path.name.endswith((".nii", ".nii.gz")))
    return {path.name.split(".nii")[0]: path for path in found}


def read_labels(table: Path, problems: Problems) -> Labels:
    with open_table(table) as file:
        try:
            header, *rows = csv.reader(file)
        except (csv.Error, ValueError):
            raise DataError(f"{table}: not a CSV file with a first line of names") from None
    header = [name.strip().lower() for name in header]
    wanted = ["patientnumber", "slicenumber", *SUBTYPES]
    missing = [name for name in wanted if name not in header]
    if missing:
        raise DataError(f"{table}: no column {', '.join(missing)} in its first line")
    columns = [header.index(name) for name in wanted]
    labels: Labels = {}
    malformed = 0
    for row in rows:
        try:
            patient, number, *flags = (int(row[column]) for column in columns)
        except (ValueError, IndexError):
            malformed += any(row)
            continue
        labels.setdefault(patient, {})[number] = [bool(flag) for flag in flags]
    if malformed:
        problems.skip(table.name, f"{malformed} rows without a patient, slice and labels")
    return labels


def _load(path: Path, what: str) -> Any:
    with refusing(f"the {what} is not a readable NIfTI file"), quietly("nibabel.global"):
        image: Any = nib.load(path)
    if len(image.shape) != 3 or 0 in image.shape:
        raise Refused(f"the {what} is not a volume of three axes")
    return image


def _voxels(image: Any, what: str, *, scaled: bool) -> np.ndarray:
    with refusing(f"the {what} is damaged or truncated"):
        array: np.ndarray = np.asarray(
            image.get_fdata(dtype=np.float32) if scaled else image.dataobj.get_unscaled()
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise Refused(f"the {what} contains values that are not finite")
    return array


def _read(source: str, path: Path, mask_path: Path) -> Series:
    scan, mask = _load(path, "scan"), _load(mask_path, "mask")
    if scan.shape != mask.shape:
        raise Refused(f"sizes differ: scan {scan.shape}, mask {mask.shape}")
    affine = np.asarray(scan.affine, dtype=float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise Refused("the scan's affine is singular, so its orientation is unknown")
    if not _aligned(affine, mask.affine, scan.shape):
        raise Refused("scan and mask lie in different places: their affines differ")
    turn = orientations.ornt_transform(orientations.io_orientation(affine), UPRIGHT)
    if turn[2, 0] != 0:
        raise Refused("the last axis is not the one from foot to head")

    stored = _stored(_voxels(scan, "scan", scaled=False))
    slope, intercept = scan.dataobj.slope, scan.dataobj.inter
    low, high = sorted(float(stored.take(i)) * slope + intercept for i in _extremes(stored))
    if low > AIR_BELOW or high <= BONE_ABOVE:
        raise Refused(f"not in HU: values from {low:.0f} to {high:.0f}, no air or no bone")
    blood = _voxels(mask, "mask", scaled=True)
    # Masks are 0 and about 255 (or 1) after their own scaling, and not exactly either.
    blood = blood > max(float(blood.max()) / 2, 0.5)

    n = scan.shape[2]
    columns = affine[:3, :3] * [[-1], [-1], [1]]  # RAS to DICOM's LPS
    spacing = np.linalg.norm(columns, axis=0)
    normal = np.cross(columns[:, 0], columns[:, 1])
    normal *= np.sign(normal[2]) / np.linalg.norm(normal)
    origin = affine[:3, 3] * [-1, -1, 1]
    positions = normal @ (origin[:, None] + columns[:, 2:] * np.arange(n))
    order = np.arange(n)[:: int(turn[2, 1])]
    rows, across = (0, 1) if turn[0, 0] == 1 else (1, 0)
    name = path.name.split(".nii")[0]
    series = Series(
        stored=np.ascontiguousarray(orientations.apply_orientation(stored, turn)),
        slope=np.full(n, slope, dtype=float),
        intercept=np.full(n, intercept, dtype=float),
        padding=None,
        mask=np.ascontiguousarray(orientations.apply_orientation(blood, turn)),
        patient=name,
        study=name,
        series=name,
        positions=positions[order],
        spacing=(float(spacing[rows]), float(spacing[across])),
        tilt=tilt(normal.tolist()),
        sources=tuple(f"{source}#{i + 1}" for i in order),
    )
    return replace(series, quirks=quirks.detect(series))


def _aligned(scan: np.ndarray, mask: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether the corners agree to half a voxel, and so, the maps being affine, all voxels do."""
    corners = [[*corner, 1] for corner in np.ndindex(2, 2, 2)] * np.array([*shape, 1])
    shift = corners @ (np.linalg.solve(scan, mask) - np.eye(4)).T  # in voxels of the scan
    return bool((np.abs(shift) <= 0.5).all())  # False for a mask's affine that is not finite


def _stored(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.kind not in "iu":
        raise Refused(f"the scan's voxels are of type {array.dtype}")
    fits = array.min() >= -(2**15) and array.max() < 2**15
    return array.astype(np.int16 if fits else np.int32)


def _extremes(array: np.ndarray) -> tuple[int, int]:
    return int(array.argmin()), int(array.argmax())


def _with_labels(
    series: Series, labels: dict[int, list[bool]], source: str, problems: Problems
) -> Series:
    """The CSV's slice n is index n - 1 on the file's last axis, whichever way that runs."""
    if not labels:
        return series
    numbers = [int(name.rpartition("#")[2]) for name in series.sources]
    if max(labels) > len(series) or min(labels) < 1:
        problems.skip(source, "the CSV labels slices that the scan does not have; labels left out")
        return series
    rows = [labels.get(number, [False] * len(SUBTYPES)) for number in numbers]
    return replace(series, subtypes=np.array(rows, dtype=bool))
