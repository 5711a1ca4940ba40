"""Enhanced CT: what a file of many slices says is what as many files of one slice would say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from enhanced_files import LEGACY, enhanced, item
from preparing import make
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from ichfast.data import Problems, load_slices, read_series
from ichfast.data.deflated import read_elements
from ichfast.data.enhanced import EnhancedFile, read_pictures
from ichfast.data.headers import EnhancedCT, read_header, scan_header
from ichfast.data.problems import Refused
from ichfast.data.series import Series
from ichfast.errors import DataError

ZS = (10.0, 0.0, 15.0, 5.0)  # of the frames, in their order


@pytest.fixture
def volume(head: Callable[..., np.ndarray]) -> np.ndarray:
    return np.stack([head() + k for k in range(4)]).astype(np.int16)


def save(path: Path, dataset: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def read(root: Path, problems: Problems | None = None) -> list[Series]:
    return list(read_series(root, problems or Problems()))


def refusal(path: Path) -> Refused:
    with pytest.raises(Refused) as raised:
        EnhancedFile(path)
    return raised.value


@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize("implicit", [False, True])
def test_as_a_series_of_single_slices(
    tmp_path: Path, volume: Any, write_dicom: Any, per_frame: bool, implicit: bool
) -> None:
    tags: dict[str, Any] = {"TransferSyntaxUID": ImplicitVRLittleEndian} if implicit else {}
    dataset = enhanced(volume, ZS, per_frame=per_frame, **tags)
    save(tmp_path / "one" / "a.dcm", dataset)
    for k, z in enumerate(ZS):
        write_dicom(tmp_path / "many" / f"{k}.dcm", volume[k], z)
    (one,), (many,) = read(tmp_path / "one"), read(tmp_path / "many")
    np.testing.assert_array_equal(one.hu(), many.hu())
    np.testing.assert_array_equal(one.positions, [0, 5, 10, 15])
    assert one.sources == ("a.dcm#2", "a.dcm#4", "a.dcm#1", "a.dcm#3")
    for name in ("patient", "study", "series", "spacing", "tilt", "quirks", "padding", "mixed"):
        assert getattr(one, name) == getattr(many, name), name


def test_every_frame_has_its_own_rescale(tmp_path: Path, volume: Any) -> None:
    frames = [{"RescaleSlope": 1 + k, "RescaleIntercept": 24 * k} for k in range(4)]
    stored = volume.copy()
    for k in range(4):
        stored[k] = (volume[k] - 24 * k) // (1 + k)
    save(tmp_path / "a.dcm", enhanced(stored, range(4), frames=frames))
    (one,) = read(tmp_path)
    expected = [stored[k] * (1.0 + k) + 24 * k for k in range(4)]
    np.testing.assert_array_equal(one.hu(), np.array(expected, np.float32))


def test_quirks_are_those_of_single_slices(tmp_path: Path, volume: Any) -> None:
    """Wrapped 12-bit, and padding in one frame of three."""
    stored = (volume % 4096).astype(np.uint16)
    save(tmp_path / "a" / "a.dcm", enhanced(stored, ZS, BitsStored=12))
    (one,) = read(tmp_path / "a")
    assert one.quirks == ("wrapped 12-bit",)
    np.testing.assert_array_equal(one.hu(), volume[[1, 3, 0, 2]])
    stored = volume.copy()
    stored[1, :4] = -2000
    shared = {"WindowCenter": [40, 50], "WindowWidth": [80, 90]}
    save(tmp_path / "b" / "b.dcm", enhanced(stored, ZS, PixelPaddingValue=-2000, shared=shared))
    (one,) = read(tmp_path / "b")
    assert one.quirks == ("pixel padding", "several windows")
    assert (one.hu()[0, :4] == -1000).all()


def test_two_orientations_are_two_stacks(tmp_path: Path, volume: Any) -> None:
    tilted = [1, 0, 0, 0, 0.9397, -0.342]
    sagittal = [0, 1, 0, 0, 0, -1]
    frames = [{"ImageOrientationPatient": o} for o in ([1, 0, 0, 0, 1, 0], tilted, sagittal)]
    frames.insert(1, frames[0])
    save(tmp_path / "a.dcm", enhanced(volume, ZS, frames=frames))
    problems = Problems()
    plain, other = read(tmp_path, problems)
    assert plain.sources == ("a.dcm#2", "a.dcm#1")
    assert other.sources == ("a.dcm#3",)
    assert (round(plain.tilt), round(other.tilt)) == (0, 20)
    assert "mixed series" in plain.quirks
    assert "mixed series" in other.quirks
    assert [(p.source, p.reason, p.skip) for p in problems.items] == [
        ("a.dcm#4", "not an axial slice", True)
    ]


def test_several_files_of_one_series(tmp_path: Path, volume: Any, write_dicom: Any) -> None:
    """A concatenation (C.7.6.16.2.2.4), beside a single slice that belongs to it."""
    save(tmp_path / "a.dcm", enhanced(volume[:2], ZS[:2]))
    save(tmp_path / "b.dcm", enhanced(volume[2:], ZS[2:]))
    write_dicom(tmp_path / "c.dcm", volume[0] + 9, 20)
    (one,) = read(tmp_path)
    assert one.sources == ("a.dcm#2", "b.dcm#2", "a.dcm#1", "b.dcm#1", "c.dcm")


def test_legacy_converted(tmp_path: Path, volume: Any) -> None:
    """What has no group stands among the unassigned attributes, or at the top as ever."""
    gone = dict.fromkeys(("PixelSpacing", "RescaleSlope", "RescaleIntercept", "FrameType"))
    kind = ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"]
    dataset = enhanced(volume, ZS, shared=gone, SOPClassUID=LEGACY, ImageType=kind)
    unassigned = Dataset()
    unassigned.PixelSpacing = [0.25, 0.25]
    unassigned.GantryDetectorTilt = 12
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.UnassignedSharedConvertedAttributesSequence = [unassigned]
    for k, one in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        own = Dataset()
        own.RescaleIntercept = -k
        one.UnassignedPerFrameConvertedAttributesSequence = [own]
    dataset.RescaleSlope = 1
    save(tmp_path / "a.dcm", dataset)
    (one,) = read(tmp_path)
    assert (one.spacing, one.tilt) == ((0.25, 0.25), 12)
    np.testing.assert_array_equal(one.hu(), [volume[k] - k for k in (1, 3, 0, 2)])


def test_localizers_and_maps_are_left_out(tmp_path: Path, volume: Any) -> None:
    frames: list[dict[str, Any]] = [
        {"FrameType": ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]},
        {"FrameType": ["DERIVED", "PRIMARY", "VOLUME", "SUBTRACTION"]},
        {"FrameType": ["DERIVED", "PRIMARY", "AXIAL", "VMI"]},
        {"FrameType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]},
    ]
    save(tmp_path / "a.dcm", enhanced(volume, ZS, frames=frames))
    problems = Problems()
    (one,) = read(tmp_path, problems)
    assert one.sources == ("a.dcm#4", "a.dcm#3")
    assert [(p.source, p.skip) for p in problems.items] == [("a.dcm#1", True), ("a.dcm#2", True)]
    assert problems.items[0].reason == "localizer"


NOT_A_SLICE = {
    "localizer": {"AcquisitionType": "CONSTANT_ANGLE"},
    "calculated": {"FrameType": ["DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC"]},
    "not HU": {"RescaleType": "Z_EFF"},
    "distorted": {"VolumetricProperties": "DISTORTED"},
    "not an axial": {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
}


@pytest.mark.parametrize(("reason", "values"), NOT_A_SLICE.items(), ids=NOT_A_SLICE.keys())
def test_frames_that_are_no_slice(tmp_path: Path, volume: Any, reason: str, values: Any) -> None:
    """A file of nothing else is left out once; among others the frame alone."""
    frames = [values, {}, {}, {}]
    if "axial" not in reason:
        refused = refusal(save(tmp_path / "all" / "a.dcm", enhanced(volume, ZS, shared=values)))
        assert reason in str(refused)
        assert refused.skip
        frames = [{**dict.fromkeys(values), **one} for one in frames]
        for one in frames[1:]:
            one.update({k: enhanced_default(k) for k in values})
    else:
        frames = [values, *[{"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}] * 3]
    save(tmp_path / "one" / "a.dcm", enhanced(volume, ZS, frames=frames))
    problems = Problems()
    (one,) = read(tmp_path / "one", problems)
    assert one.sources == ("a.dcm#2", "a.dcm#4", "a.dcm#3")
    (problem,) = problems.items
    assert (problem.source, problem.skip) == ("a.dcm#1", True)
    assert reason in problem.reason


def enhanced_default(keyword: str) -> Any:
    from enhanced_files import DEFAULTS

    return DEFAULTS.get(keyword)


def cut(dataset: Any) -> None:
    dataset.PixelData = dataset.PixelData[:-100]


def longer(dataset: Any) -> None:
    dataset.PixelData += dataset.PixelData[:2048]


def count(dataset: Any) -> None:
    dataset.NumberOfFrames = 3


def no_count(dataset: Any) -> None:
    del dataset.NumberOfFrames


def no_shared(dataset: Any) -> None:
    del dataset.SharedFunctionalGroupsSequence


def no_per_frame(dataset: Any) -> None:
    del dataset.PerFrameFunctionalGroupsSequence


def two_items(dataset: Any) -> None:
    group = dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    group.append(group[0])


def contradiction(dataset: Any) -> None:
    dataset.RescaleSlope = 2


def shared_and_own(dataset: Any) -> None:
    for one in dataset.PerFrameFunctionalGroupsSequence:
        one.PixelValueTransformationSequence = item(
            {"RescaleSlope": 1, "RescaleIntercept": -1024}
        ).PixelValueTransformationSequence


def without(keyword: str) -> Callable[[Any], None]:
    def remove(dataset: Any) -> None:
        for one in (
            *dataset.SharedFunctionalGroupsSequence,
            *dataset.PerFrameFunctionalGroupsSequence,
        ):
            if keyword in one:
                delattr(one, keyword)

    return remove


def table(dataset: Any) -> None:
    lut = Dataset()
    lut.LUTDescriptor = [4, 0, 16]
    lut.ModalityLUTType = "HU"
    lut.LUTData = b"\0\0" * 4
    dataset.ModalityLUTSequence = [lut]


REFUSED: dict[str, tuple[Callable[[Any], None], str]] = {
    "truncated": (cut, "truncated: 8,092 bytes of 8,192"),
    "too long": (longer, "holds 10,240 bytes, its frames need 8,192"),
    "fewer frames": (count, "NumberOfFrames is not the number"),
    "no number": (no_count, "NumberOfFrames is not the number"),
    "no shared groups": (no_shared, "without its shared and per-frame"),
    "no frames": (no_per_frame, "without its shared and per-frame"),
    "two items": (two_items, "more than one item"),
    "contradiction": (contradiction, "contradict each other"),
    "shared and own": (shared_and_own, "contradict each other"),
    "no measures": (without("PixelMeasuresSequence"), "PixelSpacing is missing"),
    "no position": (without("PlanePositionSequence"), "ImagePositionPatient is missing"),
    "no orientation": (without("PlaneOrientationSequence"), "ImageOrientationPatient is missing"),
    "no rescale": (without("PixelValueTransformationSequence"), "RescaleSlope is missing"),
    "no frame type": (without("CTImageFrameTypeSequence"), "FrameType is missing"),
    "lut": (table, "Modality LUT"),
}


@pytest.mark.parametrize(("break_it", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_unusable_files_are_refused_once(
    tmp_path: Path, volume: Any, write_dicom: Any, break_it: Any, reason: str
) -> None:
    dataset = enhanced(volume, ZS)
    break_it(dataset)
    assert reason in str(refusal(save(tmp_path / "bad.dcm", dataset)))
    write_dicom(tmp_path / "good.dcm", volume[0])
    problems = Problems()
    read(tmp_path, problems)
    assert [(p.source, p.skip) for p in problems.items] == [("bad.dcm", False)]


def test_one_frame_without_position(tmp_path: Path, volume: Any) -> None:
    frames: list[dict[str, Any]] = [{}, {"ImagePositionPatient": None}, {}, {}]
    save(tmp_path / "a.dcm", enhanced(volume, ZS, frames=frames))
    problems = Problems()
    (one,) = read(tmp_path, problems)
    assert "a.dcm#2" not in one.sources
    assert len(one) == 3
    assert [p.source for p in problems.items] == ["a.dcm#2"]


def test_other_multi_frame_files_stay_refused(tmp_path: Path, volume: Any) -> None:
    dataset = enhanced(volume, ZS, SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    path = save(tmp_path / "a.dcm", dataset)
    with pytest.raises(Refused, match="multi-frame image"):
        read_pictures(path)
    for syntax in (ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        big = syntax == ExplicitVRBigEndian
        stored = volume.astype(">i2") if big else volume
        path = save(tmp_path / "b.dcm", enhanced(stored, ZS, TransferSyntaxUID=syntax))
        assert "convert it" in str(refusal(path))


def test_readers_of_one_slice_say_so(tmp_path: Path, volume: Any) -> None:
    path = save(tmp_path / "a.dcm", enhanced(volume, ZS))
    for reader in (read_header, scan_header):
        with pytest.raises(EnhancedCT, match="where one slice is expected"):
            reader(path)


# In use


@pytest.fixture
def folder(tmp_path: Path, volume: Any, write_dicom: Any) -> Path:
    """Four frames, of which one is a localizer, and two single slices of another patient."""
    frames: list[dict[str, Any]] = [{"FrameType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]}] * 4
    frames[3] = {"FrameType": ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]}
    root = tmp_path / "set"
    save(root / "sub" / "a.dcm", enhanced(volume, ZS, frames=frames))
    for k in range(2):
        write_dicom(root / f"{k}.dcm", volume[k] + 10, k, SeriesInstanceUID="7", PatientID="other")
    return root


def test_load_slices(folder: Path) -> None:
    slices, problems = load_slices(folder, size=32, window=(40, 80), labelled=False, progress=False)
    assert slices.sources == ("0.dcm", "1.dcm", "sub/a.dcm#2", "sub/a.dcm#1", "sub/a.dcm#3")
    assert problems.expected == 6
    assert problems.summary().startswith("0 not read, 1 left out")


@pytest.mark.parametrize("workers", [1, 2])
def test_prepare(folder: Path, tmp_path: Path, workers: int) -> None:
    pool = make(folder, tmp_path / "pool", size=32, workers=workers)
    assert [row.source for row in pool.index] == [
        *("0.dcm", "1.dcm", "sub/a.dcm#2", "sub/a.dcm#1", "sub/a.dcm#3")
    ]
    assert [p.source for p in pool.problems.items] == ["sub/a.dcm#4"]
    (scan, *_) = [s for s in read(folder) if s.patient == "patient"]
    np.testing.assert_array_equal(pool.images[2:], scan.hu())
    for seed in range(3):
        few = make(folder, tmp_path / f"few {seed}", limit=2, seed=seed)
        assert len(few) == 2
        assert {row.source for row in few.index} <= {row.source for row in pool.index}


def test_a_folder_of_nothing_else(tmp_path: Path, volume: Any) -> None:
    dataset = enhanced(volume, ZS)
    count(dataset)
    save(tmp_path / "set" / "a.dcm", dataset)
    with pytest.raises(DataError, match="NumberOfFrames"):
        read(tmp_path / "set")
    with pytest.raises(DataError, match="NumberOfFrames"):
        make(tmp_path / "set", tmp_path / "pool")


def test_a_thousand_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header once for the file and its stack; the pixels frame by frame."""
    rng = np.random.default_rng(0)
    volume = rng.integers(-1000, 1000, (1000, 16, 16)).astype(np.int16)
    path = save(tmp_path / "a.dcm", enhanced(volume, range(1000), per_frame=True))
    parsed = []

    def counted(*arguments: Any, **options: Any) -> Any:
        parsed.append(arguments)
        return read_elements(*arguments, **options)

    monkeypatch.setattr("ichfast.data.headers.read_elements", counted)
    assert len(read_pictures(path)) == 1000
    assert len(parsed) == 1
    (one,) = read(tmp_path)
    assert len(parsed) <= 4
    np.testing.assert_array_equal(one.hu(), volume)
    assert dcmread(path).NumberOfFrames == 1000
