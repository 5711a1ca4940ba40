"""Enhanced CT with compressed frames: told apart, decoded one by one, refused where damaged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from enhanced_files import compressed
from published import dicom
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)
from test_enhanced import ZS, read, refusal, save
from test_enhanced import volume as volume

from ichfast.data import Problems
from ichfast.data.enhanced import EnhancedFile


@pytest.mark.parametrize("table", ["basic", "extended", "none", "fragments"])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_compressed(
    tmp_path: Path, volume: Any, need_decoder: Any, syntax: Any, table: str
) -> None:
    need_decoder(syntax)
    path = save(tmp_path / "a.dcm", compressed(volume, ZS, syntax, table))
    (one,) = read(tmp_path)
    np.testing.assert_array_equal(one.hu(), volume[[1, 3, 0, 2]])
    assert len(EnhancedFile(path).compare_decoders(1)) == 1


def test_compressed_and_cut(tmp_path: Path, volume: Any, need_decoder: Any) -> None:
    need_decoder(RLELossless)
    data = save(tmp_path / "a.dcm", compressed(volume, ZS, RLELossless, "none")).read_bytes()
    for keep in (len(data) - 8, len(data) - 100, data.rindex(b"\xe0\x7f\x10\x00") + 20):
        (tmp_path / "a.dcm").write_bytes(data[:keep])
        assert "truncated" in str(refusal(tmp_path / "a.dcm"))


def test_one_damaged_frame(tmp_path: Path, volume: Any, need_decoder: Any) -> None:
    need_decoder(RLELossless)
    path = save(tmp_path / "a.dcm", compressed(volume, ZS, RLELossless, "basic"))
    (start, _), *_ = EnhancedFile(path).places[2]
    data = bytearray(path.read_bytes())
    data[start] = 9  # nine segments
    path.write_bytes(data)
    problems = Problems()
    (one,) = read(tmp_path, problems)
    assert one.sources == ("a.dcm#2", "a.dcm#4", "a.dcm#1")
    (problem,) = problems.items
    assert problem.source == "a.dcm#3"
    assert "RLE header" in problem.reason


def test_fragments_that_no_table_tells_apart(
    tmp_path: Path, volume: Any, need_decoder: Any
) -> None:
    need_decoder(RLELossless)
    dataset = compressed(volume, ZS, RLELossless, "basic")
    streams = list(generate_frames(dataset.PixelData, number_of_frames=4))
    dataset.PixelData = encapsulate(streams, fragments_per_frame=2, has_bot=False)
    assert "without an offset table" in str(refusal(save(tmp_path / "a.dcm", dataset)))
    dataset.PixelData = encapsulate(streams, fragments_per_frame=1, has_bot=True)
    data = bytearray(dataset.PixelData)
    data[12] += 2  # the second offset
    dataset.PixelData = bytes(data)
    assert "offset table" in str(refusal(save(tmp_path / "a.dcm", dataset)))


SYNTAXES = [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.filterwarnings("ignore")
def test_of_another_writer(tmp_path: Path, volume: Any, need_decoder: Any, syntax: Any) -> None:
    """Legacy Converted files as highdicom makes them of single slices."""
    convert = pytest.importorskip("highdicom.legacy").LegacyConvertedEnhancedCTImage
    if syntax != ExplicitVRLittleEndian:
        need_decoder(syntax)
    empty = ("ReferringPhysicianName", "StudyDate", "StudyTime", "StudyID", "AccessionNumber")
    empty += ("PositionReferenceIndicator", "PatientBirthDate", "PatientSex", "PatientName")
    tags = dict.fromkeys(empty, "") | {
        "SeriesInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
        "Manufacturer": "none",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "GantryDetectorTilt": 3,
        "BitsStored": 12,
        "RescaleIntercept": -1024,
    }
    files = []
    for k, z in enumerate(ZS):
        stored = (volume[k] + 1024).astype(np.uint16)
        uid, number = generate_uid(), k + 1
        files.append(dicom(stored, z, SOPInstanceUID=uid, InstanceNumber=number, **tags))
    dataset = convert(
        files,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        transfer_syntax_uid=syntax,
    )
    dataset.save_as(tmp_path / "a.dcm")
    (one,) = read(tmp_path)
    np.testing.assert_array_equal(one.hu(), volume[[1, 3, 0, 2]])
    assert (one.tilt, one.spacing, len(set(one.sources))) == (3, (0.5, 0.5), 4)
