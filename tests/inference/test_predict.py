"""From a folder to masks, volumes and pages, as a user runs it."""

import csv
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from band import write_band_model
from dicom_series import GEOMETRIES, write_ct_series
from pydicom import dcmread
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import RLELossless

from ichfast.errors import OutputError
from ichfast.inference.result import describe_scan
from ichfast.inference.state import Outcome, Settings
from ichfast.inference.summary import make_page
from ichfast.predict import main

FILES = {"mask.nii.gz", "result.json", "report.html"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_band_model(tmp_path / "band.safetensors")


def run(model: Path, out: Path, *words: object) -> int:
    return main([*map(str, words), "--model", str(model), "--out", str(out)])


def read_results(out: Path) -> dict[str, dict[str, Any]]:
    found = {path.parent.name: path for path in out.glob("*/result.json")}
    return {name: json.loads(path.read_text()) for name, path in sorted(found.items())}


def only(out: Path) -> dict[str, Any]:
    (result,) = read_results(out).values()
    return result


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_study_of_every_geometry(geometry: str, model: Path, tmp_path: Path) -> None:
    written = write_ct_series(tmp_path / "study", geometry)
    out = tmp_path / "out"
    assert run(model, out, written.root) == 0
    result = only(out)
    folder = out / result["name"]
    assert {path.name for path in folder.iterdir()} >= FILES

    mask = np.asarray(nib.load(folder / "mask.nii.gz").dataobj)
    assert mask.sum() == written.mask.sum() == result["pixels"]
    assert result["areas_pixels"] == written.mask.sum((1, 2)).tolist()
    area = np.prod([np.linalg.norm(written.down), np.linalg.norm(written.across)])
    volume = (written.mask.sum((1, 2)) * result["slabs_mm"]).sum() * area / 1000
    assert result["volume_ml"] == pytest.approx(volume, abs=1e-6)
    assert result["volume_ml"] == pytest.approx(written.volume_ml, rel=0.03)  # of coarse voxels
    assert (folder / "mask_regular.nii.gz").exists() == (geometry in ("tilted", "uneven", "both"))
    assert result["interval_ml"] is None
    assert result["not_calibrated"]["volume"] == "drawn by hand"
    if geometry == "negative":
        assert result["components"] == []
        assert result["volume"] == "0.0 mL"


def test_the_same_scan_as_nifti(model: Path, tmp_path: Path) -> None:
    written = write_ct_series(tmp_path / "study")
    affine = np.diag([-3.5, -3.5, 5.0, 1.0])
    (tmp_path / "nifti").mkdir()
    volume = written.hu.transpose(2, 1, 0)  # x, y, z in LPS, as the affine says
    nib.save(nib.Nifti1Image(volume, affine), tmp_path / "nifti" / "head.nii.gz")
    assert run(model, tmp_path / "a", tmp_path / "nifti") == 0
    assert run(model, tmp_path / "b", tmp_path / "nifti" / "head.nii.gz") == 0
    for out in (tmp_path / "a", tmp_path / "b"):
        result = only(out)
        found = nib.load(out / result["name"] / "mask.nii.gz")
        np.testing.assert_array_equal(found.affine, affine)
        np.testing.assert_array_equal(
            np.asarray(found.dataobj), written.mask.transpose(2, 1, 0).astype(np.uint8)
        )
        assert result["not_written"] == {"seg.dcm": "the scan is not DICOM"}


@pytest.mark.parametrize("words", [(), ("--anonymous",)])
def test_namesakes_and_odd_names_have_results_of_their_own(
    words: tuple[str, ...], model: Path, tmp_path: Path
) -> None:
    written = write_ct_series(tmp_path / "study")
    image = nib.Nifti1Image(written.hu.transpose(2, 1, 0), np.diag([-3.5, -3.5, 5.0, 1.0]))
    inputs = []
    for place in ("a/scan/ct", "b/scan/ct", "c/scan/\udcff\n<b>"):
        inputs.append(tmp_path / f"{place}.nii.gz")
        inputs[-1].parent.mkdir(parents=True)
        nib.save(image, tmp_path / "one.nii.gz")
        (tmp_path / "one.nii.gz").rename(inputs[-1])
    (tmp_path / "link").symlink_to(inputs[0].parent)  # the first again
    out = tmp_path / "out"
    assert run(model, out, *inputs, inputs[0], tmp_path / "link" / "ct.nii.gz", *words) == 0
    assert len(read_results(out)) == 3


def test_many_studies_side_by_side_are_as_one_after_the_other(model: Path, tmp_path: Path) -> None:
    for geometry in GEOMETRIES:
        write_ct_series(tmp_path / "studies" / geometry, geometry)
    assert run(model, tmp_path / "one", tmp_path / "studies") == 0
    assert run(model, tmp_path / "two", tmp_path / "studies", "--jobs", 2) == 0
    one, two = read_results(tmp_path / "one"), read_results(tmp_path / "two")
    assert len(one) == len(GEOMETRIES)
    for result in (*one.values(), *two.values()):
        del result["seconds"], result["made"]
    assert one == two
    rows = list(csv.DictReader((tmp_path / "one" / "summary.csv").open()))
    assert {row["name"]: float(row["volume_ml"]) for row in rows} == {
        name: result["volume_ml"] for name, result in one.items()
    }
    page = (tmp_path / "one" / "index.html").read_text()
    assert all(f"href='{name}/report.html'" in page for name in one)


def test_a_second_call_does_what_is_new_or_has_changed(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_ct_series(tmp_path / "studies" / "a", patient="a")
    write_ct_series(tmp_path / "studies" / "b", patient="b")
    out = tmp_path / "out"
    assert run(model, out, tmp_path / "studies") == 0
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*")}
    capsys.readouterr()
    assert run(model, out, tmp_path / "studies") == 0
    assert "2 of 2 scans are there already" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("*/*")}

    write_ct_series(tmp_path / "studies" / "c", patient="c")
    os.utime(first.files[0])
    assert run(model, out, tmp_path / "studies") == 0
    assert "1 of 3 scans are there already" in capsys.readouterr().out
    assert len(read_results(out)) == 3

    longer = write_ct_series(tmp_path / "more", patient="b")
    longer.files[-1].rename(tmp_path / "more" / "last.dcm")
    (tmp_path / "more" / "last.dcm").rename(tmp_path / "studies" / "b" / "last.dcm")
    assert run(model, out, tmp_path / "studies") == 0
    assert "2 of 3 scans are there already" in capsys.readouterr().out


def test_no_file_stays_beside_those_of_another_mask(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ct_series(tmp_path / "study", "both")
    out = tmp_path / "out"
    assert run(model, out, tmp_path / "study") == 0
    assert (out / only(out)["name"] / "mask_regular.nii.gz").exists()

    def stop(*_: object) -> None:
        raise OutputError("no page")

    write_ct_series(tmp_path / "study", "both", shape=(72, 72))
    monkeypatch.setattr("ichfast.inference.write.write_regular", stop)
    assert run(model, out, tmp_path / "study") == 1
    (folder,) = (path for path in out.iterdir() if path.is_dir() and path.name != ".state")
    assert [path.name for path in folder.iterdir()] == ["mask.nii.gz"]


def test_a_file_that_goes_while_it_is_listed_costs_its_own_series_alone(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ichfast.data.layouts.dicom_folder import DicomFolder

    gone = write_ct_series(tmp_path / "studies" / "a", patient="a").files[3]
    write_ct_series(tmp_path / "studies" / "b", patient="b")
    list_units = DicomFolder.list_units

    def lose(self: Any, *args: Any, **options: Any) -> Any:
        units = list_units(self, *args, **options)
        gone.unlink()
        return units

    monkeypatch.setattr(DicomFolder, "list_units", lose)
    assert run(model, tmp_path / "out", tmp_path / "studies") == 1
    assert only(tmp_path / "out")["patient"] == "b"


def test_a_killed_run_goes_on(model: Path, tmp_path: Path) -> None:
    for patient in "abcdef":
        write_ct_series(tmp_path / "studies" / patient, patient=patient)
    out = tmp_path / "out"
    words = [str(tmp_path / "studies"), "--model", str(model), "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "ichfast.predict", *words], stdout=subprocess.DEVNULL
    )
    while not list(out.glob("*/result.json")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for path in out.glob("*/*"):  # whole, or not there
        if path.name == "result.json":
            json.loads(path.read_text())
    assert main(words) == 0
    assert len(read_results(out)) == 6
    assert not list(out.glob("*/.partial*"))


def test_one_bad_study_does_not_stop_the_others(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = write_ct_series(tmp_path / "studies" / "bad", patient="bad")
    for path in bad.files:
        path.write_bytes(path.read_bytes()[:-1000])
    write_ct_series(tmp_path / "studies" / "good", patient="good")
    (tmp_path / "studies" / "notes.txt").write_text("not a scan")
    out = tmp_path / "out"
    assert run(model, out, tmp_path / "studies", tmp_path / "nowhere") == 1
    assert only(out)["patient"] == "good"
    page = (out / "index.html").read_text()
    assert "truncated" in page
    assert "notes.txt" in page
    assert "nowhere" in page
    assert "1 segmented" in capsys.readouterr().out


def test_what_is_no_head_is_left_out_and_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ct_series(tmp_path / "in" / "chest", patient="c", BodyPartExamined="CHEST")
    write_ct_series(tmp_path / "in" / "one", patient="o", missing=tuple(range(1, 16)))
    write_ct_series(tmp_path / "in" / "large", patient="l", PixelSpacing=[8.0, 8.0])
    out = tmp_path / "out"
    assert run(model, out, tmp_path / "in") == 1  # nothing at all
    text = capsys.readouterr().out
    assert "BodyPartExamined names CHEST" in text
    assert "one slice is no scan" in text
    assert "use --force" in text
    assert not read_results(out)
    assert run(model, tmp_path / "forced", tmp_path / "in", "--force") == 0
    results = read_results(tmp_path / "forced").values()
    assert len(results) == 3
    assert all("perhaps no head" in " ".join(result["warnings"]) for result in results)


def test_contrast_and_gaps_are_said(model: Path, tmp_path: Path) -> None:
    write_ct_series(tmp_path / "in", missing=(7,), ContrastBolusAgent="Iohexol")
    assert run(model, tmp_path / "out", tmp_path / "in") == 0
    warnings = " ".join(only(tmp_path / "out")["warnings"])
    assert "contrast agent" in warnings
    assert "gap of 10.0 mm" in warnings


def test_anonymous_leaves_out_names_ids_and_paths(model: Path, tmp_path: Path) -> None:
    root = tmp_path / "Jane Doe"
    written = write_ct_series(root / "HEAD-JANED", patient="DOE-1234")
    damaged = written.files[0].read_bytes()[:-1000]
    (root / "HEAD-JANED" / "JANED-BAD").write_bytes(damaged)
    write_ct_series(root / "CHEST-JANED", patient="DOE-12345", BodyPartExamined="CHEST")
    (root / "BROKEN-JANED").mkdir()
    (root / "BROKEN-JANED" / "JANED-ONLY.dcm").write_bytes(damaged)
    broken = tmp_path / "JANED.nii.gz"
    broken.write_bytes(b"no such file")
    out = tmp_path / "out"
    inputs = (root, broken, tmp_path / "JANED-nowhere")
    assert run(model, out, *inputs, "--anonymous") == 1
    result = only(out)
    assert result["not_written"].keys() == {"seg.dcm"}
    assert re.fullmatch(r"scan-[0-9a-f]{12}", result["name"])
    assert result["warnings"][0].startswith("a file: pixel data is truncated")
    assert "inputs that cannot be read: 1" in (out / "index.html").read_text()
    import pydicom

    header = pydicom.dcmread(written.files[0], stop_before_pixels=True)
    secrets = ["Jane", "JANED", "DOE-", "Drawn^Head", "000.dcm"]
    secrets += [header.StudyInstanceUID, header.SeriesInstanceUID]
    for path in out.rglob("*"):
        if path.is_file() and not path.is_relative_to(out / ".state"):
            data = path.read_bytes()
            data += gzip.decompress(data) if path.suffix == ".gz" else b""
            assert not [word for word in secrets if word.encode() in data], path
    assert run(model, out, *inputs, "--anonymous") == 1  # the same name again
    assert only(out)["name"] == result["name"]


@pytest.mark.parametrize(
    ("reasons", "said"), [({"scan": "why"}, "not calibrated"), ({}, "unknown without mL")]
)
def test_a_scan_without_a_score(reasons: dict[str, str], said: str) -> None:
    assert describe_scan({"scan": None, "not_calibrated": reasons}) == said


def test_the_index_has_the_largest_volume_first() -> None:
    volumes = {"fine": (900, 20.0), "coarse": (300, 30.0), "unknown": (5000, None)}
    outcomes = [
        Outcome(
            name,
            "done",
            numbers={"pixels": pixels, "volume_ml": ml, "volume": "", "components": 1}
            | {"slices": 9, "scan": "", "warnings": ""},
        )
        for name, (pixels, ml) in volumes.items()
    ]
    page = make_page(outcomes, [], [], Settings("m", "0", anonymous=False, force=False))
    assert re.findall(r"'>(\w+)</a>", page) == ["coarse", "fine", "unknown"]


def test_text_of_headers_is_escaped(model: Path, tmp_path: Path) -> None:
    write_ct_series(tmp_path / "in", patient="=<script>alert(1)</script>")
    out = tmp_path / "out"
    assert run(model, out, tmp_path / "in") == 0
    for page in out.rglob("*.html"):
        assert "<script>alert" not in page.read_text()
    (row,) = csv.DictReader((out / "summary.csv").open())
    assert row["patient"] == "'=<script>alert(1)</script>"


@pytest.mark.parametrize(
    ("prepare", "words", "error"),
    [
        ("", ["nowhere"], "nowhere: no such folder"),
        ("text", ["in"], "nothing could be read|no data set found"),
        ("study", ["in", "--jobs", "0"], "--jobs 0 must be at least 1"),
        ("study", ["in", "--device", "tpu"], "--device tpu is not supported"),
        ("study foreign", ["in"], "holds other files"),
        ("study inside", ["in"], "lies inside"),
        ("study other", ["in"], "results made by another model"),
    ],
)
def test_refusals(
    prepare: str,
    words: list[str],
    error: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    if "text" in prepare:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a.txt").write_text("a")
    if "study" in prepare:
        write_ct_series(tmp_path / "in")
    if "foreign" in prepare:
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    if "inside" in prepare:
        out = tmp_path / "in" / "out"
    if "other" in prepare:
        other = write_band_model(tmp_path / "other.safetensors", size=32)
        assert run(other, out, *words) == 0
    assert run(model, out, *words) == 2
    assert re.search(error, capsys.readouterr().err)


def test_a_folder_in_use_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ichfast.files import lock

    write_ct_series(tmp_path / "in")
    (tmp_path / "out").mkdir()
    with lock(tmp_path / "out" / ".lock-0"):
        assert run(model, tmp_path / "out", tmp_path / "in") == 2
    assert "is in use by process" in capsys.readouterr().err


def test_shares_of_two_processes(model: Path, tmp_path: Path) -> None:
    for patient in "abc":
        write_ct_series(tmp_path / "in" / patient, patient=patient)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ichfast.predict", str(tmp_path / "in")]
    command += ["--model", str(model), "--out", str(out)]
    processes = [
        subprocess.Popen(command, env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2"})
        for rank in (1, 0)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(read_results(out)) == 3
    assert len(list(csv.DictReader((out / "summary.csv").open()))) == 3


def test_what_failed_before_is_waited_for_again(model: Path, tmp_path: Path) -> None:
    """By the first of two processes, though the second comes late."""
    written = [write_ct_series(tmp_path / "in" / name, patient=name) for name in "ab"]
    whole = {path: path.read_bytes() for one in written for path in one.files}
    for path, data in whole.items():
        path.write_bytes(data[:-1000])
    out = tmp_path / "out"
    assert run(model, out, tmp_path / "in") == 1
    for path, data in whole.items():
        path.write_bytes(data)
    command = [sys.executable, "-m", "ichfast.predict", str(tmp_path / "in")]
    command += ["--model", str(model), "--out", str(out)]

    def start(rank: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2"})

    first = start(0)
    end = time.monotonic() + 300
    while not list(out.glob("*/result.json")):
        assert first.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    assert [process.wait() for process in (start(1), first)] == [0, 0]
    rows = list(csv.DictReader((out / "summary.csv").open()))
    assert [row["status"] for row in rows] == ["done", "done"]


def test_pictures_that_are_not_square(tmp_path: Path) -> None:
    """Masks and volumes are of the scan's own grid."""
    model = write_band_model(tmp_path / "fine.safetensors", size=256)
    written = write_ct_series(tmp_path / "in", shape=(512, 666), spacing=(0.45, 0.36))
    out = tmp_path / "out"
    assert run(model, out, written.root) == 0
    result = only(out)
    mask = np.asarray(nib.load(out / result["name"] / "mask.nii.gz").dataobj)
    assert mask.shape == (666, 512, 16)
    assert mask.sum() == result["pixels"] == pytest.approx(written.mask.sum(), rel=0.05)
    assert result["volume_ml"] == pytest.approx(mask.sum() * 0.45 * 0.36 * 5 / 1000)


def test_series_of_mixed_spacings(model: Path, tmp_path: Path) -> None:
    """One SeriesInstanceUID, two pixel spacings: two scans, and both are measured by their own."""
    one = write_ct_series(tmp_path / "in" / "one")
    two = write_ct_series(tmp_path / "in" / "two")
    for path in two.files:
        dataset = dcmread(path)
        dataset.SeriesInstanceUID = dcmread(one.files[0]).SeriesInstanceUID
        dataset.StudyInstanceUID = dcmread(one.files[0]).StudyInstanceUID
        dataset.PixelSpacing = [float(x) * 0.8 for x in dataset.PixelSpacing]
        dataset.save_as(path)
    out = tmp_path / "out"
    assert run(model, out, tmp_path / "in") == 0
    small, large = sorted(result["volume_ml"] for result in read_results(out).values())
    assert small == pytest.approx(0.64 * large, rel=1e-3)
    assert all("mixed series" in result["quirks"] for result in read_results(out).values())


def test_compressed_without_its_decoder(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file and what to install are said, and the other scans are done."""
    bad = write_ct_series(tmp_path / "in" / "packed", patient="p")
    for path in bad.files:
        dataset = dcmread(path)
        dataset.compress(RLELossless, encoding_plugin="pydicom")
        dataset.save_as(path)
    write_ct_series(tmp_path / "in" / "plain", patient="q")
    monkeypatch.setattr(get_decoder(RLELossless), "_available", {})
    out = tmp_path / "out"
    assert run(model, out, tmp_path / "in") == 1
    assert only(out)["patient"] == "q"
    said = capsys.readouterr().out
    assert "packed" in said
    assert "pip install" in said


def test_files_that_change_while_they_are_read(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ichfast.data.layouts.dicom_folder import DicomFolder

    written = write_ct_series(tmp_path / "in")
    read_unit = DicomFolder.read_unit

    def change(self: Any, *args: Any, **options: Any) -> Any:
        yield from read_unit(self, *args, **options)
        os.utime(written.files[3], ns=(1, 1))

    monkeypatch.setattr(DicomFolder, "read_unit", change)
    assert run(model, tmp_path / "out", tmp_path / "in") == 1
    assert "changed while they were read" in capsys.readouterr().out
    monkeypatch.undo()
    assert run(model, tmp_path / "out", tmp_path / "in") == 0
