"""A mask that says something never becomes that of a healthy patient."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from published import LPS, save_nifti, scan, spot

from ichfast.data import Problems, load_slices, read_series
from ichfast.data.series import Series


def read(root: Path) -> tuple[dict[str, Series], Problems]:
    problems = Problems()
    return {series.patient: series for series in read_series(root, problems)}, problems


EMPTIED = {
    "255 in signed bytes": (spot() * 255).astype(np.uint8).view(np.int8),
    "below the threshold": spot().astype(np.float32) * 0.4,
    "minus one": -spot().astype(np.int16),
}


@pytest.mark.parametrize("mask", EMPTIED.values(), ids=EMPTIED.keys())
@pytest.mark.parametrize("layout", ["nifti", "nnunet", "ct-ich"])
def test_it_is_refused(tmp_path: Path, mask: np.ndarray, layout: str) -> None:
    images, masks = {
        "nifti": ("images", "masks"),
        "nnunet": ("imagesTr", "labelsTr"),
        "ct-ich": ("ct_scans", "masks"),
    }[layout]
    for name, own in (("a", mask), ("b", spot().astype(np.uint8)), ("c", 0 * spot())):
        save_nifti(tmp_path / images / f"{name}.nii", scan())
        save_nifti(tmp_path / masks / f"{name}.nii", own.astype(own.dtype if own.any() else "u1"))
    if layout == "nnunet":
        labels = {"background": 0, "ICH": 1}
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "numTraining": 3}))
    found, problems = read(tmp_path)
    assert found.keys() == {"b", "c"}
    assert problems.failed == 1
    np.testing.assert_array_equal(found["b"].mask, spot())
    assert not found["c"].mask.any()


def test_nearly_whole_labels(tmp_path: Path) -> None:
    labels = {"background": 0, "ICH": 1, "SDH": 3}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "numTraining": 2}))
    for name, label in (("a", 0.99999994), ("b", 3.0001), ("c", 1.5)):
        save_nifti(tmp_path / "imagesTr" / f"{name}_0000.nii.gz", scan())
        save_nifti(tmp_path / "labelsTr" / f"{name}.nii.gz", spot().astype(np.float32) * label)
    found, problems = read(tmp_path)
    assert found.keys() == {"a", "b"}
    for series in found.values():
        np.testing.assert_array_equal(series.mask, spot())
    assert "no whole numbers" in problems.items[0].reason


def test_a_mask_with_other_axes_and_a_volume_of_four(tmp_path: Path) -> None:
    """Brought over where it lies on the same grid; refused where it does not."""
    for name in ("turned", "moved"):
        save_nifti(tmp_path / "images" / f"{name}.nii", scan()[..., :24])
    image = nibabel.Nifti1Image(scan().transpose(2, 1, 0)[..., None], LPS)
    nibabel.save(image, tmp_path / "images" / "four.nii")
    save_nifti(tmp_path / "masks" / "four.nii", spot().astype(np.uint8))
    upright = nibabel.Nifti1Image(spot()[..., :24].transpose(2, 1, 0).astype(np.uint8), LPS)
    orientations = nibabel.orientations
    turn = orientations.axcodes2ornt(("I", "A", "R"))
    own = orientations.ornt_transform(orientations.io_orientation(LPS), turn)
    turned = upright.as_reoriented(own)
    assert turned.shape != upright.shape
    nibabel.save(turned, tmp_path / "masks" / "turned.nii")
    moved = turned.affine.copy()
    moved[2, 3] += 5
    nibabel.save(nibabel.Nifti1Image(turned.dataobj, moved), tmp_path / "masks" / "moved.nii")
    found, problems = read(tmp_path)
    assert found.keys() == {"four", "turned"}
    np.testing.assert_array_equal(found["turned"].mask, spot()[..., :24])
    np.testing.assert_array_equal(found["four"].mask, spot())
    assert [item.source for item in problems.items] == ["images/moved.nii"]
    assert "different places" in problems.items[0].reason


def test_names_that_end_in_four_digits(tmp_path: Path) -> None:
    """They are the case's where a mask has them, or no mask says otherwise."""
    for k in (1, 2):
        save_nifti(tmp_path / "images" / f"case_{k:04}.nii.gz", scan())
        save_nifti(tmp_path / "masks" / f"case_{k:04}.nii.gz", spot().astype(np.uint8))
    save_nifti(tmp_path / "images" / "b_0000.nii.gz", scan())
    save_nifti(tmp_path / "masks" / "b.nii.gz", spot().astype(np.uint8))
    found, _ = read(tmp_path)
    assert found.keys() == {"b", "case_0001", "case_0002"}
    assert all(series.mask is not None for series in found.values())
    slices, _ = load_slices(tmp_path, size=16, window=(40, 80), labelled=False, progress=False)
    assert set(slices.patients) == found.keys()
    for year in (2019, 2020):
        save_nifti(tmp_path / "bare" / f"head_{year}.nii", scan())
    assert read(tmp_path / "bare")[0].keys() == {"head_2019", "head_2020"}


def test_two_files_of_one_name(tmp_path: Path) -> None:
    save_nifti(tmp_path / "a.nii", scan() + 1)
    save_nifti(tmp_path / "a.nii.gz", scan())
    found, problems = read(tmp_path)
    np.testing.assert_array_equal(found["a"].hu(), scan())
    assert [(item.source, item.skip) for item in problems.items] == [("a.nii", True)]
    assert ".nii.gz of the same name" in problems.items[0].reason
