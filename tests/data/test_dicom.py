import os
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from ichfast.data import Problems, headers, quirks, read_series
from ichfast.data.dicom import read_image
from ichfast.data.headers import read_header
from ichfast.data.problems import Refused
from ichfast.errors import DataError


def hu(path: Path) -> np.ndarray:
    image = read_image(path)
    quirks.correct(image)
    return image.stored * image.slope + image.intercept


def one(root: Path, problems: Problems | None = None):
    (series,) = read_series(root, problems or Problems())
    return series


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_hu_of_any_depth_sign_and_rescale(data, make_dicom, tmp_path_factory):
    """Whatever pydicom writes, stored·slope + intercept comes back."""
    width = data.draw(st.sampled_from([8, 16, 32]))
    bits = data.draw(st.integers(2, width))
    signed = data.draw(st.booleans())
    slope = data.draw(st.sampled_from([1.0, 0.5, -1.0, 2.25]))
    intercept = data.draw(st.sampled_from([-1024.0, -8192.5, -1000.0]))
    syntax = data.draw(st.sampled_from([None, ImplicitVRLittleEndian]))
    bits -= bits == 32 and not signed  # which is refused: see below
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    low, high = max(low, -12_000), min(high, 12_000)  # so that HU are possible ones
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    stored = rng.integers(low, high, (16, 18), endpoint=True).astype(
        f"{'i' if signed else 'u'}{width // 8}"
    )
    dataset = make_dicom(
        stored,
        BitsStored=bits,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        **({"TransferSyntaxUID": syntax} if syntax else {}),
    )
    path = tmp_path_factory.mktemp("dicom") / "slice.dcm"
    dataset.save_as(path, enforce_file_format=True)
    np.testing.assert_array_equal(hu(path), stored.astype(np.float64) * slope + intercept)


def test_values_beyond_int32_are_refused(tmp_path, write_dicom, head):
    path = write_dicom(tmp_path / "a.dcm", (head() + 2**31 + 1024).astype(np.uint32))
    with pytest.raises(Refused, match="32 bits"):
        hu(path)


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=lambda uid: uid.name,
)
def test_uncompressed_syntaxes(tmp_path, make_dicom, head, syntax):
    expected = head()
    stored = expected.astype("<i2" if syntax != ExplicitVRBigEndian else ">i2")
    dataset = make_dicom(stored, TransferSyntaxUID=syntax)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(hu(tmp_path / "a.dcm"), expected)


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=lambda uid: uid.name
)
@pytest.mark.parametrize("signed", [False, True])
def test_compressed_syntaxes(tmp_path, make_dicom, head, syntax, signed, need_decoder):
    need_decoder(syntax)
    if syntax == JPEGLSLossless:
        pytest.importorskip("jpeg_ls")
    expected = head()
    stored = expected.astype(np.int16) if signed else (expected + 1024).astype(np.uint16)
    dataset = make_dicom(stored, RescaleIntercept=0 if signed else -1024)
    if syntax == JPEG2000Lossless:  # pydicom would want pylibjpeg itself to write it
        openjpeg = pytest.importorskip("openjpeg.utils")
        stream = openjpeg.encode_array(stored, photometric_interpretation=2)
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
    else:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(hu(tmp_path / "a.dcm"), expected)


def test_missing_decoder_names_the_extra(tmp_path, make_dicom, head, monkeypatch):
    dataset = make_dicom(head().astype(np.int16))
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)

    class Missing:
        is_available = False

    monkeypatch.setattr("ichfast.data.decoders.get_decoder", lambda uid: Missing())
    with pytest.raises(DataError, match=r"a\.dcm.*RLE.*pip install '\.\[decode\]'"):
        list(read_series(tmp_path, Problems()))


@pytest.mark.parametrize("name", ["CT_small.dcm", "J2K_pixelrep_mismatch.dcm"])
def test_real_files_of_pydicom(name, need_decoder):
    if "J2K" in name:
        need_decoder(JPEG2000Lossless)
    path = Path(get_testdata_file(name))
    dataset = dcmread(path)
    expected = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    np.testing.assert_array_equal(hu(path), expected)


def test_unsigned_stream_under_a_signed_header(need_decoder):
    """Outside the field of view this scanner puts -2000; read unsigned it would be 6192."""
    need_decoder(JPEG2000Lossless)
    image = read_image(Path(get_testdata_file("J2K_pixelrep_mismatch.dcm")))
    assert "JPEG 2000 sign mismatch" in quirks.correct(image)
    assert image.stored.min() == -2000
    assert image.stored.max() == 1896
    assert 20 < np.median(image.stored[200:300, 200:300]) < 45  # brain


REFUSED = {
    "no rescale": ({"RescaleSlope": None}, "RescaleSlope"),
    "two slopes": ({"RescaleSlope": [1, 2]}, "RescaleSlope"),
    "slope 0": ({"RescaleSlope": 0}, "RescaleSlope is 0"),
    "no position": ({"ImagePositionPatient": None}, "ImagePositionPatient"),
    "no orientation": ({"ImageOrientationPatient": None}, "ImageOrientationPatient"),
    "skewed": ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "perpendicular"),
    "no spacing": ({"PixelSpacing": None}, "PixelSpacing"),
    "no depth": ({"BitsStored": 0, "HighBit": 15}, "bit depth"),
    "too deep": ({"BitsStored": 17, "HighBit": 16}, "bit depth"),
    "taller": ({"Rows": 33}, "truncated: 2,048 bytes of 2,112"),
    "shorter": ({"Rows": 16}, "2,048 bytes, Rows x Columns needs 1,024"),
    "no rows": ({"Rows": 0}, "0 x 32"),
    "a row less": ({"Rows": 31}, "2,048 bytes, Rows x Columns needs 1,984"),
    "enhanced CT": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1"}, "functional groups"),
    "converted CT": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.2"}, "functional groups"),
    "enormous": ({"Rows": 65535, "Columns": 65535}, "65535 x 65535"),
    "no pixels": ({"PixelData": None}, "no pixel data"),
    "many frames": ({"NumberOfFrames": 2}, "multi-frame"),
    "palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, "greyscale"),
}


@pytest.mark.parametrize(("tags", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_unusable_files_are_refused_by_name(tmp_path, write_dicom, head, tags, reason):
    pixels = head().astype(np.int16)
    write_dicom(tmp_path / "good.dcm", pixels)
    write_dicom(tmp_path / "bad.dcm", pixels, z=5, **tags)
    problems = Problems()
    assert one(tmp_path, problems).sources == ("good.dcm",)
    (problem,) = problems.items
    assert problem.source == "bad.dcm"
    assert not problem.skip
    assert reason in problem.reason


SKIPPED = {
    "localizer": ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
    "MR": ({"Modality": "MR"}, "not a CT"),
    "dose sheet": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "SOP class"),
    "colour": ({"SamplesPerPixel": 3}, "colour"),
    "coronal": ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "not an axial"),
    "dual energy": ({"RescaleType": "Z_EFF"}, "not HU"),
}


@pytest.mark.parametrize(("tags", "reason"), SKIPPED.values(), ids=SKIPPED.keys())
def test_other_images_are_left_out_and_do_not_count(tmp_path, write_dicom, head, tags, reason):
    pixels = head().astype(np.int16)
    write_dicom(tmp_path / "good.dcm", pixels)
    write_dicom(tmp_path / "other.dcm", pixels, z=5, **tags)
    problems = Problems()
    assert one(tmp_path, problems).sources == ("good.dcm",)
    (problem,) = problems.items
    assert problem.skip
    assert reason in problem.reason
    assert problems.failed == 0


def test_broken_files_do_not_harm_the_rest(tmp_path, write_dicom, head):
    pixels = head().astype(np.int16)
    good = write_dicom(tmp_path / "a" / "good.dcm", pixels).read_bytes()
    (tmp_path / "a" / "empty.dcm").touch()
    (tmp_path / "a" / "cut.dcm").write_bytes(good[:-1000])
    (tmp_path / "a" / "cut_header.dcm").write_bytes(good[:300])
    (tmp_path / "a" / "text.dcm").write_text("Dear colleague")
    (tmp_path / "notes.txt").write_text("Dear colleague")
    (tmp_path / "broken link.dcm").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe.dcm")  # opening it would wait for ever
    problems = Problems()
    assert one(tmp_path, problems).sources == ("a/good.dcm",)
    bad = {item.source: item.reason for item in problems.items if not item.skip}
    assert bad.keys() == {f"a/{n}.dcm" for n in ("empty", "cut", "cut_header", "text")} | {
        "broken link.dcm"
    }
    assert bad["a/empty.dcm"] == "empty file"
    assert bad["a/cut.dcm"] == "pixel data is truncated: 1,048 bytes of 2,048"
    assert "not a DICOM file" in bad["a/text.dcm"]
    assert [item.source for item in problems.items if item.skip] == ["notes.txt"]


def test_every_truncation_is_refused_or_right(tmp_path, write_dicom, head):
    expected = head(16)
    whole = write_dicom(tmp_path / "a.dcm", expected.astype(np.int16)).read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "b.dcm").write_bytes(whole[:length])
        with pytest.raises(Refused):
            hu(tmp_path / "b.dcm")


def test_damaged_bytes_never_escape(tmp_path, write_dicom, head):
    """Seeded damage all over the header: an image or a Refused, nothing else, and no warnings."""
    whole = bytearray(write_dicom(tmp_path / "a.dcm", head(16).astype(np.int16)).read_bytes())
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(300):
            damaged = bytearray(whole)
            for at in rng.integers(132, len(whole) - 512, rng.integers(1, 4)):
                damaged[at] = rng.integers(256)
            (tmp_path / "b.dcm").write_bytes(damaged)
            with suppress(Refused):
                quirks.correct(read_image(tmp_path / "b.dcm"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_and_folder(tmp_path, write_dicom, head):
    pixels = head().astype(np.int16)
    write_dicom(tmp_path / "good.dcm", pixels)
    write_dicom(tmp_path / "locked.dcm", pixels).chmod(0)
    write_dicom(tmp_path / "shut" / "a.dcm", pixels).parent.chmod(0)
    problems = Problems()
    assert len(one(tmp_path, problems)) == 1
    assert {item.source for item in problems.items} == {"locked.dcm", "shut"}


def test_permission_denied_is_a_reason(tmp_path, write_dicom, head, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm", head().astype(np.int16))

    def deny(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(headers, "open", deny, raising=False)  # before the built-in
    with pytest.raises(Refused, match="Permission denied"):
        read_header(path)
