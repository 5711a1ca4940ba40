"""The audit of folders: what is odd is found, nothing else is told, and nothing stops it."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import pytest
from data.conftest import head
from data.conftest import head_ct as head_ct
from data.conftest import write_dicom as write_dicom

from ichfast.audit import main
from ichfast.data.audit import survey
from ichfast.data.elements import walk_elements
from ichfast.data.headers import TAGS, read_header, scan_header
from ichfast.data.problems import Refused

ATTACK = "<script>alert(1)</script>"


@pytest.fixture
def write(tmp_path: Path, write_dicom: Callable[..., Path]) -> Callable[..., Path]:
    """A slice in a set, its picture told apart by z unless it is given."""

    def write(name: str, z: float = 0.0, picture: float | None = None, **tags: Any) -> Path:
        hu = head(32) + int(z if picture is None else picture)
        return write_dicom(tmp_path / name, hu.astype(np.int16), z, **tags)

    return write


def series(write: Callable[..., Path], folder: str, *z: float, **tags: Any) -> None:
    for i, position in enumerate(z):
        write(f"{folder}/{i:03d}.dcm", position, **tags)


def run(tmp_path: Path, *arguments: str, status: int) -> dict[str, Any]:
    out = tmp_path / "out"
    paths = [str(tmp_path / a) if (tmp_path / a).exists() else a for a in arguments]
    assert main([*paths, "--out", str(out)]) == status
    found: dict[str, Any] = json.loads((out / "audit.json").read_text())
    return found


def named(found: dict[str, Any], name: str) -> list[str]:
    return [one["file"] for f in found["findings"] if f["name"] == name for one in f["named"]]


def test_a_plain_set(tmp_path, write, capsys):
    series(write, "set", 0, 5, 10)
    found = run(tmp_path, "set", status=0)
    assert found["sets"] == [
        {
            "name": "set",
            "files": 3,
            "slices": 3,
            "series": 1,
            "studies": 1,
            "patients": 1,
            "refused": 0,
            "left_out": 0,
        }
    ]
    assert found["findings"] == found["shared"] == []
    assert found["series"][0]["found"] == []
    assert found["slice_spacing_mm"] == [[5.0, 2]]
    assert "3 CT slices in 1 series of 1 patient; 0 refused" in capsys.readouterr().out


def test_the_json_keeps_its_shape(tmp_path, write):
    series(write, "set", 0, 5)
    (tmp_path / "set" / "empty.dcm").touch()
    found = run(tmp_path, "set", status=1)
    assert (found["format"], found["version"]) == ("ichfast-audit", 1)
    assert list(found) == [
        *("format", "version", "pixels_read", "identified", "sets", "shared"),
        *("studies_of_several_patients", "listed", "identical", "findings", "series_findings"),
        *("slice_spacing_mm", "pixel_spacing_mm", "tilt_degrees", "series"),
    ]
    assert list(found["findings"][0]) == ["kind", "name", "files", "possible", "named"]
    assert list(found["series"][0]) == [
        *("set", "patient", "study", "series", "first_file", "slices", "size"),
        *("pixel_spacing_mm", "tilt", "spacings_mm", "duplicate_positions", "missing_slices"),
        *("found", "quirks_of_files", "possible"),
    ]


def test_geometry(tmp_path, write):
    series(write, "set/gap", 0, 5, 10, 20, 25, SeriesInstanceUID="1")
    series(write, "set/twice", 0, 5, 5, 10, SeriesInstanceUID="2")
    series(write, "set/mixed", 0, 5, SeriesInstanceUID="3")
    write("set/mixed/other.dcm", 0, SeriesInstanceUID="3", PixelSpacing=[0.4, 0.4])
    tilted = [1, 0, 0, 0, 0.9397, -0.342]
    series(write, "set/tilted", 0, 5, SeriesInstanceUID="4", ImageOrientationPatient=tilted)
    found = run(tmp_path, "set", status=0)
    by_first = {one["first_file"]: one for one in found["series"]}
    gap = by_first["gap/000.dcm"]
    assert gap["found"] == ["uneven spacing", "missing slices"]
    assert gap["missing_slices"] == 1
    assert gap["spacings_mm"] == [[5.0, 3], [10.0, 1]]
    twice = by_first["twice/000.dcm"]
    assert "duplicate positions" in twice["found"]
    assert twice["duplicate_positions"] == 1
    assert "missing slices" not in twice["found"]
    assert by_first["mixed/000.dcm"]["found"] == ["mixed series"]
    assert by_first["mixed/other.dcm"]["found"] == ["mixed series", "single slice"]
    assert by_first["tilted/000.dcm"]["tilt"] == 20.0
    assert found["series_findings"]["mixed series"] == 2


def test_bad_files_are_named_and_the_rest_goes_on(tmp_path, write):
    series(write, "set", 0, 5)
    cut = write("set/cut.dcm", 10)
    cut.write_bytes(cut.read_bytes()[:-100])
    write("set/scout.dcm", 15, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write("set/spacing.dcm", 20, PixelSpacing=None)
    (tmp_path / "set" / "empty.dcm").touch()
    (tmp_path / "set" / "notes.txt").write_text("hello")
    (tmp_path / "set" / "049.nii.gz").write_bytes(b"anything")
    found = run(tmp_path, "set", status=1)
    assert named(found, "pixel data is truncated") == ["cut.dcm"]
    assert named(found, "localizer") == ["scout.dcm"]
    assert named(found, "empty file") == ["empty.dcm"]
    assert named(found, "NIfTI, not looked into") == ["049.nii.gz"]
    assert named(found, "PixelSpacing is missing or not 2 finite numbers") == ["spacing.dcm"]
    assert named(found, "not a DICOM file (no DICM mark at byte 128)") == ["notes.txt"]
    part = found["sets"][0]
    assert (part["slices"], part["refused"], part["left_out"]) == (2, 3, 3)


def test_what_sets_share(tmp_path, write, capsys):
    series(write, "train", 0, 5, PatientID="Doe", StudyInstanceUID="7")
    series(write, "pool/a", 0, 5, PatientID="Doe", SeriesInstanceUID="9")
    series(write, "pool/b", 0, 5, PatientID="Roe", StudyInstanceUID="7", SeriesInstanceUID="8")
    series(write, "pool/nameless", 0, 5, PatientID="", StudyInstanceUID="", SeriesInstanceUID="6")
    series(write, "train/nameless", 0, 5, PatientID="", StudyInstanceUID="", SeriesInstanceUID="5")
    found = run(tmp_path, "train", "pool", status=1)
    (pair,) = found["shared"]
    assert pair["sets"] == ["train", "pool"]
    assert [len(pair[kind]) for kind in ("patient", "study", "series")] == [1, 1, 0]
    assert len(found["studies_of_several_patients"]) == 1
    assert "train and pool share 1 patient, 1 study\n" in capsys.readouterr().out


def test_exclude_lists(tmp_path, write):
    series(write, "set/a", 0, 5, StudyInstanceUID="ID_aa", SeriesInstanceUID="1")
    series(write, "set/b", 0, StudyInstanceUID="ID_bb", SeriesInstanceUID="2")
    write("set/ID_file.dcm", 5, StudyInstanceUID="ID_cc", SeriesInstanceUID="3")
    (tmp_path / "bhsd.txt").write_bytes(
        "\ufeff# BHSD\r\nID_aa\r\n\r\nID_gone\r\nID_file\r\n".encode()
    )
    found = run(tmp_path, "set", "--exclude-list", "bhsd.txt", status=1)
    (listed,) = found["listed"]
    assert (listed["list"], listed["ids"], listed["present"]) == ("bhsd.txt", 3, 2)
    assert [(one["kind"], one["file"]) for one in listed["found"]] == [
        ("study", "a/000.dcm"),
        ("file", "ID_file.dcm"),
    ]


def test_no_identity_unless_asked(tmp_path, write, capsys):
    series(write, "set/Doe-77", 0, 5, PatientID="Doe-77", PatientName="Doe^Jane")
    (tmp_path / "set" / "Doe-77" / "bad.dcm").touch()
    first = run(tmp_path, "set", status=1)
    text = "".join((tmp_path / "out" / name).read_text() for name in ("audit.html", "audit.json"))
    assert not re.search("doe|jane", text + capsys.readouterr().out, re.IGNORECASE)
    assert re.fullmatch("patient-[a-z2-7]{8}", first["series"][0]["patient"])
    assert first["series"][0]["first_file"].startswith(first["series"][0]["patient"])
    assert run(tmp_path, "set", status=1) == first, "the same folder keeps its pseudonyms"
    (tmp_path / "out" / "audit.salt").unlink()
    assert run(tmp_path, "set", status=1)["series"][0]["patient"] != first["series"][0]["patient"]
    found = run(tmp_path, "set", "--identify", status=1)
    assert found["series"][0]["patient"] == "Doe-77"
    assert "keep this page to yourself" in (tmp_path / "out" / "audit.html").read_text()


def test_hostile_text_is_escaped(tmp_path, write):
    tags = {"PatientID": ATTACK, "StudyInstanceUID": ATTACK, "SeriesInstanceUID": ATTACK}
    series(write, "set <b>", 0, 5, 15, **tags)
    series(write, "other", 0, 5, 15, **tags)
    (tmp_path / "set <b>" / "<i>x.dcm").touch()
    (tmp_path / "set <b>" / "a\nb.dcm").touch()
    (tmp_path / "<u>.txt").write_text(ATTACK)
    run(tmp_path, "set <b>", "other", "--identify", "--exclude-list", "<u>.txt", status=1)
    html = (tmp_path / "out" / "audit.html").read_text()
    assert "&lt;script&gt;alert(1)" in html
    assert not re.search("<script|<b>|<i>|<u>|https?:", html)
    assert r"a\nb.dcm" in html


def test_pixels(tmp_path, write):
    one = {"PatientID": "a", "StudyInstanceUID": "1", "SeriesInstanceUID": "1"}
    two = {"PatientID": "b", "StudyInstanceUID": "2", "SeriesInstanceUID": "2"}
    series(write, "one", 0, 5, **one)
    series(write, "two", 0, 5, **two)
    write("two/stored.dcm", 10, picture=5)
    again = head(32) + 5 + 24
    write("two/again.dcm", 15, RescaleIntercept=-24, PixelData=again.astype(np.int16).tobytes())
    blank = np.full((32, 32), -1000, np.int16).tobytes()
    write("one/blank.dcm", 20, PixelData=blank, **one)
    write("two/blank.dcm", 20, PixelData=blank, **two)
    found = run(tmp_path, "one", "two", "--pixels", status=1)
    assert found["identical"]["groups_across_sets"] == 2
    groups = [{one["file"] for one in group} for group in found["identical"]["named"]]
    assert {"001.dcm", "stored.dcm", "again.dcm"} in groups
    assert named(found, "all pixels alike") == ["blank.dcm", "blank.dcm"]
    assert run(tmp_path, "one", "two", status=0)["identical"] is None


def test_headers_say_what_pixels_would(tmp_path, write):
    series(write, "set", 0, 5, PixelPaddingValue=-2000)
    assert [
        (f["name"], f["files"], f["possible"]) for f in run(tmp_path, "set", status=0)["findings"]
    ] == [("pixel padding", 0, 2)]


def test_processes_do_not_change_the_result(tmp_path, write, monkeypatch):
    for i in range(6):
        series(write, f"set/{i}", 0, 5, 15, SeriesInstanceUID=str(i), StudyInstanceUID=str(i))
    one = run(tmp_path, "set", "--workers", "1", status=0)
    monkeypatch.setattr(survey, "CHUNK", {False: 4})
    assert run(tmp_path, "set", "--workers", "2", status=0) == one
    assert one["sets"][0]["series"] == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such folder"),
        (["empty"], "holds no files"),
        (["set", "set/deep"], "lies in"),
        (["set", "--workers", "0"], "--workers 0 must be at least 1"),
        (["set", "--exclude-list", "empty.txt"], "holds no id"),
        (["set", "--exclude-list", "gone.txt"], "cannot be read"),
    ],
)
def test_refusals_are_one_sentence(tmp_path, write, capsys, arguments, message):
    series(write, "set/deep", 0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").touch()
    paths = [a if a.startswith("-") or a == "0" else str(tmp_path / a) for a in arguments]
    assert main([*paths, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out" / "audit.json").exists()


def test_its_own_output_is_left_out(tmp_path, write):
    series(write, "set", 0, 5)
    for _ in range(2):
        assert main([str(tmp_path / "set"), "--out", str(tmp_path / "set" / "audit")]) == 0
    found = json.loads((tmp_path / "set" / "audit" / "audit.json").read_text())
    assert found["sets"][0]["files"] == 2


def test_interrupt_writes_nothing(tmp_path, write, monkeypatch, capsys):
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    series(write, "set", 0, 5)
    monkeypatch.setattr(survey, "_tally", interrupted)
    assert main([str(tmp_path / "set"), "--out", str(tmp_path / "out")]) == 130
    assert not list((tmp_path / "out").glob("*audit.[hj]*"))


def test_as_a_command(tmp_path, write):
    series(write, "set", 0, 5)
    command = [sys.executable, "-m", "ichfast.audit", "set", "--out", "out"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0


def test_real_head_ct(tmp_path, head_ct):
    found = run(tmp_path, str(head_ct), "--pixels", status=0)
    (one,) = found["series"]
    assert one["tilt"] == 18.5
    assert one["spacings_mm"] == [[4.002, 13], [1.081, 1], [6.999, 13]]
    assert one["found"] == ["gantry tilt", "uneven spacing"]
    assert one["quirks_of_files"] == {"pixel padding": 28}


# The quick reader of headers: what pydicom's would say, or it leaves the file to pydicom.


def outcome(read: Callable[[Path], Any], path: Path) -> Any:
    try:
        header = read(path)
    except Refused as refused:
        return str(refused), refused.skip
    return repr(header)  # arrays in it compare by their text


def quick(path: Path) -> Any:
    return scan_header(path)[0]


def walked(data: bytes) -> bool:
    return walk_elements(data, TAGS) is not None


@pytest.fixture(scope="module")
def samples() -> list[Path]:
    """Every file that comes with pydicom."""
    folder = Path(pydicom.data.__file__).parent
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_quick_header_agrees_on_pydicoms_files(samples):
    for path in samples:
        assert outcome(quick, path) == outcome(read_header, path), path.name
    assert sum(walked(path.read_bytes()) for path in samples) > 50


def test_quick_header_agrees_on_mutants(samples, tmp_path, write):
    rng = random.Random(0)
    ours = [write("a.dcm").read_bytes(), write("b.dcm", PixelPaddingValue=-5).read_bytes()]
    theirs = [path.read_bytes()[:16384] for path in samples if path.name.startswith(("CT_", "MR"))]
    path, taken, headers = tmp_path / "mutant.dcm", 0, 0
    for _ in range(2000):
        data = bytearray(rng.choice(rng.choice((ours, theirs))))
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randrange(128, min(len(data), 2500))
            match rng.randrange(5):
                case 0 | 1:
                    data[at] = rng.randrange(256)
                case 2:
                    del data[at : at + rng.randrange(1, 9)]
                case 3:
                    data[at:at] = rng.randbytes(rng.randrange(1, 9))
                case 4:
                    data[at : at + 4] = b"\xff\xff\xff\xff"
        path.write_bytes(data)
        said = outcome(quick, path)
        assert said == outcome(read_header, path)
        taken += walked(bytes(data))
        headers += isinstance(said, str)
    assert taken > 300
    assert headers > 300
