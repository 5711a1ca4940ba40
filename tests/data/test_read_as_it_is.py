"""Healthy files that are less than plain: without preamble or series, through links, copied, of
several acquisitions, with words where numbers may stand.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from enhanced_files import enhanced
from preparing import make
from published import scan

from ichfast.data import Problems, detect_layout, load_slices, read_series
from ichfast.data.audit import Options, audit
from ichfast.data.series import Series


def read(root: Path) -> tuple[list[Series], Problems]:
    problems = Problems()
    return list(read_series(root, problems)), problems


def write_scan(write_dicom: Any, folder: Path, add: int = 0, z0: float = 0, **tags: Any) -> None:
    for k, hu in enumerate(scan()):
        write_dicom(folder / f"{z0}-{add}-{k}.dcm", hu + np.int16(add), z0 + 5 * k, **tags)


@pytest.mark.parametrize("cut", ["preamble", "file meta"])
def test_without_a_preamble(tmp_path: Path, write_dicom: Any, cut: str) -> None:
    write_scan(write_dicom, tmp_path / "whole")
    for k, path in enumerate(sorted((tmp_path / "whole").iterdir())):
        data = path.read_bytes()
        begin = 132 if cut == "preamble" else data.index(b"\x08\x00\x16\x00UI")
        bare = tmp_path / "bare" / f"IM{k}"
        bare.parent.mkdir(exist_ok=True)
        bare.write_bytes(data[begin:])
    (tmp_path / "bare" / "notes").write_text("Dear colleague")
    assert detect_layout(tmp_path / "bare").name == "dicom"
    (series,), problems = read(tmp_path / "bare")
    np.testing.assert_array_equal(series.hu(), scan())
    assert problems.failed == 0
    assert len(make(tmp_path / "bare", tmp_path / "pool")) == 4


def test_an_enhanced_file_without_a_preamble(tmp_path: Path) -> None:
    enhanced(scan(), range(4)).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    (tmp_path / "a.dcm").write_bytes((tmp_path / "a.dcm").read_bytes()[132:])
    (series,), _ = read(tmp_path)
    np.testing.assert_array_equal(series.hu(), scan())


def test_links_to_folders(tmp_path: Path, write_dicom: Any) -> None:
    store, study = tmp_path / "store", tmp_path / "study"
    for name in ("p1", "p2"):
        write_scan(write_dicom, store / name, SeriesInstanceUID=f"1.{name[1]}")
    write_scan(write_dicom, study / "p3", SeriesInstanceUID="1.3")
    for link, target in (("p1", store / "p1"), ("p2", store / "p2"), ("again", study / "p3")):
        (study / link).symlink_to(target)
    (study / "p3" / "loop").symlink_to(study)
    (study / "gone").symlink_to(tmp_path / "gone")
    found, problems = read(study)
    assert sorted(series.series for series in found) == ["1.1", "1.2", "1.3"]
    assert {item.source: item.skip for item in problems.items} == {
        "again": True,
        "p3/loop": True,
        "gone": False,
    }
    pool = make(study, tmp_path / "pool")
    assert len(pool) == 12
    (part,) = audit([study], Options(workers=1, progress=False))["sets"]
    assert (part["series"], part["slices"]) == (3, 12)
    shutil.rmtree(study / "p3")
    assert len(read(study)[0]) == 2  # of nothing but links


def test_copies_among_phases(tmp_path: Path, write_dicom: Any) -> None:
    for phase in ("a", "b"):
        write_scan(write_dicom, tmp_path / phase, 12 * (phase == "b"))
        shutil.copytree(tmp_path / phase, tmp_path / f"copy of {phase}")
    (series,), problems = read(tmp_path)
    assert len(series) == 8
    assert series.quirks == ("uneven spacing", "duplicate positions")
    assert len(problems.items) == 8
    assert all(item.reason.startswith("the same image as") for item in problems.items)


@pytest.mark.parametrize("tag", ["AcquisitionNumber", "AcquisitionTime"])
def test_acquisitions_between_each_other(tmp_path: Path, write_dicom: Any, tag: str) -> None:
    first, second = (1, 2) if tag == "AcquisitionNumber" else ("101112", "101130.5")
    root = tmp_path / "set"
    write_scan(write_dicom, root / "between", SeriesInstanceUID="1.1", **{tag: first})
    write_scan(write_dicom, root / "between", 0, 2.5, SeriesInstanceUID="1.1", **{tag: second})
    write_scan(write_dicom, root / "above", SeriesInstanceUID="1.2", **{tag: first})
    write_scan(write_dicom, root / "above", 0, 20.0, SeriesInstanceUID="1.2", **{tag: second})
    write_scan(write_dicom, root / "phases", SeriesInstanceUID="1.3", **{tag: first})
    write_scan(write_dicom, root / "phases", 9, SeriesInstanceUID="1.3", **{tag: second})
    found = {series.series: series.quirks for series in read(root)[0]}
    assert found == {
        "1.1": ("interleaved acquisitions",),
        "1.2": (),
        "1.3": ("uneven spacing", "duplicate positions"),
    }
    told = audit([root], Options(workers=1, progress=False))["series_findings"]
    assert told["interleaved acquisitions"] == 1


def test_a_time_for_every_slice(tmp_path: Path, write_dicom: Any) -> None:
    """A scan upwards, and one that comes back between."""
    for uid, order in (("1.1", (0, 1, 2, 3)), ("1.2", (0, 2, 3, 1))):
        for n, k in enumerate(order):
            tags = {"SeriesInstanceUID": uid, "AcquisitionTime": f"10111{n}"}
            write_dicom(tmp_path / f"{uid}-{k}.dcm", scan()[k], 5 * k, **tags)
    assert [series.quirks for series in read(tmp_path)[0]] == [(), ()]


@pytest.mark.parametrize(
    ("tag", "word"),
    [
        (b"\x18\x00\x20\x11DS", b"REMOVED "),
        (b"\x18\x00\x20\x11DS", b"1,5 "),
        (b"\x18\x00\x50\x00DS", b"thin"),
    ],
)
def test_words_in_optional_numbers(
    tmp_path: Path, write_dicom: Any, tag: bytes, word: bytes
) -> None:
    tags = {"GantryDetectorTilt": 0, "SliceThickness": 5}
    path = write_dicom(tmp_path / "a.dcm", scan()[2], **tags)
    data = path.read_bytes()
    at = data.index(tag) + 6
    behind = at + 2 + int.from_bytes(data[at : at + 2], "little")
    path.write_bytes(data[:at] + len(word).to_bytes(2, "little") + word + data[behind:])
    (series,), problems = read(tmp_path)
    assert series.tilt == 0
    assert problems.failed == 0


def test_blank_series(tmp_path: Path, write_dicom: Any) -> None:
    """Grouped by what is there, and by the folder where nothing is."""
    blank = {"SeriesInstanceUID": "", "PatientID": "", "StudyInstanceUID": ""}
    for folder in ("a", "b"):
        write_scan(write_dicom, tmp_path / "set" / folder, **blank)
    for number in (3, 4):  # in one folder
        study = {"SeriesInstanceUID": "", "SeriesNumber": number}
        write_scan(write_dicom, tmp_path / "set" / "c", number, **study)
    found, problems = read(tmp_path / "set")
    assert [len(series) for series in found] == [4, 4, 4, 4]
    assert all(series.quirks == ("no SeriesInstanceUID",) for series in found)
    assert problems.failed == 0
    slices, _ = load_slices(
        tmp_path / "set", size=16, window=(40, 80), labelled=False, progress=False
    )
    assert len(set(slices.series)) == 4
    assert slices.identifiers() == {"patient", "1.2"}  # such a series is in no other set
    pool = make(tmp_path / "set", tmp_path / "pool")
    assert [row.series for row in pool.index] == list(slices.series)


def test_grey_levels_in_an_audit(tmp_path: Path, write_dicom: Any) -> None:
    for k, hu in enumerate(scan()):
        grey = (np.clip(hu / 80, 0, 1) * 255).astype(np.int16)
        write_dicom(tmp_path / f"{k}.dcm", grey, 5 * k)
    found = audit([tmp_path], Options(pixels=True, workers=1, progress=False))
    assert found["sets"][0]["refused"] == 1
    assert [one["name"] for one in found["findings"]] == ["not in HU"]


def test_fifos_are_no_files(tmp_path: Path, write_dicom: Any) -> None:
    write_scan(write_dicom, tmp_path)
    os.mkfifo(tmp_path / "pipe.dcm")
    assert len(read(tmp_path)[0][0]) == 4
