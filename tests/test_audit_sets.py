"""The audit of sets whose scans have names: NIfTI and CT-ICH's pictures, alone and beside DICOM."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import published
import pytest
from data.conftest import write_dicom as write_dicom
from data.published import LPS, ct_ich_100, ct_ich_131, nnunet, rsna, save_nifti, scan
from test_audit import named, run
from test_audit import write as write

from ichfast.data.names import find_shared, split_names

BHSD = "ID_0000000a_ID_0123456789"


def convert(folder: Path, name: str, slices: int = 4) -> None:
    """The series of `rsna`'s second patient as NIfTI."""
    save_nifti(folder / f"{name}.nii.gz", scan()[:slices].astype(np.int16))


def test_ct_ich_beside_rsna(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The pair of the paper, of which one file is bad."""
    ct_ich_131(tmp_path / "ich")
    rsna(tmp_path / "pool")
    found = run(tmp_path, "ich", "pool", status=1)
    ich, pool = found["sets"]
    assert (ich["slices"], ich["series"], ich["patients"], ich["refused"]) == (12, 3, 3, 0)
    assert (pool["slices"], pool["refused"]) == (7, 1)
    assert not any(found["shared"][0][kind] for kind in ("patient", "study", "series"))
    assert "no CT slice" not in capsys.readouterr().out
    own = [one for one in found["series"] if one["set"] == "ich"]
    assert [one["spacings_mm"] for one in own] == [[[5.0, 3]]] * 3
    assert all(one["patient"] in one["first_file"] for one in own), "049.nii is an id"


def test_pictures_have_no_spacing_and_can_be_audited(tmp_path: Path) -> None:
    ct_ich_100(tmp_path / "ich")
    found = run(tmp_path, "ich", status=0)
    assert found["sets"][0]["slices"] == 8
    assert found["series_findings"] == {"no pixel spacing": 2, "windowed grey levels": 2}
    assert found["pixel_spacing_mm"] == []
    assert {one["pixel_spacing_mm"] for one in found["series"]} == {None}
    assert "NaN" not in (tmp_path / "out" / "audit.json").read_text()


def test_the_same_pictures_in_nifti_and_dicom(tmp_path: Path) -> None:
    """Though padding is declared in one and a number like any other in the other."""
    volume = scan().astype(np.int16)
    volume[:, :2] = -2000
    for folder in ("nifti", "dicom"):
        (tmp_path / folder).mkdir()
    save_nifti(tmp_path / "nifti" / "a.nii", volume)
    for k, hu in enumerate(volume[:3]):
        dataset = published.dicom(hu, 5.0 * k, PixelPaddingValue=-2000)
        dataset.save_as(tmp_path / "dicom" / f"{k}.dcm", enforce_file_format=True)
    found = run(tmp_path, "nifti", "dicom", "--pixels", "--identify", status=1)
    assert found["identical"]["groups_across_sets"] == 3
    pairs = [[one["file"] for one in group] for group in found["identical"]["named"]]
    assert pairs == [[f"a.nii#{k + 1}", f"{k}.dcm"] for k in range(3)]


def test_files_named_by_the_ids_of_the_pool(tmp_path: Path) -> None:
    """BHSD's and HemSeg's files are RSNA's scans, by the ids of patient and study."""
    pool = rsna(tmp_path / "pool")
    next(pool.rglob("*.dcm")).unlink()
    for file in pool.rglob("*.dcm"):
        if file.stat().st_size < 2000:
            file.unlink()
    name = "ID_00000001_ID_0000000001"
    (tmp_path / "bhsd").mkdir()
    convert(tmp_path / "bhsd", name)
    found = run(tmp_path, "bhsd", "pool", "--identify", status=1)
    (pair,) = found["shared"]
    assert pair["patient"] == ["ID_00000001"]
    assert pair["study"] == ["ID_0000000001"]
    (tmp_path / "ls.txt").write_text(f"{name}.nii.gz\n")
    (listed,) = run(tmp_path, "pool", "--exclude-list", "ls.txt", status=1)["listed"]
    assert {one["kind"] for one in listed["found"]} == {"patient", "study"}
    (listed,) = run(tmp_path, "bhsd", "--exclude-list", "ls.txt", status=1)["listed"]
    assert listed["present"] == listed["ids"] == 1


def test_names_that_only_begin_alike_are_no_leak() -> None:
    assert find_shared({"ICH_train_001"}, {"ICH_train_002"}) == set()
    assert find_shared({"049"}, {"049_0000", "case_049"}) == set(), "too short to be an id"
    assert find_shared({BHSD}, {"ID_0000000a"}) == {"ID_0000000a"}
    assert find_shared({"ID_0123456789"}, {BHSD}) == {"ID_0123456789"}
    assert find_shared({"head_ct_scan"}, {"head_ct"}) == set(), "no number in it"
    assert split_names(["_".join(map(str, range(10**6, 10**6 + 99)))]) == set()


def test_what_cannot_be_read_is_named_once(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "set")
    save_nifti(root / "labelsTr" / "gone.nii.gz", scan().astype(np.uint8))
    (root / "imagesTr" / "ICH_003_0000.nii.gz").write_bytes(b"nothing")
    grey = np.clip(scan() / 8 + 100, 0, 255).astype(np.int16)
    save_nifti(root / "imagesTr" / "ICH_004_0000.nii.gz", grey)
    found = run(tmp_path, "set", status=1)
    assert found["sets"][0]["slices"] == 8
    reasons = {one["name"]: len(one["named"]) for one in found["findings"]}
    assert reasons.pop("mask without an image in imagesTr") == 1
    assert reasons.pop("not in HU") == 1
    assert reasons.pop("the scan is not a readable NIfTI file (ImageFileError)") == 1
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "ICH_003" not in page, "a name of a patient, as far as anyone knows"


def test_a_table_that_is_none(tmp_path: Path) -> None:
    root = ct_ich_131(tmp_path / "set")
    next(root.glob("hemorrhage*")).write_text("a,b\n1,2\n")
    found = run(tmp_path, "set", status=1)
    assert found["sets"][0]["refused"] == 3
    assert any("no column" in one["named"][0]["detail"] for one in found["findings"])


def test_dicom_among_them_is_looked_at_too(tmp_path: Path, write: Callable[..., Path]) -> None:
    nnunet(tmp_path / "set")
    write("set/more/1.dcm", 0)
    write("set/more/2.dcm", 5)
    (tmp_path / "set" / "more" / "bad.dcm").touch()
    found = run(tmp_path, "set", status=1)
    assert found["sets"][0]["slices"] == 10
    assert named(found, "empty file") == ["more/bad.dcm"]


@pytest.mark.parametrize("pixels", [False, True])
def test_the_number_of_processes_changes_nothing(tmp_path: Path, pixels: bool) -> None:
    ct_ich_131(tmp_path / "ich")
    nnunet(tmp_path / "nnunet")
    save_nifti(tmp_path / "nnunet" / "labelsTr" / "gone.nii.gz", scan().astype(np.uint8))
    more = ["--pixels"] if pixels else []
    text = []
    for workers in "13":
        run(tmp_path, "ich", "nnunet", "--workers", workers, *more, status=1)
        text.append((tmp_path / "out" / "audit.json").read_text())
    assert text[0] == text[1]
    assert json.loads(text[0])["sets"][1]["refused"] == 1


def test_nifti_in_a_tree_of_dicom_is_named(tmp_path: Path, write: Callable[..., Path]) -> None:
    write("set/1.dcm", 0)
    folder = tmp_path / "set" / "masks"
    folder.mkdir()
    save_nifti(folder / "a.nii.gz", scan())
    found = run(tmp_path, "set", status=0)
    (finding,) = found["findings"]
    assert finding["name"] == "NIfTI, not looked into"
    assert finding["named"][0]["detail"] == "give the folder of its set"


def test_an_empty_picture_and_a_volume_in_another_orientation(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    volume = scan().astype(np.int16)
    volume[0] = -1000
    save_nifti(root / "a.nii.gz", volume)
    turn = nibabel.orientations.axcodes2ornt(tuple("SAL"))
    turned = nibabel.load(root / "a.nii.gz").as_reoriented(turn)
    assert not np.allclose(turned.affine, LPS)
    nibabel.save(turned, root / "b.nii.gz")
    found = run(tmp_path, "set", "--pixels", "--identify", status=0)
    empty = named(found, "all pixels alike")
    assert [name.partition("#")[0] for name in empty] == ["a.nii.gz", "b.nii.gz"]
    assert found["identical"]["files"] == 6
