from pathlib import Path

import nibabel
import numpy as np
import pytest

from ichfast.data import SUBTYPES, Problems, load_slices, read_series
from ichfast.errors import DataError

TABLE = "hemorrhage_diagnosis_raw_ct.csv"


def read(root: Path) -> tuple[list, Problems]:
    problems = Problems()
    return list(read_series(root, problems)), problems


def check_upright(series, head):
    np.testing.assert_array_equal(series.hu(), np.stack([head() + k for k in range(4)]))
    assert series.mask.dtype == bool
    assert not series.mask[[0, 1, 3]].any()
    np.testing.assert_array_equal(series.mask[2], head() == 70)
    np.testing.assert_array_equal(series.subtypes.any(1), [False, False, True, False])
    assert series.subtypes[2, SUBTYPES.index("epidural")]
    np.testing.assert_allclose(np.diff(series.positions), 5)
    assert series.tilt == 0
    assert series.quirks == ()


def test_set_as_published(tmp_path, write_ct_ich, head):
    all_series, problems = read(write_ct_ich(tmp_path))
    assert problems.items == []
    assert [s.patient for s in all_series] == ["049", "050"]
    for series in all_series:
        check_upright(series, head)
        assert series.spacing == (0.5, 0.5)
        number = series.patient
        assert series.sources == tuple(f"ct_scans/{number}.nii#{k}" for k in (1, 2, 3, 4))


TURNS = {
    "LPS": ([-0.5, -0.5, 5], lambda v: v),
    "LAS": ([-0.5, 0.5, 5], lambda v: v[:, ::-1]),
    "RAS": ([0.5, 0.5, 5], lambda v: v[::-1, ::-1]),
    "LPI": ([-0.5, -0.5, -5], lambda v: v[:, :, ::-1]),
    "RPI": ([0.5, -0.5, -5], lambda v: v[::-1, :, ::-1]),
}


@pytest.mark.parametrize(("steps", "turn"), TURNS.values(), ids=TURNS.keys())
def test_every_affine_becomes_upright(tmp_path, write_ct_ich, head, steps, turn):
    affine = np.diag([*steps, 1.0])
    ((series, _), problems) = read(write_ct_ich(tmp_path, affine=affine, turn=turn))
    assert problems.items == []
    if steps[2] > 0:
        check_upright(series, head)
        return
    # The file's first slice is the highest one: labels follow the file's numbers, so the CSV's
    # third row names the second slice from below, and no longer the one with the mask.
    np.testing.assert_array_equal(series.hu(), np.stack([head() + k for k in range(4)]))
    np.testing.assert_array_equal(series.subtypes.any(1), [False, True, False, False])
    assert series.sources[0] == "ct_scans/049.nii#4"


def test_transposed_axes_and_spacing(tmp_path, write_ct_ich, head):
    affine = np.zeros((4, 4))
    affine[1, 0], affine[0, 1], affine[2, 2], affine[3, 3] = -0.5, -0.75, 5, 1
    root = write_ct_ich(tmp_path, affine=affine, turn=lambda v: v.transpose(1, 0, 2))
    ((series, _), _) = read(root)
    check_upright(series, head)
    assert series.spacing == (0.5, 0.75)


def test_tilted_affine(tmp_path, write_ct_ich):
    c, s = np.cos(np.radians(18.5)), np.sin(np.radians(18.5))
    affine = np.diag([-0.5, 1, 5, 1.0])
    affine[:3, 1] = [0, -0.5 * c, -0.5 * s]  # to the back, and down
    ((series, _), _) = read(write_ct_ich(tmp_path, affine=affine))
    assert series.tilt == pytest.approx(18.5)
    np.testing.assert_allclose(np.diff(series.positions), 5 * c)


def save(path: Path, volume: np.ndarray, affine: np.ndarray | None = None) -> None:
    affine = np.diag([-0.5, -0.5, 5, 1.0]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(volume, affine), path)


def patch_header(path: Path, **fields) -> None:
    """What nibabel itself would not write."""
    with path.open("r+b") as file:
        header = nibabel.Nifti1Header.from_fileobj(file)
        for name, value in fields.items():
            header[name] = value
        file.seek(0)
        file.write(header.binaryblock)


@pytest.mark.parametrize("maximum", [1.0, 255.0, 254.996])
def test_mask_threshold_is_half_of_its_maximum(tmp_path, write_ct_ich, head, maximum):
    """Stored numbers with a scale, "0" being not quite 0: neither raw > 0 nor astype(bool)."""
    root = write_ct_ich(tmp_path, patients=1)
    raw = np.full((32, 32, 4), -128, dtype=np.int8)
    raw[..., 2][head().T == 70] = 127
    path = root / "masks" / "049.nii"
    save(path, raw)
    patch_header(path, scl_slope=maximum / 255, scl_inter=maximum / 255 * 128.01)
    ((series,), _) = read(root)
    check_upright(series, head)


def test_scan_without_haemorrhage(tmp_path, write_ct_ich):
    root = write_ct_ich(tmp_path, patients=1)
    save(root / "masks" / "049.nii", np.zeros((32, 32, 4), dtype=np.uint8))
    ((series,), problems) = read(root)
    assert not series.mask.any()
    assert problems.items == []


def test_a_mask_that_is_about_zero_everywhere_is_empty(tmp_path, write_ct_ich):
    root = write_ct_ich(tmp_path, patients=1)
    path = root / "masks" / "049.nii"
    save(path, np.zeros((32, 32, 4), dtype=np.uint8))
    patch_header(path, scl_slope=1, scl_inter=0.003)
    ((series,), _) = read(root)
    assert not series.mask.any()


@pytest.mark.parametrize(
    ("steps", "origin", "aligned"),
    [
        ([-0.5, -0.5, 5], [0.2, -0.2, 2], True),
        ([-0.501, -0.5, 5], [0, 0, 0], True),  # 0.06 of a voxel over the whole width
        ([-0.5, -0.5, 5], [0.3, 0, 0], False),
        ([-0.5, -0.5, 5], [0, 0, 3], False),
        ([-0.51, -0.5, 5], [0, 0, 0], False),
        ([0.5, -0.5, 5], [0, 0, 0], False),
        ([-0.5, -0.5, 5], [np.inf, 0, 0], False),
    ],
)
def test_scan_and_mask_agree_to_half_a_voxel(tmp_path, write_ct_ich, steps, origin, aligned):
    root = write_ct_ich(tmp_path)
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = origin
    save(root / "masks" / "049.nii", np.zeros((32, 32, 4), np.uint8), affine)
    all_series, problems = read(root)
    assert [series.patient for series in all_series] == (["049"] * aligned) + ["050"]
    assert problems.failed == (not aligned)
    if not aligned:
        assert problems.items[0].source == "ct_scans/049.nii"
        assert "different places" in problems.items[0].reason


def test_odd_headers_are_read_without_chatter(tmp_path, write_ct_ich, head, capfd, caplog):
    root = write_ct_ich(tmp_path, patients=1)
    for folder in ("ct_scans", "masks"):
        patch_header(root / folder / "049.nii", qform_code=1282)
    ((series,), _) = read(root)
    check_upright(series, head)
    assert capfd.readouterr().err == caplog.text == ""


def test_case_of_names_and_other_patients(tmp_path, write_ct_ich):
    """Patients 59 to 65 do not exist, though a table might name them; case does not matter."""
    root = write_ct_ich(tmp_path)
    (root / "ct_scans").rename(root / "CT_scans")
    (root / TABLE).rename(root / "Hemorrhage_Diagnosis_Raw_CT.csv")
    with (root / "Hemorrhage_Diagnosis_Raw_CT.csv").open("a") as file:
        file.write("60,1,0,0,0,0,1,0,0\r\n\r\n,,,,,,,,\r\nfooter,,,,,,,,\r\n")
    all_series, problems = read(root)
    assert len(all_series) == 2
    assert all_series[0].subtypes[2].any()
    assert [item.reason for item in problems.items] == [
        "1 rows without a patient, slice and labels"
    ]
    assert problems.failed == 0


def broken(root: Path, head) -> dict[str, str]:
    scans, masks = root / "ct_scans", root / "masks"
    hu = np.stack([head()] * 4, axis=-1).astype(np.int16)
    (scans / "050.nii").write_bytes((scans / "050.nii").read_bytes()[:3000])
    (masks / "051.nii").unlink()
    (scans / "052.nii").unlink()
    save(masks / "053.nii", np.zeros((32, 32, 3), dtype=np.uint8))
    save(scans / "054.nii", np.clip(hu, 0, 255))
    (scans / "055.nii").write_bytes(b"")
    (scans / "056.nii").write_text("<html>404</html>" * 99)
    save(scans / "057.nii", np.stack([hu, hu], axis=-1))
    save(masks / "058.nii", np.zeros((32, 32, 4), np.uint8), np.diag([0.5, -0.5, 5, 1.0]))
    save(scans / "059.nii", np.where(hu == 70, np.nan, hu).astype(np.float32))
    sagittal = np.array([[0, 0, 5, 0], [-0.5, 0, 0, 0], [0, -0.5, 0, 0], [0, 0, 0, 1.0]])
    save(scans / "060.nii", hu, sagittal)
    save(masks / "060.nii", np.zeros((32, 32, 4), np.uint8), sagittal)
    patch_header(scans / "061.nii", srow_x=0, srow_y=0, srow_z=0)
    return {
        "ct_scans/050.nii": "damaged or truncated",
        "ct_scans/051.nii": "scan without a mask in masks",
        "masks/052.nii": "mask without a scan in ct_scans",
        "ct_scans/053.nii": "sizes differ",
        "ct_scans/054.nii": "not in HU: no air",
        "ct_scans/055.nii": "not a readable NIfTI",
        "ct_scans/056.nii": "not a readable NIfTI",
        "ct_scans/057.nii": "not one volume",
        "ct_scans/058.nii": "different places",
        "ct_scans/059.nii": "not finite",
        "ct_scans/060.nii": "last axis",
        "ct_scans/061.nii": "orientation is unknown",
    }


def test_broken_volumes_are_named_and_the_rest_goes_on(tmp_path, write_ct_ich, head):
    root = write_ct_ich(tmp_path, patients=13)
    reasons = broken(root, head)
    all_series, problems = read(root)
    assert [s.patient for s in all_series] == ["049", "051"]
    assert all_series[1].has_mask().tolist() == [True, True, False, True]  # as the table says
    found = {item.source: item.reason for item in problems.items}
    assert found.keys() == reasons.keys()
    for source, reason in reasons.items():
        assert reason in found[source]


def test_labels_beyond_the_scan_are_left_out(tmp_path, write_ct_ich):
    root = write_ct_ich(tmp_path, patients=1)
    with (root / TABLE).open("a") as file:
        file.write("49,35,0,0,0,0,1,0,0\r\n")
    ((series,), problems) = read(root)
    assert series.subtypes is None
    assert "slices that the scan does not have" in problems.summary()


def test_table_missing_or_wrong(tmp_path, write_ct_ich):
    root = write_ct_ich(tmp_path, patients=1)
    (root / TABLE).write_text("PatientNumber,SliceNumber,Epidural\n49,1,0\n")
    with pytest.raises(DataError, match="no column intraparenchymal"):
        read(root)
    (root / TABLE).write_bytes(b"")
    with pytest.raises(DataError, match="not a CSV file"):
        read(root)
    (root / TABLE).unlink()
    ((series,), problems) = read(root)
    assert series.subtypes is None
    assert problems.items[0].source == TABLE


def test_empty_folder(tmp_path, write_ct_ich):
    (tmp_path / "ct_scans").mkdir()
    with pytest.raises(DataError, match=r"no \.nii files in the folder ct_scans"):
        read(tmp_path)


def test_masks_missing(tmp_path, write_ct_ich):
    root = write_ct_ich(tmp_path)
    (root / "masks").rename(tmp_path / "elsewhere")
    all_series, problems = read(root)
    assert [series.mask for series in all_series] == [None, None]
    assert problems.items == []
    with pytest.raises(DataError, match=r"no \.nii files in the folder masks to learn from; put"):
        load_slices(root, size=16, window=(40, 80), labelled=True, progress=False)
