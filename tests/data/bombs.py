"""Small files that ask for much: each inflates, or says in its header that it is large."""

import gzip
import struct
import zlib
from pathlib import Path

import nibabel
import numpy as np
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
)

MIB = 1 << 20


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Explicit little endian; another length than the value's where one is given."""
    size = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    long = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT")
    return head + (struct.pack("<HL", 0, size) if long else struct.pack("<H", size)) + value


def file_meta(syntax: str) -> bytes:
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    body = element(0x00020010, b"UI", uid)
    return bytes(128) + b"DICM" + element(0x00020000, b"UL", struct.pack("<L", len(body))) + body


def ct_elements(side: int, *, private: bytes = b"", **text: bytes) -> bytes:
    """Everything of an unsigned CT slice of 16 bits before its pixels, `private` in its place."""
    return b"".join(
        [
            element(0x00080008, b"CS", b"ORIGINAL\\PRIMARY\\AXIAL "),
            element(0x00080016, b"UI", text.get("sop", b"1.2.840.10008.5.1.4.1.1.2\0")),
            element(0x00080060, b"CS", b"CT"),
            private,
            element(0x0020000D, b"UI", b"1.2.3\0"),
            element(0x0020000E, b"UI", b"1.2.3.4\0"),
            element(0x00200032, b"DS", b"0\\0\\0 "),
            element(0x00200037, b"DS", b"1\\0\\0\\0\\1\\0 "),
            element(0x00280002, b"US", struct.pack("<H", 1)),
            element(0x00280004, b"CS", b"MONOCHROME2 "),
            element(0x00280010, b"US", struct.pack("<H", side)),
            element(0x00280011, b"US", struct.pack("<H", side)),
            element(0x00280030, b"DS", b"1\\1 "),
            element(0x00280100, b"US", struct.pack("<H", 16)),
            element(0x00280101, b"US", struct.pack("<H", 16)),
            element(0x00280102, b"US", struct.pack("<H", 15)),
            element(0x00280103, b"US", struct.pack("<H", 0)),
            element(0x00281052, b"DS", b"-1024 "),
            element(0x00281053, b"DS", b"1 "),
        ]
    )


def deflate(data: bytes, zeros: int = 0) -> bytes:
    """The data and then so many zeros, a little at a time."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    parts = [packer.compress(data)]
    while zeros > 0:
        parts.append(packer.compress(bytes(min(zeros, MIB))))
        zeros -= MIB
    return b"".join([*parts, packer.flush()])


def deflated_pixels(path: Path, most: int) -> Path:
    """A deflated slice of 64 x 64 pixels, whose element of pixels goes on to `most` bytes."""
    start = ct_elements(64) + element(0x7FE00010, b"OW", b"", most)
    path.write_bytes(file_meta(DeflatedExplicitVRLittleEndian) + deflate(start, most))
    return path


def deflated_elements(path: Path, count: int) -> Path:
    """A deflated slice with so many elements of no bytes before its pixels."""
    one = element(0x00091001, b"LO", b"")
    private = one * count
    whole = ct_elements(64, private=private) + element(0x7FE00010, b"OW", bytes(2 * 64 * 64))
    path.write_bytes(file_meta(DeflatedExplicitVRLittleEndian) + deflate(whole))
    return path


def codestream(
    side: int, precinct: int | None = None, *, levels: int = 5, layers: int = 1, bits: int = 16
) -> bytes:
    """JPEG 2000 of one tile and no packets: a header, and precincts of 2^precinct on a side."""
    size = struct.pack(">8LH3B", side, side, 0, 0, side, side, 0, 0, 1, bits - 1, 1, 1)
    style = 0 if precinct is None else 1
    coding = struct.pack(">BBHB5B", style, 0, layers, 0, levels, 4, 4, 0, 1)
    if precinct is not None:
        coding += bytes([max(precinct, 0) * 17]) + bytes([max(precinct, 1) * 17]) * levels
    steps = bytes([2 << 5] + [(bits + 1) << 3] * (1 + 3 * levels))
    header = b"".join(
        marker + struct.pack(">H", len(body) + 2) + body
        for marker, body in (
            (b"\xff\x51", struct.pack(">H", 0) + size),
            (b"\xff\x52", coding),
            (b"\xff\x5c", steps),
        )
    )
    tile = b"\xff\x90" + struct.pack(">HHLBB", 10, 0, 14, 0, 1) + b"\xff\x93"
    return b"\xff\x4f" + header + tile + b"\xff\xd9"


def encapsulated(syntax: str, side: int, stream: bytes) -> bytes:
    item = b"\xfe\xff\x00\xe0"
    stream += b"\0" * (len(stream) % 2)
    return (
        file_meta(syntax)
        + ct_elements(side)
        + element(0x7FE00010, b"OB", b"", 0xFFFFFFFF)
        + item
        + bytes(4)
        + item
        + struct.pack("<L", len(stream))
        + stream
        + b"\xfe\xff\xdd\xe0\0\0\0\0"
    )


def tiny_precincts(path: Path, side: int) -> Path:
    path.write_bytes(encapsulated(JPEG2000Lossless, side, codestream(side, 0)))
    return path


def many_layers(path: Path, side: int) -> Path:
    path.write_bytes(encapsulated(JPEG2000Lossless, side, codestream(side, 5, layers=65535)))
    return path


def empty_frames(path: Path, count: int) -> Path:
    """Enhanced CT with so many frames of which nothing is said."""
    item = b"\xfe\xff\x00\xe0"
    groups = element(0x52009229, b"SQ", item + bytes(4))
    groups += element(0x52009230, b"SQ", (item + bytes(4)) * count)
    text = str(count).encode()
    frames = element(0x00280008, b"IS", text + b" " * (len(text) % 2))
    before = ct_elements(16, sop=EnhancedCTImageStorage.encode() + b"\0" * 1)
    at = before.index(struct.pack("<HH", 0x28, 0x10))
    whole = before[:at] + frames + before[at:] + groups
    whole += element(0x7FE00010, b"OW", bytes(512))
    path.write_bytes(file_meta(ExplicitVRLittleEndian) + whole)
    return path


def gzipped_nifti(path: Path, shape: tuple[int, int, int], *, offset: int = 352) -> Path:
    """All air but for a bone in its first voxels; `offset` is where the header says they begin."""
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header["vox_offset"] = offset
    header["magic"] = b"n+1"
    header.set_sform(np.diag([-0.5, -0.5, 5.0, 1.0]), 1)
    row = np.full(MIB // 2, -1000, "<i2")
    first = row.copy()
    first[:100] = 900
    left = 2 * int(np.prod(shape))
    with gzip.open(path, "wb", 9) as file:
        file.write(header.binaryblock + bytes(4))
        for _ in range((offset - 352) // MIB):
            file.write(bytes(MIB))
        file.write(bytes((offset - 352) % MIB))
        while left > 0:
            file.write(first.tobytes()[:left])
            first, left = row, left - MIB
    return path


def long_line(path: Path, size: int, start: bytes = b"") -> Path:
    """A table whose last line has so many bytes; a hole in the file, which takes no disk."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(len(start) + size)
    return path


def wide_jpeg(path: Path, side: int) -> Path:
    """A baseline JPEG whose header says side x side, of a picture of 8 x 8."""
    from PIL import Image

    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path, "JPEG")
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", side, side)
    path.write_bytes(data)
    return path
