"""What a JPEG 2000 codestream asks for, before a decoder is asked; and that the decoder gets what
was checked.
"""

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bombs import codestream, many_layers, tiny_precincts
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGExtended12Bit

from ichfast.data.dicom import read_image
from ichfast.data.headers import read_header
from ichfast.data.image import Header
from ichfast.data.problems import Refused
from ichfast.data.streams import check_stream

SIDE = 32


def encode(picture: np.ndarray, **options: Any) -> bytes:
    utils = pytest.importorskip("openjpeg.utils")
    stream: bytes = utils.encode_array(picture, photometric_interpretation=2, **options)
    return stream


@pytest.fixture
def picture(head: Any) -> np.ndarray:
    return (head(SIDE) + 1024).astype(np.uint16)


@pytest.fixture
def header(tmp_path: Path, write_dicom: Any, picture: np.ndarray) -> Header:
    found = read_header(write_dicom(tmp_path / "plain.dcm", picture))
    return replace(found, transfer_syntax=JPEG2000Lossless)


def sized(header: Header, side: int) -> Header:
    return replace(header, rows=side, columns=side)


def box(kind: bytes, content: bytes, *, long: bool = False) -> bytes:
    if long:
        return struct.pack(">L4sQ", 1, kind, len(content) + 16) + content
    return struct.pack(">L4s", len(content) + 8, kind) + content


MARK = box(b"jP  ", b"\r\n\x87\n")


def write(path: Path, make: Any, picture: np.ndarray, stream: bytes) -> Path:
    dataset = make(picture, RescaleIntercept=-1024)
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("long", [False, True])
def test_the_picture_that_was_checked_is_the_one_that_is_read(
    tmp_path: Path, make_dicom: Any, picture: np.ndarray, need_decoder: Any, long: bool
) -> None:
    """The first "jp2c" lies within another box: the boxes lead to the second."""
    need_decoder(JPEG2000Lossless)
    decoy = box(b"uuid", bytes(16) + box(b"jp2c", encode(picture[::-1].copy())))
    stream = MARK + decoy + box(b"jp2c", encode(picture), long=long)
    path = write(tmp_path / "a.dcm", make_dicom, picture, stream)
    np.testing.assert_array_equal(read_image(path).stored, picture)


def test_a_decoder_gets_the_codestream_alone(header: Header, picture: np.ndarray) -> None:
    plain = encode(picture)
    for stream in (
        plain,
        plain + b"\xff",  # as in the standard's own CT1_J2KR and CT2_J2KR
        plain + b"\xff\0\0",
        MARK + box(b"ftyp", b"jp2 ") + box(b"jp2c", plain),
        MARK + struct.pack(">L4s", 0, b"jp2c") + plain,  # to the end of the file
    ):
        assert check_stream(stream, header).data == plain


@pytest.mark.parametrize(
    "stream",
    [
        MARK,
        MARK + box(b"uuid", box(b"jp2c", codestream(SIDE))),
        MARK + struct.pack(">L4s", 4, b"ftyp") + box(b"jp2c", codestream(SIDE)),
        MARK + struct.pack(">L4s", 0, b"uuid") + box(b"jp2c", codestream(SIDE)),
        MARK + struct.pack(">L4sQ", 1, b"uuid", 2**62) + box(b"jp2c", codestream(SIDE)),
    ],
)
def test_boxes_without_a_codestream(header: Header, stream: bytes) -> None:
    with pytest.raises(Refused, match="among its boxes"):
        check_stream(stream, header)


def test_other_data_behind_the_end(header: Header, picture: np.ndarray) -> None:
    with pytest.raises(Refused, match="tile-parts"):
        check_stream(encode(picture) + codestream(SIDE), header)


def test_real_streams_are_not_refused(header: Header, picture: np.ndarray) -> None:
    """Of pydicom's files, and with the parameters that writers use."""
    for name in ("J2K_pixelrep_mismatch.dcm", "MR_small_jp2klossless.dcm", "JPEG2000.dcm"):
        dataset = dcmread(get_testdata_file(name))
        (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
        own = replace(
            header,
            rows=dataset.Rows,
            columns=dataset.Columns,
            transfer_syntax=dataset.file_meta.TransferSyntaxUID,
        )
        assert check_stream(stream, own).bits == dataset.BitsStored
    lossy = replace(header, transfer_syntax=JPEG2000)
    assert check_stream(encode(picture, compression_ratios=[20, 5, 2]), lossy).bits == 11
    for side in (1, 31, 512, 4096):
        for precinct in (None, 15, 8, 6):
            check_stream(codestream(side, precinct, layers=50), sized(header, side))


@pytest.mark.parametrize("side", [256, 512, 4096])
@pytest.mark.parametrize("precinct", [0, 1, 3])
def test_tiny_precincts(header: Header, side: int, precinct: int) -> None:
    with pytest.raises(Refused, match="precincts"):
        check_stream(codestream(side, precinct), sized(header, side))


def test_layers(header: Header) -> None:
    with pytest.raises(Refused, match="coding style"):
        check_stream(codestream(SIDE, layers=65535), header)


@pytest.mark.parametrize("bomb", [tiny_precincts, many_layers])
def test_a_file_of_them_is_refused_before_a_decoder_is_asked(tmp_path: Path, bomb: Any) -> None:
    with pytest.raises(Refused, match="compressed pixel data is damaged"):
        read_image(bomb(tmp_path / "a.dcm", 4096))


def with_segment(stream: bytes, before: bytes, marker: int, body: bytes) -> bytes:
    """One more segment; the tile-part's length grows with it where it stands in its header."""
    at = stream.index(before)
    added = struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
    result = bytearray(stream[:at] + added + stream[at:])
    if before == b"\xff\x93":
        place = stream.index(b"\xff\x90") + 6
        (length,) = struct.unpack_from(">L", result, place)
        struct.pack_into(">L", result, place, length + len(added))
    return bytes(result)


TINY = bytes([0] + 5 * [0x11])  # precincts of 1 x 1, then 2 x 2, as `codestream` writes them
STYLE = bytes([5, 4, 4, 0, 1])


@pytest.mark.parametrize("place", [b"\xff\x90", b"\xff\x93"], ids=["main", "tile"])
@pytest.mark.parametrize(
    ("marker", "start"), [(0x52, b"\1\0\0\1\0"), (0x53, b"\0\1")], ids=["COD", "COC"]
)
def test_precincts_that_are_said_elsewhere(
    header: Header, place: bytes, marker: int, start: bytes
) -> None:
    stream = with_segment(codestream(512), place, marker, start + STYLE + TINY)
    reason = "marker" if (place, marker) == (b"\xff\x90", 0x52) else "precincts"  # COD twice
    with pytest.raises(Refused, match=reason):
        check_stream(stream, sized(header, 512))
    usual = bytes(6 * [0x88])  # 256 x 256
    if reason == "precincts":
        stream = with_segment(codestream(512), place, marker, start + STYLE + usual)
        check_stream(stream, sized(header, 512))


def test_a_second_size(header: Header) -> None:
    stream = codestream(SIDE)
    body = stream[6 : stream.index(b"\xff\x52")]
    with pytest.raises(Refused, match="marker"):
        check_stream(with_segment(stream, b"\xff\x5c", 0x51, body), header)


def test_far_more_bytes_than_pixels(tmp_path: Path, make_dicom: Any, picture: np.ndarray) -> None:
    path = write(tmp_path / "a.dcm", make_dicom, picture, codestream(SIDE) + bytes(1 << 17))
    with pytest.raises(Refused, match="bytes for 2,048 of pixels"):
        read_image(path)


def test_extended_jpeg_of_twelve_bits_is_refused_by_name(header: Header) -> None:
    frame = struct.pack(">BBHBHHBBBB", 0xFF, 0xC1, 11, 12, SIDE, SIDE, 1, 1, 0x11, 0)
    own = replace(header, transfer_syntax=JPEGExtended12Bit)
    with pytest.raises(Refused, match="12 bits cannot be decoded; convert the file"):
        check_stream(b"\xff\xd8" + frame, own)


def test_nothing_follows_a_jpeg_s_end(header: Header) -> None:
    """A decoder gets the bytes up to the end mark."""
    dataset = dcmread(get_testdata_file("MR_small_jpeg_ls_lossless.dcm"))
    (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
    syntax = dataset.file_meta.TransferSyntaxUID
    own = replace(sized(header, dataset.Rows), transfer_syntax=syntax)
    end = stream.rindex(b"\xff\xd9") + 2
    assert check_stream(stream[:end] + b"\0\xff\xff", own).data == stream[:end]
