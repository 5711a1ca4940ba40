"""Compressed files: what is checked before a decoder, and decoders that crash, hang or differ."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from ichfast.data import decoders
from ichfast.data.dicom import decoders_agree, read_image
from ichfast.data.problems import Refused


@pytest.fixture
def write(tmp_path, make_dicom, head, need_decoder):
    """A compressed CT slice of 12 bits, unsigned, whose header then says something else."""

    def write(syntax, bits=12, **tags) -> Path:
        need_decoder(syntax)
        if syntax == JPEGLSLossless:
            pytest.importorskip("jpeg_ls")
        stored = (head() + 1024).astype(np.uint16)
        dataset = make_dicom(stored, RescaleIntercept=-1024, BitsStored=bits)
        dataset.compress(syntax, generate_instance_uid=False)
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)
        dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        return tmp_path / "a.dcm"

    return write


HEADER_AGAINST_STREAM = {
    "rows": ({"Rows": 31}, "another size"),
    "columns": ({"Columns": 64}, "another size"),
    "fewer bits": ({"BitsStored": 10, "HighBit": 9}, "beyond BitsStored"),
    "high bit": ({"HighBit": 15}, "HighBit"),
    "half the word": ({"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "BitsAllocated 8"),
    "sign unknown": ({"PixelRepresentation": 1, "BitsStored": 14, "HighBit": 13}, "BitsStored 14"),
    "other syntax": ({}, "damaged"),
}


@pytest.mark.parametrize(
    ("tags", "reason"), HEADER_AGAINST_STREAM.values(), ids=HEADER_AGAINST_STREAM.keys()
)
def test_header_against_stream(write, tags, reason):
    path = write(JPEGLSLossless, **tags)
    if not tags:
        data = path.read_bytes()
        path.write_bytes(data.replace(b"1.2.840.10008.1.2.4.80", b"1.2.840.10008.1.2.4.90"))
    with pytest.raises(Refused, match=reason):
        read_image(path)


def test_overlay_bits_in_rle(write, head):
    """RLE keeps whole words, and with them what lies above BitsStored."""
    image = read_image(write(RLELossless, bits=16, BitsStored=11, HighBit=10))
    np.testing.assert_array_equal(image.stored, head() + 1024)


def test_an_rle_segment_that_stops_early(write):
    path = write(RLELossless)
    data = bytearray(path.read_bytes())
    data[-10] = 0x80  # "no operation": the run that stood here is gone
    path.write_bytes(data)
    with pytest.raises(Refused, match="RLE segment"):
        read_image(path)


@pytest.mark.parametrize("name", ["RLE", "jp2klossless", "jpeg_ls_lossless"])
def test_one_picture_in_several_syntaxes(name, tmp_path, make_dicom, need_decoder):
    """pydicom's small MR, its streams under a CT header: by every decoder as uncompressed."""
    source = dcmread(get_testdata_file(f"MR_small_{name}.dcm"))
    plain = dcmread(get_testdata_file("MR_small.dcm")).pixel_array
    need_decoder(source.file_meta.TransferSyntaxUID)
    dataset = make_dicom(plain, PixelData=source.PixelData)
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = source.file_meta.TransferSyntaxUID
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm").stored, plain)
    assert decoders_agree(tmp_path / "a.dcm") is not False


def test_agreement(write, monkeypatch):
    path = write(RLELossless)
    if len(decoders.list_available(RLELossless)) < 2:
        assert decoders_agree(path) is None
        pytest.skip("only one decoder for RLE: pip install '.[decode]'")
    assert decoders_agree(path) is True
    real = decoders.decode
    monkeypatch.setattr(
        decoders, "decode", lambda s, h, name: real(s, h, name) + (name == "pydicom")
    )
    assert decoders_agree(path) is False


def test_agreement_needs_two(tmp_path, write_dicom, head):
    assert decoders_agree(write_dicom(tmp_path / "a.dcm", head().astype(np.int16))) is None


def test_agreement_on_a_real_head_ct(need_decoder):
    need_decoder(JPEG2000Lossless)
    assert decoders_agree(Path(get_testdata_file("J2K_pixelrep_mismatch.dcm"))) in (True, None)
