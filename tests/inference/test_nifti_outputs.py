"""Masks in NIfTI lie where the bleed is, have its volume, and are written whole or not at all."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from dicom_series import BLEED, BLEED_CENTRE, BLEED_HU, write_ct_series
from pydicom import dcmread

from ichfast.data import Problems, Series, read_series
from ichfast.data.nifti import read_nifti
from ichfast.errors import DataError
from ichfast.files import DiskFull
from ichfast.inference.measures import measure
from ichfast.inference.outputs.nifti import write_mask, write_regular

FINE: dict[str, Any] = {"shape": (110, 120), "spacing": (1.75, 1.5), "slices": 50, "step": 3.0}


def read_bleed(root: Path) -> tuple[Series, np.ndarray]:
    (series,) = read_series(root, Problems())
    return series, series.hu() == BLEED_HU


def load(path: Path) -> tuple[np.ndarray, Any]:
    image: Any = nibabel.load(path)
    return np.asarray(image.dataobj), image


def draw_bleed(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    points = np.stack(np.indices(shape), -1) @ affine[:3, :3].T + affine[:3, 3]
    inside: np.ndarray = (((points * [-1, -1, 1] - BLEED_CENTRE) / BLEED) ** 2).sum(-1) < 1
    return inside


def test_mask_on_the_source_grid(tmp_path: Path) -> None:
    written = write_ct_series(tmp_path, **FINE, flip_columns=True, transpose=True)
    series, mask = read_bleed(tmp_path)
    write_mask(tmp_path / "mask.nii.gz", series, mask)
    voxels, image = load(tmp_path / "mask.nii.gz")
    assert image.get_data_dtype() == np.uint8
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(voxels, draw_bleed(voxels.shape, image.affine))
    volume = voxels.sum() * np.prod(image.header.get_zooms()) / 1000
    assert volume == pytest.approx(written.volume_ml, rel=0.005)
    assert {path.name for path in tmp_path.glob(".*")} == set()


def test_no_blood(tmp_path: Path) -> None:
    write_ct_series(tmp_path, "negative", **FINE)
    series, mask = read_bleed(tmp_path)
    write_mask(tmp_path / "mask.nii.gz", series, mask)
    voxels, _ = load(tmp_path / "mask.nii.gz")
    assert voxels.shape == (120, 110, 50)
    assert not voxels.any()


@pytest.mark.parametrize("geometry", ["flat", "tilted", "uneven", "both"])
def test_mask_lies_on_what_dcm2niix_makes(tmp_path: Path, geometry: str) -> None:
    """Its header is the same, and it is read as the mask of that image."""
    program = Path(sys.executable).with_name("dcm2niix")
    if not program.exists():
        pytest.skip("dcm2niix is not installed (pip install dcm2niix)")
    write_ct_series(tmp_path / "dicom", geometry, **FINE)
    command = [str(program), "-b", "n", "-z", "n", "-f", "head", "-o", str(tmp_path)]
    subprocess.run([*command, str(tmp_path / "dicom")], check=True, capture_output=True)
    series, mask = read_bleed(tmp_path / "dicom")
    write_mask(tmp_path / "mask.nii.gz", series, mask)
    voxels, image = load(tmp_path / "mask.nii.gz")
    hu, scan = load(tmp_path / "head.nii")
    np.testing.assert_array_equal(voxels, hu == BLEED_HU)
    for key in ("sform_code", "qform_code", "xyzt_units"):
        assert int(image.header[key]) & 7 == int(scan.header[key]) & 7
    np.testing.assert_allclose(image.get_sform(), scan.get_sform(), atol=1e-3)
    np.testing.assert_allclose(image.get_qform(), scan.get_qform(), atol=1e-3)
    np.testing.assert_allclose(image.header["pixdim"][:4], scan.header["pixdim"][:4], atol=1e-4)
    _, values = read_nifti(tmp_path / "head.nii", tmp_path / "mask.nii.gz", "head.nii", "head")
    assert values is not None
    np.testing.assert_array_equal(values, mask)


def test_volume_of_a_tilted_mask_by_voxel_sizes(tmp_path: Path) -> None:
    """By pixdim it is right, by the determinant too small by the cosine, as dcm2niix's are."""
    written = write_ct_series(tmp_path, "tilted", **FINE)
    series, mask = read_bleed(tmp_path)
    write_mask(tmp_path / "mask.nii.gz", series, mask)
    voxels, image = load(tmp_path / "mask.nii.gz")
    volume = voxels.sum() * np.prod(image.header.get_zooms()) / 1000
    assert volume == pytest.approx(written.volume_ml, rel=0.005)
    determinant = abs(np.linalg.det(image.affine[:3, :3]))
    assert determinant == pytest.approx(1.75 * 1.5 * 3 * np.cos(np.radians(18)) ** 2, rel=1e-3)


@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 1), (0, 0), (1, 3)])
def test_mask_of_a_nifti(tmp_path: Path, codes: tuple[int, int]) -> None:
    """The header's sform and qform stay as they are, be they different."""
    affine = np.array([[0, 0, 1.5, -60], [0, -2, 0, 70], [3, 0, 0, -40], [0, 0, 0, 1.0]])
    other = affine @ np.diag([1, 1, 1, 1.0])
    other[:3, 3] += 5
    sform, qform = codes
    image = nibabel.Nifti1Image(np.zeros((30, 70, 80), np.int16), affine)
    image.set_qform(other if codes == (1, 3) else affine, qform)
    image.set_sform(affine, sform)
    hu = np.where(draw_bleed(image.shape, image.affine), BLEED_HU, -1000)
    hu[0] = 900
    image = nibabel.Nifti1Image(hu.astype(np.int16), None, image.header)
    nibabel.save(image, tmp_path / "a.nii")
    series, _ = read_nifti(tmp_path / "a.nii", None, "a.nii", "a")
    mask = series.hu() == BLEED_HU
    write_mask(tmp_path / "mask.nii.gz", series, mask)
    voxels, written = load(tmp_path / "mask.nii.gz")
    scan: Any = nibabel.load(tmp_path / "a.nii")
    np.testing.assert_array_equal(voxels, hu == BLEED_HU)
    np.testing.assert_allclose(written.affine, scan.affine, atol=1e-5)
    for form in ("get_sform", "get_qform"):
        (ours, code), (theirs, expected) = (
            getattr(header, form)(coded=True) for header in (written.header, scan.header)
        )
        assert code == expected
        assert (ours is None) is (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


# --- the regular copy ---


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("geometry", ["flat", "tilted", "uneven", "both"])
def test_regular_copy(tmp_path: Path, geometry: str, turned: bool) -> None:
    """No shear, the volume that the slabs give, and the bleed where it is in the patient."""
    write_ct_series(tmp_path, geometry, **FINE, flip_rows=turned, transpose=turned)
    series, mask = read_bleed(tmp_path)
    write_regular(tmp_path / "mask_regular.nii.gz", series, mask)
    voxels, image = load(tmp_path / "mask_regular.nii.gz")
    affine = image.affine
    size = np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(affine[:3, :3].T @ affine[:3, :3], np.diag(size**2), atol=1e-4)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
    np.testing.assert_allclose(size[:2], [1.5, 1.75], atol=1e-4)
    assert size[2] == pytest.approx(series_step(geometry))
    ml = voxels.sum() * np.prod(size) / 1000
    assert ml == pytest.approx(measure(series, mask).ml, rel=1e-4)
    truth = draw_bleed(voxels.shape, affine)
    assert 2 * (voxels & truth).sum() / (voxels.sum() + truth.sum()) > 0.95
    middle = affine[:3, :3] @ np.argwhere(voxels).mean(0) + affine[:3, 3]
    np.testing.assert_allclose(middle * [-1, -1, 1], BLEED_CENTRE, atol=0.5)


def series_step(geometry: str) -> float:
    """3 mm, or where it is 1.5 mm through the lower half, 0.75 mm: slabs of 1.5, 2.25 and 3 mm."""
    straight = 0.75 if geometry in ("uneven", "both") else 3.0
    return straight * (np.cos(np.radians(18)) if geometry in ("tilted", "both") else 1)


def test_regular_copy_of_missing_slices(tmp_path: Path) -> None:
    write_ct_series(tmp_path, **{**FINE, "missing": (20, 26, 27)})
    series, mask = read_bleed(tmp_path)
    write_regular(tmp_path / "a.nii.gz", series, mask)
    voxels, image = load(tmp_path / "a.nii.gz")
    ml = voxels.sum() * np.prod(image.header.get_zooms()) / 1000
    assert ml == pytest.approx(measure(series, mask).ml, rel=1e-4)
    assert image.header.get_zooms()[2] == pytest.approx(1.5)


def test_regular_copy_of_two_images_at_one_place(tmp_path: Path) -> None:
    written = write_ct_series(tmp_path, **FINE)
    again = dcmread(written.files[25])
    again.PixelData = dcmread(written.files[40]).PixelData  # no blood there
    again.SOPInstanceUID = "1.2.3"
    again.save_as(tmp_path / "again.dcm")
    series, mask = read_bleed(tmp_path)
    write_regular(tmp_path / "a.nii.gz", series, mask)
    voxels, image = load(tmp_path / "a.nii.gz")
    ml = voxels.sum() * np.prod(image.header.get_zooms()) / 1000
    assert ml == pytest.approx(measure(series, mask).ml, rel=1e-4)


def test_regular_copy_of_steps_that_fit_no_grid(tmp_path: Path) -> None:
    """As near as half millimetres come."""
    heights = np.cumsum([0, 3.3, 2.9, 4.17, 3.77, 2.61, 3.49, 4.01, 3.13, 2.77, 3.91, 3.3, 3.7])
    written = write_ct_series(tmp_path, **{**FINE, "slices": 13})
    for path, height in zip(written.files, heights - 20, strict=True):
        dataset = dcmread(path)
        dataset.ImagePositionPatient[2] = round(float(height), 4)
        dataset.save_as(path)
    series, mask = read_bleed(tmp_path)
    mask[:] = mask.any(0)
    write_regular(tmp_path / "a.nii.gz", series, mask)
    voxels, image = load(tmp_path / "a.nii.gz")
    ml = voxels.sum() * np.prod(image.header.get_zooms()) / 1000
    assert ml == pytest.approx(measure(series, mask).ml, rel=0.01)
    assert image.header.get_zooms()[2] >= 0.5


def test_regular_copy_of_one_slice(tmp_path: Path) -> None:
    write_ct_series(tmp_path, "tilted", **{**FINE, "slices": 1})
    series, mask = read_bleed(tmp_path)
    write_regular(tmp_path / "a.nii.gz", series, mask)
    voxels, image = load(tmp_path / "a.nii.gz")
    assert voxels.shape == (120, 110, 1)
    assert image.header.get_zooms()[2] == pytest.approx(3)


# --- what cannot be written ---


def test_no_positions(tmp_path: Path) -> None:
    """The mask as the pictures hold it, in a header that knows neither place nor units."""
    write_ct_series(tmp_path, **FINE)
    series, mask = read_bleed(tmp_path)
    series = replace(series, grid=None)
    write_mask(tmp_path / "a.nii.gz", series, mask)
    voxels, image = load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(voxels.transpose(2, 1, 0), mask)
    assert (image.header["qform_code"], image.header["sform_code"]) == (0, 0)
    assert image.header.get_xyzt_units() == ("unknown", "unknown")
    with pytest.raises(DataError, match=r"000\.dcm: its files do not say where they lie"):
        write_regular(tmp_path / "a.nii.gz", series, mask)


@pytest.mark.parametrize("write", [write_mask, write_regular])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any) -> None:
    """What was there before stays, and nothing half-written."""
    write_ct_series(tmp_path / "dicom", **FINE)
    series, mask = read_bleed(tmp_path / "dicom")
    path = tmp_path / "mask.nii.gz"
    path.write_bytes(b"before")

    def fill(image: Any, name: Path) -> None:
        name.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(nibabel, "save", fill)
    with pytest.raises(DiskFull, match=r"mask\.nii\.gz could not be written: No space.*--out"):
        write(path, series, mask)
    assert path.read_bytes() == b"before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dicom", "mask.nii.gz"]


def test_the_same_bytes_each_time(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "dicom", "both", **FINE)
    series, mask = read_bleed(tmp_path / "dicom")
    for write in (write_mask, write_regular):
        for name in ("a.nii.gz", "b.nii.gz"):
            write(tmp_path / name, series, mask)
        assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
