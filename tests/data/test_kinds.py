"""What is no CT image in HU is taken by no reader, whichever tag says so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from enhanced_files import LEGACY, enhanced
from preparing import make
from pydicom.dataset import Dataset

from ichfast.data import Problems, read_series, read_window
from ichfast.data.audit import Options, audit
from ichfast.data.enhanced import EnhancedFile
from ichfast.data.headers import scan_header
from ichfast.data.kinds import judge_words
from ichfast.data.problems import Refused
from ichfast.errors import DataError

ZS = (0.0, 5.0, 10.0, 15.0)
MAPS = {
    "subtraction": {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "SUBTRACTION"]},
    "material": {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC", "IODINE"]},
    "electrons": {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "ELECTRON_DENSITY"]},
    "flow": {"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "CBF"], "RescaleType": "US"},
    "perfusion": {"ImageType": ["DERIVED", "PRIMARY", "PERFUSION", "OTHER"]},
    "colour": {"PixelPresentation": "COLOR"},
    "density": {"RescaleType": "MGML"},
    "localizer": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
}


def mapping(code: str) -> list[Dataset]:
    unit, item = Dataset(), Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = code, "UCUM", "unit"
    item.MeasurementUnitsCodeSequence = [unit]
    item.RealWorldValueSlope, item.RealWorldValueIntercept = 1.0, 0.0
    return [item]


@pytest.mark.parametrize("tags", MAPS.values(), ids=MAPS.keys())
def test_no_reader_takes_a_map(tmp_path: Path, write_dicom: Any, head: Any, tags: Any) -> None:
    root = tmp_path / "set"
    path = write_dicom(root / "map.dcm", head().astype(np.int16), z=5, **tags)
    with pytest.raises(Refused) as refused:
        scan_header(path)
    assert refused.value.skip
    with pytest.raises(DataError, match=r"map\.dcm: "):
        read_window(path, 16, (40, 80))
    with pytest.raises(DataError):
        make(root, tmp_path / "none")
    write_dicom(root / "slice.dcm", head().astype(np.int16))
    problems = Problems()
    (series,) = read_series(root, problems)
    assert series.sources == ("slice.dcm",)
    assert problems.failed == 0
    assert [row.source for row in make(root, tmp_path / "pool").index] == ["slice.dcm"]
    (part,) = audit([root], Options(workers=1, progress=False))["sets"]
    assert (part["slices"], part["left_out"], part["refused"]) == (1, 1, 0)


FRAMES: dict[str, dict[str, Any]] = {
    "perfusion": {"FrameType": ["DERIVED", "PRIMARY", "PERFUSION", "RCBF"]},
    "time to peak": {"FrameType": ["DERIVED", "PRIMARY", "VOLUME", "TTP"]},
    "test": {"FrameType": ["DERIVED", "PRIMARY", "VOLUME", "T_TEST"]},
    "unspecified": {
        "FrameType": ["DERIVED", "PRIMARY", "VOLUME", "NONE"],
        "RescaleType": "US",
    },
}


@pytest.mark.parametrize("values", FRAMES.values(), ids=FRAMES.keys())
def test_enhanced_maps(tmp_path: Path, head: Any, values: Any) -> None:
    volume = np.stack([head() + k for k in range(4)]).astype(np.int16)
    dataset = enhanced(volume, ZS, shared=values)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(Refused) as refused:
        EnhancedFile(tmp_path / "a.dcm")
    assert refused.value.skip


def test_enhanced_colours_units_and_the_file_s_own_type(tmp_path: Path, head: Any) -> None:
    volume = np.stack([head() + k for k in range(4)]).astype(np.int16)

    def read(dataset: Any) -> str:
        dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        try:
            EnhancedFile(tmp_path / "a.dcm")
        except Refused as refused:
            return str(refused)
        return ""

    dataset = enhanced(volume, ZS, PixelPresentation="COLOR")
    assert "PixelPresentation" in read(dataset)
    dataset = enhanced(volume, ZS)
    types = dataset.SharedFunctionalGroupsSequence[0].CTImageFrameTypeSequence[0]
    types.PixelPresentation = "TRUE_COLOR"
    assert "PixelPresentation" in read(dataset)
    # What is mixed in the file is as each frame says.
    types.PixelPresentation, types.VolumetricProperties = "MONOCHROME", "VOLUME"
    dataset.PixelPresentation = dataset.VolumetricProperties = "MIXED"
    assert read(dataset) == ""
    dataset = enhanced(volume, ZS, ImageType=["DERIVED", "PRIMARY", "PERFUSION", "RCBV"])
    assert "RCBV" in read(dataset)
    dataset = enhanced(volume, ZS)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.RealWorldValueMappingSequence = mapping("mL/(100.mL).min")
    assert "real-world" in read(dataset)
    shared.RealWorldValueMappingSequence = [*mapping("1"), *mapping("[hnsf'U]")]
    assert read(dataset) == ""
    # Converters of single slices have what those had.
    assert read(enhanced(volume, ZS, shared={"RescaleType": "US"}, SOPClassUID=LEGACY)) == ""


def test_units_of_a_single_slice(tmp_path: Path, make_dicom: Any, head: Any) -> None:
    for code, refused in (("[hnsf'U]", False), ("g/mL", True)):
        dataset = make_dicom(head().astype(np.int16))
        dataset.RealWorldValueMappingSequence = mapping(code)
        dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        if refused:
            with pytest.raises(Refused, match="real-world"):
                scan_header(tmp_path / "a.dcm")
        else:
            scan_header(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    "image_type",
    [
        r"ORIGINAL\PRIMARY\AXIAL\CT_SOM5 SPI",
        r"DERIVED\SECONDARY\OTHER\CSA MPR\\CT_SOM7 SPI DUAL",
        r"DERIVED\SECONDARY\REFORMATTED\AVERAGE",
        r"DERIVED\PRIMARY\AXIAL\VMI",
        r"ORIGINAL\PRIMARY\PERFUSION\NONE",
        r"DERIVED\PRIMARY\PERFUSION\MEAN",
        "",
    ],
)
def test_pictures_in_hu_stay(image_type: str) -> None:
    assert judge_words(image_type.encode(), b"HU", b"MONOCHROME") is None


@pytest.mark.parametrize(
    ("written", "outcome"),
    [
        *((word, "read") for word in ("HU", "hu ", "HU_MOD", "Houndsfield Unit", "HOUNSFIELD")),
        *((word, "read") for word in ("Hounsfield units (HU)", "H.U.", "US", "")),
        *((word, "skip") for word in ("Z_EFF", "ED", "EDW", "OD", "PCT")),
        *((word, "fail") for word in ("normalized", "123", "HUMAN")),
    ],
)
def test_rescale_type_in_words(written: str, outcome: str) -> None:
    reason = judge_words(b"", written.encode(), b"")
    found = "read" if reason is None else "skip" if reason.skip else "fail"
    assert found == outcome


def test_other_classes(tmp_path: Path, write_dicom: Any, head: Any) -> None:
    """Palettes and private non-images are no damage; an unknown class with pixels may be one."""
    pixels = head().astype(np.int16)
    write_dicom(tmp_path / "good.dcm", pixels)
    no_image = {"Rows": None, "PixelData": None}
    palette = {"SOPClassUID": "1.2.840.10008.5.1.4.39.1", "Modality": None}
    write_dicom(tmp_path / "palette.dcm", pixels, **palette, **no_image)
    write_dicom(tmp_path / "csa.dcm", pixels, SOPClassUID="1.3.12.2.1107.5.9.1")
    write_dicom(tmp_path / "private.dcm", pixels, SOPClassUID="1.2.3.4", **no_image)
    write_dicom(tmp_path / "unknown.dcm", pixels, SOPClassUID="1.2.3.4")
    problems = Problems()
    (series,) = read_series(tmp_path, problems)
    assert series.sources == ("good.dcm",)
    assert {item.source: item.skip for item in problems.items} == {
        "palette.dcm": True,
        "csa.dcm": True,
        "private.dcm": True,
        "unknown.dcm": False,
    }
