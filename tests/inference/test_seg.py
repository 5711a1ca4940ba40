"""seg.dcm: what pydicom, highdicom and dcmqi read back is the mask, slice for slice."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from dicom_series import GEOMETRIES, WrittenSeries, write_ct_series
from dicom_tools import find_tool, list_errors
from pydicom import Dataset, dcmread

from ichfast.data import Problems, read_series
from ichfast.data.series import Series
from ichfast.errors import DataError, OutputError
from ichfast.inference.outputs.seg import write_seg

highdicom = pytest.importorskip("highdicom", reason="no highdicom: pip install highdicom")
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")  # written on purpose
MODEL = {"model_name": "a network", "model_version": "1.2"}


def read_one(root: Path) -> Series:
    (series,) = read_series(root, Problems())
    return series


def write(written: WrittenSeries) -> Path:
    """seg.dcm of its mask, beside the folder of the series."""
    path = written.root.parent / "seg.dcm"
    write_seg(path, read_one(written.root), written.mask, written.root, **MODEL)
    return path


def name_reference(item: Dataset) -> tuple[str, int]:
    """The instance and the frame, 0 in a file of one slice, that a SEG's frame refers to."""
    (derivation,) = item.DerivationImageSequence
    (source,) = derivation.SourceImageSequence
    return source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber", 0)


def read_by_source(path: Path) -> dict[tuple[str, int], np.ndarray]:
    """With pydicom alone, each frame by what it refers to."""
    seg = dcmread(path)
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    names = map(name_reference, seg.PerFrameFunctionalGroupsSequence)
    return dict(zip(names, frames, strict=True))


def list_references(written: WrittenSeries) -> list[tuple[str, int]]:
    numbers = [int(source.partition("#")[2] or 0) for source in written.sources]
    return [
        (dcmread(file, stop_before_pixels=True).SOPInstanceUID, number)
        for file, number in zip(written.files, numbers, strict=True)
    ]


def require_exact(path: Path, written: WrittenSeries) -> None:
    found, filed = read_by_source(path), written.as_filed(written.mask)
    names = list_references(written)
    assert set(found) == set(names)
    for name, expected in zip(names, filed, strict=True):
        np.testing.assert_array_equal(found[name], expected)
    assert list_errors(path) == []


@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_frame_is_the_mask_of_its_slice(
    tmp_path: Path, geometry: str, enhanced: bool
) -> None:
    written = write_ct_series(tmp_path / "ct", geometry, enhanced=enhanced)
    require_exact(write(written), written)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_highdicom_reads_it_by_source(tmp_path: Path, geometry: str) -> None:
    written = write_ct_series(tmp_path / "ct", geometry)
    seg = highdicom.seg.segread(write(written))
    pixels = seg.get_pixels_by_source_instance([uid for uid, _ in list_references(written)])
    np.testing.assert_array_equal(pixels[..., 0], written.as_filed(written.mask))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_highdicom_reads_it_by_frame_of_an_enhanced_source(tmp_path: Path, geometry: str) -> None:
    written = write_ct_series(tmp_path / "ct", geometry, enhanced=True)
    seg = highdicom.seg.segread(write(written))
    (uid, _), *_ = list_references(written)
    pixels = seg.get_pixels_by_source_frame(uid, list(range(1, len(written.mask) + 1)))
    np.testing.assert_array_equal(pixels[..., 0], written.as_filed(written.mask))


def convert_by_dcmqi(path: Path) -> np.ndarray:
    """(n, rows, columns) of seg.dcm; meta.json lies beside it."""
    tool = find_tool("segimage2itkimage", "dcmqi")
    command = [tool, "--inputDICOM", path, "--outputDirectory", path.parent, "-t", "nifti"]
    subprocess.run(command, check=True, capture_output=True)
    return np.asarray(nibabel.load(path.parent / "1.nii.gz").dataobj).transpose(2, 1, 0)


@pytest.mark.parametrize("thickness", [2.5, 10, None])
@pytest.mark.parametrize("geometry", ["flat", "negative"])
def test_dcmqi_reads_an_even_series(tmp_path: Path, geometry: str, thickness: float | None) -> None:
    """Slices may be thinner than their distance, or overlap."""
    written = write_ct_series(tmp_path / "ct", geometry, SliceThickness=thickness)
    np.testing.assert_array_equal(convert_by_dcmqi(write(written)), written.mask)
    meta = json.loads((tmp_path / "meta.json").read_text())
    ((segment,),) = meta["segmentAttributes"]
    assert segment["SegmentedPropertyTypeCodeSequence"]["CodeValue"] == "50960005"


def test_dcmqi_loses_no_voxel_of_an_uneven_series(tmp_path: Path) -> None:
    written = write_ct_series(tmp_path / "ct", "uneven")
    assert convert_by_dcmqi(write(written)).sum() == written.mask.sum()


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("flip", [False, True])
def test_files_that_are_neither_upright_nor_square(
    tmp_path: Path, transpose: bool, flip: bool
) -> None:
    written = write_ct_series(
        tmp_path / "ct",
        "both",
        shape=(50, 63),  # 3150 bits: no whole bytes
        spacing=(4.5, 3.5),
        transpose=transpose,
        flip_rows=flip,
        descending=True,
    )
    require_exact(write(written), written)


def test_valid_legacy_converted_source(tmp_path: Path) -> None:
    single = write_ct_series(tmp_path / "single", "both")
    files = [dcmread(file) for file in single.files]
    converted = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        files,
        series_instance_uid="1.2.3.1",
        series_number=3,
        sop_instance_uid="1.2.3.2",
        instance_number=1,
    )
    (tmp_path / "ct").mkdir()
    converted.save_as(tmp_path / "ct" / "a.dcm")
    assert list_errors(tmp_path / "ct" / "a.dcm") == []
    series, path = read_one(tmp_path / "ct"), tmp_path / "seg.dcm"
    write_seg(path, series, single.mask, tmp_path / "ct", **MODEL)
    found = read_by_source(path)
    for source, mask in zip(series.sources, single.mask, strict=True):
        np.testing.assert_array_equal(found["1.2.3.2", int(source.partition("#")[2])], mask)
    assert list_errors(path) == []


@pytest.mark.parametrize("enhanced", [False, True])
def test_slices_that_the_reader_drops_have_no_frame(tmp_path: Path, enhanced: bool) -> None:
    written = write_ct_series(tmp_path / "ct", "uneven", enhanced=enhanced)
    names, damaged = list_references(written), written.files[5]
    if enhanced:
        dataset = dcmread(damaged)
        frame = dataset.PerFrameFunctionalGroupsSequence[5]
        frame.PlanePositionSequence[0].ImagePositionPatient = None
        dataset.save_as(damaged)
    else:
        damaged.write_bytes(damaged.read_bytes()[:-100])
    series, path = read_one(written.root), tmp_path / "seg.dcm"
    write_seg(path, series, np.delete(written.mask, 5, axis=0), written.root, **MODEL)
    found = read_by_source(path)
    assert set(found) == set(names) - {names[5]}
    for name, pixels in found.items():
        np.testing.assert_array_equal(pixels, written.mask[names.index(name)])
    assert list_errors(path) == []


def test_series_in_several_enhanced_files(tmp_path: Path) -> None:
    written = write_ct_series(tmp_path / "ct", "both", enhanced=True)
    whole = dcmread(written.files[0])
    frames, groups = whole.pixel_array, list(whole.PerFrameFunctionalGroupsSequence)
    written.files[0].unlink()
    for part in range(2):  # every other slice each
        whole.SOPInstanceUID = whole.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{part}"
        whole.PixelData, whole.NumberOfFrames = frames[part::2].tobytes(), len(frames[part::2])
        whole.PerFrameFunctionalGroupsSequence = groups[part::2]
        whole.save_as(written.root / f"{part}.dcm")
    found = read_by_source(write(written))
    for number, mask in enumerate(written.mask):
        np.testing.assert_array_equal(found[f"1.2.3.{number % 2}", number // 2 + 1], mask)
    assert list_errors(tmp_path / "seg.dcm") == []


def test_file_with_the_mark_of_a_frame_in_its_name(tmp_path: Path) -> None:
    written = write_ct_series(tmp_path / "ct")
    written.files[0].rename(written.root / "000.dcm#2")
    path = write(written)
    uids = {uid for uid, _ in read_by_source(path)}
    assert len(uids) == len(written.mask)


def test_two_slices_at_the_same_place_are_two_frames(tmp_path: Path) -> None:
    written = write_ct_series(tmp_path / "ct", "tilted")
    again = dcmread(written.files[8])
    again.PixelData = np.roll(again.pixel_array, 3).tobytes()
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    again.save_as(written.root / "zz.dcm")
    series, path = read_one(written.root), tmp_path / "seg.dcm"
    mask = np.insert(written.mask, 9, ~written.mask[8], axis=0)
    write_seg(path, series, mask, written.root, **MODEL)
    found = read_by_source(path)
    np.testing.assert_array_equal(found["1.2.3.4", 0], mask[9])
    np.testing.assert_array_equal(found[list_references(written)[8]], mask[8])
    items = dcmread(path).PerFrameFunctionalGroupsSequence
    places = {name_reference(item): item.PlanePositionSequence[0] for item in items}
    assert places["1.2.3.4", 0].ImagePositionPatient == again.ImagePositionPatient
    assert list_errors(path) == []


def test_it_says_what_was_found_by_what_and_in_whom(tmp_path: Path) -> None:
    written = write_ct_series(tmp_path / "ct", SpecificCharacterSet="ISO_IR 100", PatientName="Ä^B")
    first, second = dcmread(write(written)), dcmread(write(written))
    (segment,) = first.SegmentSequence
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "50960005"
    assert segment.AnatomicRegionSequence[0].CodeValue == "1101003"
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("a network", "1.2")
    source = dcmread(written.files[0])
    for keyword in ("PatientID", "StudyInstanceUID", "AccessionNumber", "FrameOfReferenceUID"):
        assert first[keyword].value == source[keyword].value
    assert first.PatientName == "Ä^B"
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID


def test_source_without_what_is_optional(tmp_path: Path) -> None:
    """As anonymisers and careless writers leave it."""
    missing = ("PatientName", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber")
    missing += ("StudyDate", "StudyTime", "ReferringPhysicianName", "SliceThickness")
    missing += ("FrameOfReferenceUID", "PositionReferenceIndicator", "SeriesNumber")
    written = write_ct_series(tmp_path / "ct", "both", **dict.fromkeys(missing))
    path = write(written)
    require_exact(path, written)
    assert dcmread(write(written)).FrameOfReferenceUID == dcmread(path).FrameOfReferenceUID


def test_source_with_values_that_are_wrong(tmp_path: Path) -> None:
    wrong: dict[str, Any] = {"PatientSex": "X", "StudyDate": "REMOVED", "StudyTime": "noon"}
    written = write_ct_series(tmp_path / "ct", PatientID=None, SeriesNumber=None, **wrong)
    path = write(written)
    require_exact(path, written)
    seg = dcmread(path)
    assert not any(seg[keyword].value for keyword in (*wrong, "PatientID"))


@pytest.mark.parametrize("uid", ["SOPInstanceUID", "StudyInstanceUID"])
def test_source_that_cannot_be_referenced(tmp_path: Path, uid: str) -> None:
    """RSNA's files have such UIDs."""
    written = write_ct_series(tmp_path / "ct", slices=4, **{uid: "ID_00a1"})
    with pytest.raises(DataError, match=rf"000\.dcm: {uid} is missing or not valid"):
        write(written)


def test_instances_of_the_same_uid(tmp_path: Path) -> None:
    written = write_ct_series(tmp_path / "ct", SOPInstanceUID="1.2.3")
    with pytest.raises(DataError, match=r"001\.dcm and .*000\.dcm have the same SOPInstanceUID"):
        write(written)
    assert not (tmp_path / "seg.dcm").exists()


@pytest.mark.parametrize("change", ["gone", "moved", "no DICOM"])
def test_source_that_has_changed(tmp_path: Path, change: str) -> None:
    written = write_ct_series(tmp_path / "ct")
    series = read_one(written.root)
    if change == "gone":
        written.files[3].unlink()
    elif change == "moved":
        written.files[3].write_bytes(written.files[4].read_bytes())
    else:
        written.files[3].write_text("a note")
    with pytest.raises(DataError, match=r"003\.dcm: "):
        write_seg(tmp_path / "seg.dcm", series, written.mask, written.root, **MODEL)


def test_series_of_one_slice(tmp_path: Path) -> None:
    written = write_ct_series(tmp_path / "ct", slices=1)
    require_exact(write(written), written)
    written = write_ct_series(tmp_path / "thin" / "ct", slices=1, SliceThickness=None)
    with pytest.raises(DataError, match="a slice alone needs SliceThickness"):
        write(written)


def test_without_highdicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_ct_series(tmp_path / "ct")
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(OutputError, match=r'seg\.dcm needs highdicom.*"ichfast\[seg\]"'):
        write(written)


def test_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_ct_series(tmp_path / "ct")
    (tmp_path / "seg.dcm").write_text("before")

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputError, match=r"seg\.dcm could not be written: No space"):
        write(written)
    assert (tmp_path / "seg.dcm").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct", "seg.dcm"]
