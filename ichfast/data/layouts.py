"""Which kind of data set a folder holds, and the one way in to all of them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ichfast.data.files import image_folder, list_folder
from ichfast.data.problems import Problems
from ichfast.data.series import Series
from ichfast.errors import DataError

Layout = Literal["ct-ich", "ct-ich-jpeg", "rsna", "nifti", "dicom"]


def detect_layout(root: Path) -> Layout:
    root = Path(root)
    layout = _named(root)
    if layout is not None:
        return layout
    folders = {path.name.lower(): path for path in list_folder(root) if path.is_dir()}
    if {"labelled", "unlabelled"} <= folders.keys():
        raise DataError(f"{root}: holds two sets; give its folder labelled or unlabelled")
    for folder in folders.values():
        inner = _named(folder)
        if inner is not None:
            raise DataError(f"{root}: its folder {folder.name} is a set ({inner}); give that one")
    if any(_marked(Path(folder, name)) for folder, _, files in os.walk(root) for name in files):
        return "dicom"
    if image_folder(root, {}) is not None:
        return "nifti"
    raise DataError(
        f"{root}: no data set found. Looked for a folder ct_scans (CT-ICH) or Patients_CT (its "
        f"version 1.0.0), stage_2_train.csv (RSNA), NIfTI files in imagesTr, images or the folder "
        f"itself, and DICOM files at any depth"
    )


def _named(root: Path) -> Layout | None:
    """The layout that the names in the folder give away."""
    here = {path.name.lower(): path for path in list_folder(root)}
    if "ct_scans" in here:
        return "ct-ich"
    if "patients_ct" in here:
        return "ct-ich-jpeg"
    if here.keys() & {"stage_1_train.csv", "stage_2_train.csv"}:
        return "rsna"
    return "nifti" if image_folder(root, here) not in (None, root) else None


def _marked(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_series(root: Path, problems: Problems, *, progress: bool = False) -> Iterator[Series]:
    """Every scan of the set, one at a time. A bad file goes into the problems and the rest goes on;
    DataError when there are too many, or when nothing at all could be read.
    """
    root = Path(root)
    layout = detect_layout(root)
    if layout == "ct-ich":
        from ichfast.data.ct_ich import read_ct_ich as read
    elif layout == "ct-ich-jpeg":
        from ichfast.data.ct_ich_jpeg import read_ct_ich_jpeg as read
    elif layout == "nifti":
        from ichfast.data.nifti_folder import read_nifti_folder as read
    elif layout == "rsna":
        from ichfast.data.rsna import read_rsna as read
    else:
        from ichfast.data.stacks import read_stacks as read
    return something(read(root, problems, progress=progress), root, problems)


def something(series: Iterator[Series], root: Path, problems: Problems) -> Iterator[Series]:
    """The series, or a DataError when there is not one."""
    empty = True
    for one in series:
        empty = False
        yield one
    if empty:
        raise DataError(f"{root}: nothing could be read: {problems.summary()}")
