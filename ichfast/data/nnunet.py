"""A labelled set in the format of nnU-Net v2 (github.com/MIC-DKFZ/nnUNet, documentation/
dataset_format.md), so that anyone can compare with it.
"""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from ichfast.data.grid import SPACING_MM
from ichfast.data.layouts import detect_layout
from ichfast.data.problems import Problems, Refused
from ichfast.data.series import Series
from ichfast.errors import DataError, OutputError
from ichfast.files import replace_whole, write_whole

LABELS = {"background": 0, "haemorrhage": 1}
FIX = "Free space or choose another folder with --out."


def export(root: Path, out: Path, problems: Problems, *, progress: bool = False) -> int:
    """Write `out`/imagesTr, labelsTr and, at the end, dataset.json; return the number of scans
    written. They keep the set's own names for its patients.
    """
    layout = detect_layout(root)
    layout.require_masks(root, "export")
    if layout.no_export:
        raise DataError(f"{root}: {layout.no_export}")
    try:
        _claim(out)
        names: list[str] = []
        for series in layout.read(root, problems, progress=progress):
            try:
                if not series.has_mask().all():
                    raise Refused("not all of its slices have a mask")
                _write(out, series)
                names.append(series.patient)
            except Refused as refused:
                problems.record(series.sources[0], refused)
        if not names:
            raise DataError(f"{root}: nothing could be exported: {problems.summary()}")
        description = {
            "channel_names": {"0": "CT"},
            "labels": LABELS,
            "numTraining": len(names),
            "file_ending": ".nii.gz",
        }
        text = json.dumps(description, indent=2) + "\n"
        write_whole(out / "dataset.json", text.encode(), lasting=False, fix=FIX)
    except OSError as error:
        raise OutputError(f"{error.filename or out}: {error.strerror or error}. {FIX}") from error
    return len(names)


def _claim(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is not empty. Choose an empty or new folder with --out.")
    for folder in ("imagesTr", "labelsTr"):
        (out / folder).mkdir(parents=True, exist_ok=True)


def _write(out: Path, series: Series) -> None:
    affine = make_affine(series)
    hu = series.hu()
    if np.array_equal(hu, whole_hu := np.rint(hu)) and np.abs(hu).max() < 2**15:
        hu = whole_hu.astype(np.int16)
    assert series.mask is not None
    for path, voxels in (
        (out / "imagesTr" / f"{series.patient}_0000.nii.gz", hu),
        (out / "labelsTr" / f"{series.patient}.nii.gz", series.mask.astype(np.uint8)),
    ):
        image = nib.Nifti1Image(voxels.transpose(2, 1, 0), affine)  # type: ignore[no-untyped-call]
        image.header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
        with replace_whole(path, lasting=False) as temporary:
            nib.save(image, temporary)


def make_affine(series: Series) -> np.ndarray:
    """Voxel (column, row, slice) -> mm to the right, front and up, the volume's middle at 0. The
    slices are tilted as the scan's; they are stacked along their normal, since nnU-Net's readers
    take no sheared axes.
    """
    if len(series) < 2:
        raise Refused("a single slice, so the distance between slices is unknown")
    steps = np.diff(series.positions)
    if np.ptp(steps) > SPACING_MM:
        raise Refused("slices at uneven distances do not fit into one volume")
    c, s = np.cos(np.radians(series.tilt)), np.sin(np.radians(series.tilt))
    affine = np.eye(4)
    affine[:3, 0] = [-series.spacing[1], 0, 0]
    affine[:3, 1] = series.spacing[0] * np.array([0, -c, -s])
    affine[:3, 2] = steps.mean() * np.array([0, -s, c])
    middle = (np.array(series.stored.shape[::-1]) - 1) / 2
    affine[:3, 3] = -affine[:3, :3] @ middle
    return affine
