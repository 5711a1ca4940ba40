"""The phantom: the same bits always, the published layouts to the letter, and honest labels."""

import csv
import hashlib
import json
from itertools import pairwise
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from ichfast.data.phantom import cohort, write_phantom
from ichfast.data.phantom.ct_ich import patient_number
from ichfast.data.phantom.geometry import Noise, blur
from ichfast.data.phantom.lesions import SUBTYPES
from ichfast.data.phantom.patient import BONE, Scan, make_scan
from ichfast.errors import OutputError, RecipeError
from ichfast.evaluation.thresholds import tune_thresholds
from ichfast.files import PARTIAL
from ichfast.phantom import main

SMALL = {"patients": 3, "unlabelled_patients": 2, "size": 64, "slices": 4, "seed": 5}

DIAGNOSIS_COLUMNS = [
    "PatientNumber",
    "SliceNumber",
    "Intraventricular",
    "Intraparenchymal",
    "Subarachnoid",
    "Epidural",
    "Subdural",
    "No_Hemorrhage",
    "Fracture_Yes_No",
]


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "set"
    write_phantom(out, **SMALL, progress=False, workers=1)
    return out


@pytest.fixture(scope="module")
def scans() -> list[Scan]:
    return [
        make_scan(
            cohort.make_patient_stream(0, cohort.LABELLED, index),
            128,
            11,
            bleeding=True,
            may_tilt=False,
        )
        for index in range(16)
    ]


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


class TestDeterminism:
    def test_files_do_not_depend_on_the_number_of_workers(
        self, phantom: Path, tmp_path: Path
    ) -> None:
        write_phantom(tmp_path / "again", **SMALL, progress=False, workers=2)
        assert digests(tmp_path / "again") == digests(phantom)

    def test_a_patient_does_not_depend_on_how_many_there_are(
        self, phantom: Path, tmp_path: Path
    ) -> None:
        fewer = SMALL | {"patients": 1, "unlabelled_patients": 1}
        write_phantom(tmp_path / "fewer", **fewer, progress=False, workers=1)
        images = {
            n: d for n, d in digests(tmp_path / "fewer").items() if n[-4:] in (".nii", ".dcm")
        }
        assert images.items() <= digests(phantom).items()

    def test_seed_changes_every_image(self, phantom: Path, tmp_path: Path) -> None:
        write_phantom(tmp_path / "other", **(SMALL | {"seed": 6}), progress=False, workers=1)
        scan = "labelled/ct_scans/049.nii"
        assert digests(tmp_path / "other")[scan] != digests(phantom)[scan]

    def test_streams_are_disjoint(self) -> None:
        draws = {
            cohort.make_patient_stream(0, stream, index).random()
            for stream in (cohort.LABELLED, cohort.UNLABELLED)
            for index in range(50)
        }
        assert len(draws) == 100


class TestLabelledLayout:
    def test_patient_numbers_skip_those_never_published(self) -> None:
        numbers = [patient_number(index) for index in range(76)]
        assert numbers[:11] == [49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 66]
        assert numbers[-2:] == [130, 131]

    def test_files(self, phantom: Path) -> None:
        for folder in ("ct_scans", "masks"):
            names = sorted(path.name for path in (phantom / "labelled" / folder).iterdir())
            assert names == ["049.nii", "050.nii", "051.nii"]

    def test_scan_is_int16_hu_with_an_affine_that_points_left_and_front(
        self, phantom: Path
    ) -> None:
        image = nibabel.load(phantom / "labelled/ct_scans/049.nii")
        assert image.shape == (64, 64, 4)
        assert image.get_data_dtype() == np.int16
        assert nibabel.aff2axcodes(image.affine) == ("L", "A", "S")
        hu = image.get_fdata()
        assert hu.min() >= -1024
        assert hu.max() > 500
        assert np.median(hu[:8, -8:]) == pytest.approx(-1000, abs=20)

    def test_mask_is_scaled_to_about_0_and_255(self, phantom: Path) -> None:
        image = nibabel.load(phantom / "labelled/masks/049.nii")
        raw = np.asarray(image.dataobj.get_unscaled())
        values = image.get_fdata()
        assert np.issubdtype(raw.dtype, np.integer)
        assert (raw != 0).all()  # so that reading the stored integers as booleans is wrong
        blood = values > 127.5
        assert blood.any()
        np.testing.assert_allclose(values, np.where(blood, 255, 0), atol=0.01)
        scan = nibabel.load(phantom / "labelled/ct_scans/049.nii")
        np.testing.assert_array_equal(image.affine, scan.affine)

    def test_diagnosis_agrees_with_masks(self, phantom: Path) -> None:
        path = phantom / "labelled/hemorrhage_diagnosis_raw_ct.csv"
        assert path.read_bytes().startswith(b"\xef\xbb\xbf")
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
        assert rows[0] == DIAGNOSIS_COLUMNS
        assert len(rows) == 1 + 3 * 4
        for row in rows[1:]:
            number, k, *flags, none, _ = map(int, row)
            mask = nibabel.load(phantom / f"labelled/masks/{number:03d}.nii").get_fdata()
            assert (mask[:, :, k - 1] > 127.5).any() == any(flags) == (not none)

    def test_demographics_have_two_header_rows_and_a_footer(self, phantom: Path) -> None:
        text = (phantom / "labelled/Patient_demographics.csv").read_text(encoding="utf-8-sig")
        first = [line.split(",")[0] for line in text.splitlines()]
        assert first == ["Patient Number", "", "49", "50", "51", "3 synthetic patients"]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # as in the published files
class TestUnlabelledLayout:
    def test_headers(self, phantom: Path) -> None:
        files = sorted((phantom / "unlabelled/stage_2_train").iterdir())
        assert len(files) == 2 * 4
        patients = set()
        for file in files:
            assert file.stem.startswith("ID_")
            assert len(file.stem) == 12
            data = pydicom.dcmread(file)
            assert data.SOPInstanceUID == file.stem
            assert data.Modality == "CT"
            assert data.StudyInstanceUID.startswith("ID_")
            assert data.SeriesInstanceUID.startswith("ID_")
            assert (data.Rows, data.Columns) == (64, 64)
            assert data.RescaleIntercept == -1024
            assert (data.BitsStored, data.PixelRepresentation) in ((12, 0), (16, 1))
            for absent in ("SliceThickness", "SliceLocation", "InstanceNumber"):
                assert absent not in data
            hu = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
            assert np.median(hu[:8, :8]) == pytest.approx(-1000, abs=20)
            patients.add(data.PatientID)
        assert len(patients) == 2

    def test_slices_of_a_tilted_gantry_lie_evenly_along_their_normal(self, tmp_path: Path) -> None:
        scan = make_scan(np.random.default_rng(1), 64, 4, bleeding=False, may_tilt=False)
        tilted = Scan(**(vars(scan) | {"tilt": 12.0}))
        from ichfast.data.phantom import rsna

        (tmp_path / rsna.FOLDER).mkdir()
        names = rsna.write_patient(tmp_path, 0, tilted, 0, np.random.default_rng(0))
        positions = []
        for name, _ in names:
            data = pydicom.dcmread(tmp_path / rsna.FOLDER / f"{name}.dcm")
            row, column = np.reshape(np.array(data.ImageOrientationPatient, float), (2, 3))
            normal = np.cross(row, column)
            assert normal[2] == pytest.approx(np.cos(np.deg2rad(12)), abs=1e-5)
            positions.append(float(normal @ np.array(data.ImagePositionPatient, float)))
        for below, above in pairwise(positions):
            assert above - below == pytest.approx(scan.step, abs=1e-3)

    def test_table(self, phantom: Path) -> None:
        with open(phantom / "unlabelled/stage_2_train.csv", newline="") as file:
            rows = list(csv.reader(file))
        assert rows[0] == ["ID", "Label"]
        assert len(rows) == 1 + 6 * 8
        for start in range(1, len(rows), 6):
            image = rows[start][0].rsplit("_", 1)[0]
            assert [row[0] for row in rows[start : start + 6]] == [
                f"{image}_{kind}" for kind in (*SUBTYPES, "any")
            ]
            labels = [int(row[1]) for row in rows[start : start + 6]]
            assert labels[5] == max(labels[:5])
            assert (phantom / f"unlabelled/stage_2_train/{image}.dcm").is_file()


class TestLabels:
    def test_every_subtype_occurs(self, scans: list[Scan]) -> None:
        assert np.any([scan.subtypes.any(axis=0) for scan in scans], axis=0).all()

    def test_blood_is_neither_bone_nor_air(self, scans: list[Scan]) -> None:
        blood = np.concatenate([scan.hu[scan.mask] for scan in scans])
        assert (blood > BONE).mean() < 0.01  # noise alone lifts a voxel above
        assert (blood < 0).mean() < 0.005
        assert 45 < np.median(blood) < 75

    def test_blood_lies_inside_the_skull(self, scans: list[Scan]) -> None:
        for scan in scans:
            bone = scan.hu > 300
            for k in np.flatnonzero(scan.mask.any(axis=(1, 2))):
                rows, columns = np.nonzero(scan.mask[k])
                # Bone to the left, to the right, in front and behind.
                left = np.maximum.accumulate(bone[k], axis=1)[rows, columns]
                right = np.maximum.accumulate(bone[k][:, ::-1], axis=1)[:, ::-1][rows, columns]
                front = np.maximum.accumulate(bone[k], axis=0)[rows, columns]
                back = np.maximum.accumulate(bone[k][::-1], axis=0)[::-1][rows, columns]
                assert (left & right & front & back).mean() > 0.99

    def test_subtypes_agree_with_mask(self, scans: list[Scan]) -> None:
        for scan in scans:
            np.testing.assert_array_equal(scan.mask.any(axis=(1, 2)), scan.subtypes.any(axis=1))

    def test_a_patient_without_haemorrhage_has_no_label(self) -> None:
        scan = make_scan(np.random.default_rng(0), 64, 4, bleeding=False, may_tilt=True)
        assert not scan.mask.any()
        assert not scan.subtypes.any()

    def test_thresholds_fail(self, scans: list[Scan]) -> None:
        found = tune_thresholds(
            np.concatenate([scan.hu for scan in scans]),
            np.concatenate([scan.mask for scan in scans]),
        )
        assert found["threshold"]["dice"] < 0.2
        assert found["band"]["dice"] < 0.45


class TestFolder:
    def test_a_complete_phantom_is_left_alone(self, phantom: Path) -> None:
        before = {path: path.stat().st_mtime_ns for path in phantom.rglob("*")}
        write_phantom(phantom, **SMALL, progress=False, workers=1)
        assert {path: path.stat().st_mtime_ns for path in phantom.rglob("*")} == before

    def test_other_parameters_are_refused(self, phantom: Path) -> None:
        with pytest.raises(OutputError, match="other parameters"):
            write_phantom(phantom, **(SMALL | {"seed": 9}), progress=False)

    def test_foreign_files_are_refused_and_kept(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("mine")
        with pytest.raises(OutputError, match="not a phantom"):
            write_phantom(tmp_path, **SMALL, progress=False)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_a_file_in_the_way_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="file"):
            write_phantom(tmp_path / "file" / "set", **SMALL, progress=False)

    def test_an_interrupted_one_looks_unfinished_and_is_finished_later(
        self, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "set"

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(cohort.rsna, "write_patient", interrupt)
            with pytest.raises(KeyboardInterrupt):
                write_phantom(out, **SMALL, progress=False, workers=1)
        assert not (out / "phantom.json").exists()
        (out / "labelled" / "ct_scans" / f"{PARTIAL}1.049.nii").touch()  # as SIGKILL leaves them
        write_phantom(out, **SMALL, progress=False, workers=1)
        assert digests(out) == digests(phantom)
        manifest = json.loads((out / "phantom.json").read_text())
        assert manifest == SMALL | {"version": cohort.VERSION}

    def test_a_file_is_whole_or_absent(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def touch_and_fill(_: object, path: str) -> None:
            Path(path).touch()
            raise OSError(28, "No space left on device", "049.nii")

        with monkeypatch.context() as patch:
            patch.setattr("nibabel.nifti1.Nifti1Image.to_filename", touch_and_fill)
            with pytest.raises(OutputError, match=r"049\.nii: No space left"):
                write_phantom(tmp_path / "set", **SMALL, progress=False, workers=1)
        left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
        assert left == {cohort.PARTIAL, cohort.LOCK}

    @pytest.mark.parametrize(
        ("name", "value"),
        [("patients", 0), ("unlabelled_patients", -1), ("size", 16), ("slices", 1), ("seed", -1)],
    )
    def test_values_out_of_range_are_named(self, tmp_path: Path, name: str, value: int) -> None:
        with pytest.raises(RecipeError, match=f"{name} is {value}"):
            write_phantom(tmp_path / "set", **(SMALL | {name: value}), progress=False)
        assert not (tmp_path / "set").exists()


class TestCommand:
    def test_writes_and_says_where(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "set"
        sizes = ["--patients", "1", "--unlabelled", "0", "--size", "64", "--slices", "3"]
        assert main(["--out", str(out), *sizes, "--workers", "1"]) == 0
        assert str(out) in capsys.readouterr().out
        assert (out / "phantom.json").exists()
        assert main(["--out", str(out), *sizes, "--seed", "1"]) == 2
        assert "error:" in capsys.readouterr().err

    def test_needs_a_folder(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main([])
        assert "--out DIR" in capsys.readouterr().err


def test_blur_keeps_the_mean_and_spreads_a_point() -> None:
    point = np.zeros((31, 31))
    point[15, 15] = 1
    spread = blur(point, 1.5)
    assert spread.sum() == pytest.approx(1)
    offsets = np.arange(31) - 15
    variance = (spread.sum(axis=0) * offsets**2).sum()
    assert variance == pytest.approx(1.5**2, rel=0.05)


def test_noise_has_unit_variance_and_repeats(scans: list[Scan]) -> None:
    from ichfast.data.phantom.head import Head

    rng = np.random.default_rng(3)
    plane = Head.sample(rng).make_plane(128, 1.8, 10.0, 0.0)
    noise = Noise(rng, 5)
    assert noise(plane).std() == pytest.approx(1, abs=0.1)
    assert noise(plane) is noise(plane)  # evaluated once per slice
