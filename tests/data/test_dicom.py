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

from ichfast.data import Problems, detect_layout, quirks, read_series
from ichfast.data.dicom import read_header, read_image
from ichfast.data.problems import Refused
from ichfast.errors import DataError


def hu(path: Path) -> np.ndarray:
    image = read_image(path)
    quirks.correct(image)
    return image.stored * image.slope + image.intercept


def one(root: Path, problems: Problems | None = None):
    (series,) = read_series(root, problems or Problems())
    return series


# --- one file ---


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

    monkeypatch.setattr("ichfast.data.dicom.get_decoder", lambda uid: Missing())
    with pytest.raises(DataError, match=r"a\.dcm.*RLE.*pip install ichfast\[decode\]"):
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
    "no series": ({"SeriesInstanceUID": None}, "SeriesInstanceUID"),
    "taller": ({"Rows": 33}, "truncated: 2,048 bytes of 2,112"),
    "shorter": ({"Rows": 16}, "2,048 bytes, Rows x Columns needs 1,024"),
    "no rows": ({"Rows": 0}, "0 x 32"),
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
    assert bad.keys() == {f"a/{n}.dcm" for n in ("empty", "cut", "cut_header", "text")}
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

    def deny(self, *_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(Refused, match="Permission denied"):
        read_header(path)


# --- a folder ---


def write_stack(write_dicom, root, head, zs, **tags):
    for i, z in enumerate(zs):
        write_dicom(root / f"{i}.dcm", (head() + i).astype(np.int16), z=z, **tags)


def test_slices_are_ordered_by_position_not_by_name(tmp_path, write_dicom, head):
    write_stack(write_dicom, tmp_path, head, [10, 0, 15, 5])
    series = one(tmp_path)
    assert series.sources == ("1.dcm", "3.dcm", "0.dcm", "2.dcm")
    np.testing.assert_allclose(series.positions, [0, 5, 10, 15])
    np.testing.assert_array_equal(series.hu(), [head() + i for i in (1, 3, 0, 2)])
    assert series.spacing == (0.5, 0.5)
    assert series.stored.dtype == np.int16
    assert series.quirks == ()


ORIENTATIONS = {
    "usual": ([1, 0, 0, 0, 1, 0], lambda upright: upright),
    "columns to the right": ([-1, 0, 0, 0, 1, 0], lambda upright: upright[:, ::-1]),
    "rows to the front": ([1, 0, 0, 0, -1, 0], lambda upright: upright[::-1]),
    "turned over": ([-1, 0, 0, 0, -1, 0], lambda upright: upright[::-1, ::-1]),
    "transposed": ([0, 1, 0, 1, 0, 0], lambda upright: upright.T),
    "turned left": ([0, -1, 0, 1, 0, 0], lambda upright: upright[::-1].T),
}


@pytest.mark.parametrize(("cosines", "store"), ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_every_orientation_becomes_upright(tmp_path, write_dicom, head, cosines, store):
    for i, z in enumerate([0, 5]):
        pixels = np.ascontiguousarray(store(head() + i).astype(np.int16))
        tags = {"ImageOrientationPatient": cosines, "PixelSpacing": [0.5, 0.75]}
        write_dicom(tmp_path / f"{i}.dcm", pixels, z=z, **tags)
    series = one(tmp_path)
    np.testing.assert_array_equal(series.hu(), [head(), head() + 1])
    np.testing.assert_allclose(series.positions, [0, 5])
    assert series.spacing == ((0.75, 0.5) if cosines[0] == 0 else (0.5, 0.75))


def test_series_sizes_and_orientations_are_kept_apart(tmp_path, write_dicom, head):
    pixels = head().astype(np.int16)
    write_dicom(tmp_path / "a.dcm", pixels)
    write_dicom(tmp_path / "b.dcm", pixels, z=5, SeriesInstanceUID="9.9")
    write_dicom(tmp_path / "c.dcm", head(16).astype(np.int16), z=5)
    tilted = [1, 0, 0, 0, 0.95, -0.3122499]
    write_dicom(tmp_path / "d.dcm", pixels, z=5, ImageOrientationPatient=tilted)
    write_dicom(tmp_path / "e.dcm", pixels, z=5, PatientID="someone else")
    all_series = list(read_series(tmp_path, Problems()))
    assert sorted(s.sources[0] for s in all_series) == [f"{n}.dcm" for n in "abcde"]


def test_a_copied_file_counts_once(tmp_path, write_dicom, head):
    write_stack(write_dicom, tmp_path, head, [0, 5])
    (tmp_path / "copy of 1.dcm").write_bytes((tmp_path / "1.dcm").read_bytes())
    problems = Problems()
    assert len(one(tmp_path, problems)) == 2
    assert problems.items[0].reason == "the same image as 1.dcm"


def test_nothing_readable_is_an_error_with_the_reasons(tmp_path, write_dicom, head):
    write_dicom(tmp_path / "a.dcm", head().astype(np.int16), RescaleSlope=None)
    with pytest.raises(DataError, match=r"nothing could be read.*a\.dcm: RescaleSlope"):
        list(read_series(tmp_path, Problems()))


def test_too_many_bad_files_stop(tmp_path, write_dicom, head):
    pixels = head(8).astype(np.int16)
    for i in range(30):
        write_dicom(tmp_path / f"good{i}.dcm", pixels + i, z=i)
        write_dicom(tmp_path / f"bad{i}.dcm", pixels, RescaleSlope=None)
    with pytest.raises(DataError, match="too many unreadable files"):
        list(read_series(tmp_path, Problems()))


def test_summary_stays_short():
    problems = Problems()
    problems.expect(1000)
    for i in range(90):
        problems.add(f"{i}.dcm", "empty file")
        problems.skip(f"{i}.txt", f"reason {i}")
    text = problems.summary()
    assert text.startswith(
        "90 not read, 90 left out or odd (0.dcm, 1.dcm, 2.dcm and 87 more: empty"
    )
    assert text.endswith("and 83 more reasons)")


def test_no_patient_in_messages(tmp_path, write_dicom, head, caplog, recwarn, capfd):
    pixels = head().astype(np.int16)
    tags = {"PatientID": "Jane\nRoe", "PatientName": "Roe^Jane"}
    write_dicom(tmp_path / "good.dcm", pixels, **tags)
    write_dicom(tmp_path / "bad.dcm", pixels, z=5, RescaleSlope=None, **tags)
    problems = Problems()
    list(read_series(tmp_path, problems))
    output = capfd.readouterr()
    for text in (problems.summary(), caplog.text, output.out, output.err, *map(str, recwarn)):
        assert "Roe" not in text


def test_strange_file_names_are_printable(tmp_path, write_dicom, head):
    write_dicom(tmp_path / "good.dcm", head().astype(np.int16))
    (tmp_path / os.fsdecode(b"bad\xff\x1b[31m.dcm")).touch()
    problems = Problems()
    list(read_series(tmp_path, problems))
    assert problems.items[0].source.isprintable()
    problems.summary().encode()


# --- a real scan ---


def test_real_head_ct(head_ct):
    series = one(head_ct)
    assert series.stored.shape == (28, 512, 512)
    assert series.tilt == pytest.approx(18.5, abs=0.01)
    np.testing.assert_allclose(
        np.diff(series.positions), [4.002] * 13 + [1.081] + [6.999] * 13, atol=1e-3
    )
    assert series.padding == -1500
    assert series.quirks == ("pixel padding", "gantry tilt", "uneven spacing")
    hu = series.hu()
    assert hu.min() >= -1024
    assert hu[:, 0, 0].max() == -1000  # padding in the corners
    # Upright: in a slice through the face the nose is a thin tip above, the head below is wide.
    tissue = hu[2] > -300
    rows = np.flatnonzero(tissue.any(1))
    assert tissue[rows[10]].sum() < tissue[rows[len(rows) // 2]].sum() / 3


def test_layout_errors(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        detect_layout(tmp_path / "missing")
    with pytest.raises(DataError, match="Looked for a folder ct_scans"):
        detect_layout(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be listed"):
        detect_layout(tmp_path / "file")
    (tmp_path / "labelled").mkdir()
    (tmp_path / "unlabelled").mkdir()
    with pytest.raises(DataError, match="holds two sets"):
        detect_layout(tmp_path)
