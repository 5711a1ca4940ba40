"""The audit of files that hold many slices, of mixed series, and of decoders that disagree."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.conftest import head
from data.conftest import need_decoder as need_decoder
from data.conftest import write_dicom as write_dicom
from data.enhanced_files import enhanced
from data.published import dicom
from pydicom.uid import JPEG2000, RLELossless
from test_audit import named, run, series
from test_audit import write as write

from ichfast.data import decoders

ZS = (10.0, 0.0, 15.0, 5.0)


def volume() -> np.ndarray:
    return np.stack([head(32) + k for k in range(4)]).astype(np.int16)


def page(tmp_path: Path) -> str:
    return (tmp_path / "out" / "audit.html").read_text()


def save(path: Path, dataset: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize("pixels", [False, True])
def test_enhanced(tmp_path: Path, write: Callable[..., Path], pixels: bool) -> None:
    kinds = ["VOLUME", "VOLUME", "LOCALIZER", "VOLUME"]
    frames = [{"FrameType": ["ORIGINAL", "PRIMARY", kind, "NONE"]} for kind in kinds]
    tags = {"PatientID": "x", "StudyInstanceUID": "8", "SeriesInstanceUID": "9"}
    stored = volume()
    stored[:, :2] = -2000
    dataset = enhanced(stored, ZS, frames=frames, PixelPaddingValue=-2000, **tags)
    save(tmp_path / "set" / "a.dcm", dataset)
    dataset.PixelData = dataset.PixelData[:-100]
    save(tmp_path / "set" / "cut.dcm", dataset)
    write("set/c.dcm", 3)
    more = ["--pixels"] if pixels else []
    found = run(tmp_path, "set", *more, status=1)
    assert found["sets"][0] == {
        **found["sets"][0],
        "files": 3,
        "slices": 4,
        "series": 2,
        "refused": 1,
        "left_out": 1,
    }
    assert named(found, "localizer") == ["a.dcm#3"]
    assert named(found, "pixel data is truncated") == ["cut.dcm"]
    assert named(found, "pixel padding") == (["a.dcm#1", "a.dcm#2", "a.dcm#4"] if pixels else [])
    by_first = {one["first_file"]: one for one in found["series"]}
    one = by_first["a.dcm#1"]
    assert (one["slices"], one["spacings_mm"]) == (3, [[5.0, 2]])
    assert one["quirks_of_files" if pixels else "possible"] == {"pixel padding": 3}
    assert "a.dcm#3" in page(tmp_path)


def test_the_same_picture_as_a_frame(tmp_path: Path, write: Callable[..., Path]) -> None:
    tags = {"PatientID": "x", "StudyInstanceUID": "8", "SeriesInstanceUID": "9"}
    save(tmp_path / "one" / "a.dcm", enhanced(volume(), ZS, **tags))
    write("two/b.dcm", 2)
    found = run(tmp_path, "one", "two", "--pixels", status=1)
    assert found["identical"]["named"] == [
        [{"set": "one", "file": "a.dcm#3"}, {"set": "two", "file": "b.dcm"}]
    ]


def test_mixed_series_are_shown(tmp_path: Path, write: Callable[..., Path]) -> None:
    """Of another spacing, size or direction; in the JSON, on the page, within one file too."""
    series(write, "set", 0, 5, SeriesInstanceUID="3")
    write("set/spacing.dcm", 0, SeriesInstanceUID="3", PixelSpacing=[0.4, 0.4])
    tilted = [1, 0, 0, 0, 0.9397, -0.342]
    plain = [1, 0, 0, 0, 1, 0]
    frames = [{"ImageOrientationPatient": o} for o in (plain, plain, tilted, tilted)]
    save(tmp_path / "set" / "z.dcm", enhanced(volume(), ZS, frames=frames, SeriesInstanceUID="4"))
    save(tmp_path / "set" / "zz.dcm", dicom(volume()[0], 0.0, SeriesInstanceUID="5"))
    found = run(tmp_path, "set", status=0)
    assert found["series_findings"]["mixed series"] == 4
    assert {one["first_file"] for one in found["series"] if "mixed series" in one["found"]} == {
        *("000.dcm", "spacing.dcm", "z.dcm#1", "z.dcm#3")
    }
    assert page(tmp_path).count('<span class="tag">mixed series</span>') == 4


@pytest.mark.parametrize("lossy", [False, True])
def test_decoders_that_disagree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need_decoder: Any, lossy: bool, capsys: Any
) -> None:
    need_decoder(RLELossless)
    names = decoders.list_available(RLELossless)
    if len(names) < 2:
        pytest.skip("only one decoder for RLE: pip install '.[decode]'")
    single = dicom((volume()[0] + 1024).astype(np.uint16), RescaleIntercept=-1024, BitsStored=12)
    single.compress(RLELossless, generate_instance_uid=False)
    save(tmp_path / "set" / "a.dcm", single)
    many = enhanced(volume() + 1024, ZS, shared={"RescaleIntercept": -1024}, SeriesInstanceUID="7")
    many.compress(RLELossless, generate_instance_uid=False)
    save(tmp_path / "set" / "b.dcm", many)
    save(tmp_path / "set" / "plain.dcm", dicom(volume()[1] + 9, SeriesInstanceUID="8"))
    found = run(tmp_path, "set", "--pixels", status=0)
    assert not [f for f in found["findings"] if f["kind"] == "decoders"]
    assert "read differently" not in page(tmp_path)

    real = decoders.decode
    monkeypatch.setattr(
        decoders, "decode", lambda s, h, name: real(s, h, name) + (name == names[-1])
    )
    if lossy:  # whose rounding is left to the decoder
        monkeypatch.setattr(decoders, "INEXACT", (JPEG2000, RLELossless))
    found = run(tmp_path, "set", status=0)  # headers only
    assert not [f for f in found["findings"] if f["kind"] == "decoders"]
    found = run(tmp_path, "set", "--pixels", status=0 if lossy else 1)
    (finding,) = [f for f in found["findings"] if f["kind"] == "decoders"]
    assert finding["files"] == 5
    assert [one["file"] for one in finding["named"]] == [
        *("a.dcm", "b.dcm#1", "b.dcm#2", "b.dcm#3", "b.dcm#4")
    ]
    assert finding["named"][0]["detail"].endswith(f" / {names[-1]}")
    html = page(tmp_path)
    assert "Compressed pictures that decoders read differently" in html
    assert finding["name"] in html
    said = "installed decoders disagree on 5 files" in capsys.readouterr().out
    assert said != lossy
    assert ("disagree" in finding["name"]) != lossy
