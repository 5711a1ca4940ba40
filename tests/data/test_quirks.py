"""Every quirk of the table: found where it is, absent where it is not, and the HU right."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import JPEG2000Lossless, RLELossless

from ichfast.data import Problems, quirks, read_series
from ichfast.data.dicom import read_image
from ichfast.data.problems import Refused

PLAIN: tuple[str, ...] = ()


def read(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """HU with padding as air, and the quirks' names."""
    image = read_image(path)
    names = quirks.correct(image)
    hu = image.stored * image.slope + image.intercept
    if image.padding is not None:
        hu = np.where(image.stored == image.padding, -1000, hu)
    return hu, names


@pytest.fixture
def check(tmp_path, write_dicom):
    def check(stored, expected, names, **tags):
        hu, found = read(write_dicom(tmp_path / "a.dcm", stored, **tags))
        assert found == names
        np.testing.assert_array_equal(hu, expected)

    return check


def test_plain_file(check, head):
    check(head().astype(np.int16), head(), PLAIN)
    check((head() + 1024).astype(np.uint16), head(), PLAIN, BitsStored=12, RescaleIntercept=-1024)


def test_every_quirk_is_documented():
    page = Path(__file__).parents[2] / "docs" / "data.md"
    for quirk in (*quirks.IMAGE_QUIRKS, *quirks.SERIES_QUIRKS):
        assert f"| {quirk.name} |" in page.read_text(), quirk.name


# --- bits above BitsStored ---


def test_overlay_in_the_high_bits(check, head):
    stored = (head() + 1024).astype(np.uint16)
    stored[4:9, 4:9] |= 0x8000
    tags = {"BitsStored": 12, "RescaleIntercept": -1024}
    check(stored, head(), ("bits above BitsStored",), **tags)


def test_negative_numbers_without_their_sign_bits(check, head):
    stored = (head().astype(np.int16) & 0x0FFF).astype(np.int16)
    check(stored, head(), ("bits above BitsStored",), BitsStored=12)


def test_bits_at_the_top_of_the_word(check, head):
    stored = ((head() + 1024) << 4).astype(np.uint16)
    tags = {"BitsStored": 12, "HighBit": 15, "RescaleIntercept": -1024}
    check(stored, head(), ("bits above BitsStored",), **tags)


@settings(max_examples=40, deadline=None)
@given(bits=st.integers(2, 15), signed=st.booleans(), seed=st.integers(0, 99))
def test_stray_bits_never_change_the_number(bits, signed, seed, make_dicom, tmp_path_factory):
    rng = np.random.default_rng(seed)
    low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if signed else (0, 1 << bits)
    clean = rng.integers(low, high, (8, 8))
    dirty = (clean & ((1 << bits) - 1)) | (rng.integers(0, 1 << 16, (8, 8)) >> bits << bits)
    stored = dirty.astype(np.uint16).view(np.int16 if signed else np.uint16)
    path = tmp_path_factory.mktemp("bits") / "a.dcm"
    make_dicom(stored, BitsStored=bits, RescaleIntercept=-2000).save_as(path)
    hu, _ = read(path)
    np.testing.assert_array_equal(hu, clean - 2000)


# --- padding ---


def padded(head, value, dtype):
    stored = head() + (1024 if np.dtype(dtype).kind == "u" else 0)
    stored[:3] = value
    expected = head()
    expected[:3] = -1000
    return stored.astype(dtype), expected


def test_signed_padding(check, head):
    stored, expected = padded(head, -1500, np.int16)
    check(stored, expected, ("pixel padding",), PixelPaddingValue=-1500)


def test_unsigned_padding(check, head):
    stored, expected = padded(head, 63536, np.uint16)
    tags = {"PixelPaddingValue": 63536, "RescaleIntercept": -1024}
    check(stored, expected, ("pixel padding",), **tags)


@pytest.mark.parametrize(("dtype", "declared"), [(np.int16, 63536), (np.uint16, -2000)])
def test_padding_declared_with_the_other_sign(check, head, dtype, declared):
    stored, expected = padded(head, 63536 if dtype is np.uint16 else -2000, dtype)
    tags = {"PixelPaddingValue": declared, "RescaleIntercept": -1024 * (dtype is np.uint16)}
    check(stored, expected, ("padding of the other sign", "pixel padding"), **tags)


def test_padding_beyond_the_stored_bits(check, head):
    """63536 in a 12-bit image: masked, it would be 2096, which is bone."""
    stored, expected = padded(head, 63536, np.uint16)
    tags = {"PixelPaddingValue": 63536, "RescaleIntercept": -1024, "BitsStored": 12}
    check(stored, expected, ("bits above BitsStored", "pixel padding"), **tags)


def test_padding_range(check, head):
    stored, expected = padded(head, -2000, np.int16)
    stored[0] = -1990
    tags = {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1980}
    check(stored, expected, ("pixel padding",), **tags)


def test_padding_declared_as_a_tissue_value(tmp_path, write_dicom, check, head):
    """0 HU is fluid: ignored where no corner has it, refused where they do."""
    stored = head().astype(np.int16)
    stored[16, 16] = 0
    check(stored, stored, ("pixel padding",), PixelPaddingValue=0)
    stored[0] = 0
    with pytest.raises(Refused, match="among the tissues"):
        read(write_dicom(tmp_path / "a.dcm", stored, PixelPaddingValue=0))


def test_slices_with_different_padding(tmp_path, write_dicom, head):
    for i, value in enumerate((-1500, -2000)):
        stored, expected = padded(head, value, np.int16)
        write_dicom(tmp_path / f"{i}.dcm", stored, z=5 * i, PixelPaddingValue=value)
    write_dicom(tmp_path / "2.dcm", head().astype(np.int16), z=10)
    (series,) = read_series(tmp_path, Problems())
    np.testing.assert_array_equal(series.hu(), [expected, expected, head()])


# --- wrapped 12-bit ---

WRAPPED = {"BitsStored": 12, "RescaleIntercept": 0}


def test_wrapped_12_bit(check, head):
    """Noise in air on both sides of -1000, as scanners have it."""
    expected = head() + np.random.default_rng(0).integers(-20, 20, head().shape)
    stored = (expected % 4096).astype(np.uint16)
    check(stored, expected, ("wrapped 12-bit",), **WRAPPED)


def test_wrapped_with_padding(check, head):
    """-2000 has become 2096, which unwrapped would be dense bone."""
    stored, expected = padded(head, -2000, np.int16)
    stored = (stored % 4096).astype(np.uint16)
    check(stored, expected, ("wrapped 12-bit",), PixelPaddingValue=2096, **WRAPPED)


def test_a_proper_12_bit_file_is_left_alone(check, head):
    """Air cut off at 0, a little metal: nothing is wrapped."""
    expected = np.maximum(head(), 0)
    expected[16, 14:17] = 3500
    check(expected.astype(np.uint16), expected, PLAIN, **WRAPPED)
    check((head() + 1024).astype(np.uint16), head(), PLAIN, BitsStored=12, RescaleIntercept=-1024)


# --- MONOCHROME1, look-up table, decoder, windows ---


def test_monochrome1_that_is_hu_already(check, head):
    tags = {"PhotometricInterpretation": "MONOCHROME1"}
    check(head().astype(np.int16), head(), ("MONOCHROME1",), **tags)


@pytest.mark.parametrize("signed", [False, True])
def test_monochrome1_with_inverted_pixels(check, head, signed):
    stored = -1 - head() if signed else 4095 - (head() + 1024)
    tags = {"RescaleIntercept": 0} if signed else {"RescaleIntercept": -1024, "BitsStored": 12}
    tags["PhotometricInterpretation"] = "MONOCHROME1"
    check(stored.astype(np.int16 if signed else np.uint16), head(), ("MONOCHROME1",), **tags)


def test_monochrome1_without_air_is_refused(tmp_path, write_dicom):
    stored = np.full((32, 32), 500, dtype=np.int16)
    stored[16] = 700
    path = write_dicom(tmp_path / "a.dcm", stored, PhotometricInterpretation="MONOCHROME1")
    with pytest.raises(Refused, match="MONOCHROME1"):
        read(path)


@pytest.mark.parametrize("kind", [None, "HU"])
def test_modality_lut_takes_precedence(tmp_path, make_dicom, head, kind):
    """Stored values are an index: 100 -> the first entry, and slope and intercept are traps."""
    values = np.unique(head() + 1024)
    stored = (100 + np.searchsorted(values, head() + 1024)).astype(np.uint16)
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(values), 100, 16])
    item.add_new("LUTData", "US", values.tolist())
    if kind:
        item.ModalityLUTType = kind
    dataset = make_dicom(stored, RescaleSlope=7, RescaleIntercept=3)
    dataset.ModalityLUTSequence = Sequence([item])
    dataset.save_as(tmp_path / "a.dcm")
    hu, names = read(tmp_path / "a.dcm")
    np.testing.assert_array_equal(hu, head() + 1024)
    assert names == ("modality LUT",)


def test_modality_lut_of_something_else_is_refused(tmp_path, make_dicom, head):
    for kind, length in (("OD", 4), ("HU", 3)):
        item = Dataset()
        item.add_new("LUTDescriptor", "US", [4, 0, 16])
        item.add_new("LUTData", "US", [1] * length)
        item.ModalityLUTType = kind
        dataset = make_dicom(head().astype(np.int16))
        dataset.ModalityLUTSequence = Sequence([item])
        dataset.save_as(tmp_path / "a.dcm")
        with pytest.raises(Refused, match="Modality LUT"):
            read_image(tmp_path / "a.dcm")


def test_jpeg_2000_sign_mismatch(need_decoder):
    need_decoder(JPEG2000Lossless)
    _, names = read(Path(get_testdata_file("J2K_pixelrep_mismatch.dcm")))
    assert names == ("JPEG 2000 sign mismatch", "several windows")


def test_several_windows(check, head):
    tags = {"WindowCenter": ["00036", "00036"], "WindowWidth": ["00080", "00080"]}
    check(head().astype(np.int16), head(), ("several windows",), **tags)
    check(head().astype(np.int16), head(), PLAIN, WindowCenter=36, WindowWidth=80)


def test_windows_do_not_touch_the_numbers(check, head):
    check(head().astype(np.int16), head(), PLAIN, WindowCenter=None, WindowWidth=None)
    check(head().astype(np.int16), head(), PLAIN, WindowCenter="", WindowWidth=0)


# --- frames without a picture, numbers without a meaning ---


@pytest.mark.parametrize("tags", [{}, {"RescaleIntercept": -1024}])
def test_zeros_all_over_are_refused(tmp_path, write_dicom, tags):
    """Water; or air, but it may as well be a decoder that failed."""
    path = write_dicom(tmp_path / "a.dcm", np.zeros((32, 32), np.int16), **tags)
    with pytest.raises(Refused, match="same value"):
        read(path)


def test_a_slice_outside_the_patient(check):
    air = np.full((32, 32), -1000, np.int16)
    check(air, air, PLAIN)
    check(air - 1000, air, ("pixel padding",), PixelPaddingValue=-2000)


def test_zeros_from_a_decoder(tmp_path, make_dicom, head, need_decoder, monkeypatch):
    need_decoder(RLELossless)
    dataset = make_dicom((head() + 1024).astype(np.uint16), RescaleIntercept=-1024)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "a.dcm")
    monkeypatch.setattr(
        "ichfast.data.decoders.decode", lambda *_: np.zeros((32, 32), dtype=np.int64)
    )
    with pytest.raises(Refused, match="same value"):
        read(tmp_path / "a.dcm")


def test_impossible_hu(tmp_path, write_dicom, check, head):
    """-1000 read without its sign is 64,536."""
    stored = head().astype(np.int16)
    path = write_dicom(tmp_path / "a.dcm", stored.astype(np.uint16))
    with pytest.raises(Refused, match="no scanner makes"):
        read(path)
    stored[:3] = -32768  # padding may be any number
    expected = head()
    expected[:3] = -1000
    tags = {"PixelPaddingValue": -32768, "RescaleSlope": 3, "RescaleIntercept": 2000}
    stored[3:] = np.round((head()[3:] - 2000) / 3)
    expected[3:] = stored[3:] * 3 + 2000
    check(stored, expected, ("pixel padding", "coarse steps"), **tags)


def test_bits_left_out_must_be_empty(tmp_path, write_dicom, head):
    """A 16-bit image that says it keeps 12 of them at the top."""
    tags = {"BitsStored": 12, "HighBit": 15}
    path = write_dicom(tmp_path / "a.dcm", head().astype(np.int16), **tags)
    with pytest.raises(Refused, match="HighBit"):
        read(path)


# --- geometry ---


def stack(tmp_path, write_dicom, head, zs, **tags):
    for i, z in enumerate(zs):
        write_dicom(tmp_path / f"{i}.dcm", (head() + i).astype(np.int16), z=z, **tags)
    (series,) = read_series(tmp_path, Problems())
    return series


@pytest.mark.parametrize("angle", [-22.0, 18.5])
def test_gantry_tilt(tmp_path, write_dicom, head, angle):
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    series = stack(
        tmp_path, write_dicom, head, [0, 5, 10], ImageOrientationPatient=[1, 0, 0, 0, c, -s]
    )
    assert series.tilt == pytest.approx(angle)
    assert series.quirks == ("gantry tilt",)
    np.testing.assert_allclose(np.diff(series.positions), 5 * c)  # the table moves along z


def test_gantry_tilt_in_the_header_alone(tmp_path, write_dicom, head):
    series = stack(tmp_path, write_dicom, head, [0, 5], GantryDetectorTilt=-12)
    assert (series.tilt, series.quirks) == (-12, ("gantry tilt",))


def test_uneven_spacing(tmp_path, write_dicom, head):
    assert stack(tmp_path, write_dicom, head, [0, 5, 10, 20]).quirks == ("uneven spacing",)


def test_duplicate_positions(tmp_path, write_dicom, head):
    series = stack(tmp_path, write_dicom, head, [0, 5, 5, 10])
    assert len(series) == 4
    assert "duplicate positions" in series.quirks


@pytest.mark.parametrize(
    ("zs", "missing"),
    [
        ([0, 5, 10, 20, 25, 30], True),
        ([0, 5, 10, 25, 30], True),
        ([0, 2.5, 5, 7.5, 12.5, 17.5, 22.5], False),  # thin through the skull base, thick above
        ([0, 5, 10, 17, 22], False),
        ([0, 5, 10, 15], False),
        ([0, 5], False),
    ],
)
def test_missing_slices(tmp_path, write_dicom, head, zs, missing):
    series = stack(tmp_path, write_dicom, head, zs)
    assert ("missing slices" in series.quirks) is missing


def test_mixed_series(tmp_path, write_dicom, head):
    write_dicom(tmp_path / "thick.dcm", head().astype(np.int16))
    write_dicom(tmp_path / "small.dcm", head(16).astype(np.int16))
    write_dicom(tmp_path / "alone.dcm", head().astype(np.int16), SeriesInstanceUID="9.9")
    found = {s.sources[0]: s.quirks for s in read_series(tmp_path, Problems())}
    mixed = ("mixed series",)
    assert found == {"thick.dcm": mixed, "small.dcm": mixed, "alone.dcm": ()}
