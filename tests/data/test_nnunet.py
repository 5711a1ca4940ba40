import json

import nibabel
import numpy as np
import published
import pytest

from ichfast.data import Problems, read_series
from ichfast.export_nnunet import main


def scans(root):
    return list(read_series(root, Problems()))


def check_round_trip(before, after):
    assert [series.patient for series in after] == [series.patient for series in before]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(other.hu(), one.hu())
        np.testing.assert_array_equal(other.mask, one.mask)
        np.testing.assert_allclose(np.diff(other.positions), np.diff(one.positions), atol=1e-4)
        np.testing.assert_allclose(other.spacing, one.spacing, rtol=1e-6)
        assert other.tilt == pytest.approx(one.tilt, abs=1e-3)


def test_round_trip(tmp_path, capsys):
    root, out = published.ct_ich_131(tmp_path / "ct-ich"), tmp_path / "Dataset501_CTICH"
    assert main([str(root), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"3 scans in {out}\n"
    assert json.loads((out / "dataset.json").read_text()) == {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "haemorrhage": 1},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    assert sorted(path.name for path in (out / "labelsTr").iterdir()) == [
        "049.nii.gz",
        "058.nii.gz",
        "066.nii.gz",
    ]
    image = nibabel.load(out / "imagesTr" / "049_0000.nii.gz")
    assert image.get_data_dtype() == np.int16
    np.testing.assert_allclose(image.header.get_zooms(), (0.5, 0.5, 5))
    check_round_trip(scans(root), scans(out))


@pytest.mark.parametrize("tilt", [18.5, -22.0])
def test_a_tilted_scan_with_fractions_of_hu(tmp_path, tilt):
    root, out = tmp_path / "a", tmp_path / "b"
    c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    affine = np.diag([-0.4, 1, 5, 1.0])
    affine[:3, 1] = [0, -0.5 * c, -0.5 * s]
    affine[:3, 2] = [0, 0, 5 / c]
    published.save_nifti(root / "images" / "a.nii", published.scan() + np.float32(0.25), affine)
    published.save_nifti(root / "masks" / "a.nii", published.spot().astype(np.uint8), affine)
    assert main([str(root), "--out", str(out)]) == 0
    check_round_trip(scans(root), scans(out))
    directions = nibabel.load(out / "imagesTr" / "a_0000.nii.gz").affine[:3, :3]
    directions /= np.linalg.norm(directions, axis=0)
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-6)


def test_what_cannot_be_exported(tmp_path, capsys):
    out = tmp_path / "out"
    unlabelled = tmp_path / "d"
    published.save_nifti(unlabelled / "a.nii", published.scan())
    for root, reason in (
        (published.rsna(tmp_path / "a"), "'rsna' has no masks to export"),
        (published.ct_ich_100(tmp_path / "b"), "export version 1.3.1"),
        (unlabelled, "has no masks to export"),
        (tmp_path / "gone", "no such folder"),
    ):
        assert main([str(root), "--out", str(out)]) == 2
        assert reason in capsys.readouterr().err
        assert not (out / "dataset.json").exists()


def test_a_folder_in_use(tmp_path, capsys):
    root = published.bhsd(tmp_path / "bhsd")
    assert main([str(root), "--out", str(tmp_path)]) == 2
    assert "is not empty. Choose an empty or new folder" in capsys.readouterr().err


def test_a_bad_scan_is_named_and_the_rest_goes_on(tmp_path, capsys):
    root, out = published.ct_ich_131(tmp_path / "ct-ich"), tmp_path / "out"
    (root / "ct_scans" / "058.nii").write_bytes(b"")
    for folder in ("ct_scans", "masks"):
        volume = published.scan() if folder == "ct_scans" else published.spot().astype(np.uint8)
        published.save_nifti(root / folder / "066.nii", volume[:1])
    assert main([str(root), "--out", str(out)]) == 1
    text = capsys.readouterr()
    assert "1 scans in" in text.out
    assert "058.nii: the scan is not a readable NIfTI" in text.err
    assert "a single slice" in text.err
    assert [series.patient for series in scans(out)] == ["049"]
