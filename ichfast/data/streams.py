"""Compressed pixel data before it meets a decoder: the one frame's stream, whole and of the size,
depth and kind that the header says.

DICOM has no checksums and the decoders are lenient: they fill what is missing with zeros, take the
size from the stream, and crash on nonsense. What the format lets one check is checked here, and a
decoder gets the bytes that were checked and no others: no container around a codestream, in which
it might find another one, and nothing behind the end mark.
"""

import re
import struct
from io import BytesIO
from itertools import pairwise
from typing import BinaryIO

import numpy as np
from pydicom.encaps import parse_basic_offsets
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from ichfast.data.compressed import DAMAGED, TRUNCATED, Stream, check_size
from ichfast.data.image import Header
from ichfast.data.jpeg2000 import check_jpeg_2000
from ichfast.data.problems import Refused

# Start-of-frame markers (ISO 10918-1 table B.1, 14495-1 C.1.1) that a syntax may hold.
_START_OF_FRAME: dict[str, bytes] = {
    JPEGBaseline8Bit: b"\xc0",
    JPEGExtended12Bit: b"\xc0\xc1",
    JPEGLossless: b"\xc3",
    JPEGLosslessSV1: b"\xc3",
    JPEGLSLossless: b"\xf7",
    JPEGLSNearLossless: b"\xf7",
}
# Tables, restart interval, JPEG-LS parameters, application data and comments may come before.
_OTHER_SEGMENTS = {0xC4, 0xDB, 0xDD, 0xF8, 0xFE, *range(0xE0, 0xF0)}

_JPEG_2000 = (JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)

# Writers make one fragment of a frame, or cut it into pieces of some kilobytes.
_FRAGMENTS, _FRAGMENTS_OF_A_FRAME = 1 << 14, 16

_SEVERAL = "compressed pixel data is not one frame"


def read_stream(data: bytes, header: Header) -> Stream:
    """From the PixelData element at the header's offset."""
    offsets, fragments = _find_fragments(BytesIO(data), header.data_offset, 1)
    if not fragments or offsets not in ([], [0]):
        raise Refused(_SEVERAL)
    check_length(sum(length for _, length in fragments), header)
    return check_stream(b"".join(data[at : at + length] for at, length in fragments), header)


def check_length(length: int, header: Header) -> None:
    """Of a frame's fragments together, before they are joined. Noise grows when it is compressed,
    by a third at the most.
    """
    pixels = header.rows * header.columns * header.bits_allocated // 8
    if length > 2 * pixels + (1 << 16):
        raise Refused(f"{DAMAGED} ({length:,} bytes for {pixels:,} of pixels)")


def check_stream(stream: bytes, header: Header) -> Stream:
    """One frame's bytes, out of their fragments. Refused unless they are what the header says."""
    syntax = header.transfer_syntax
    if syntax == RLELossless:
        return _check_rle(stream, header)
    if syntax in _JPEG_2000:
        return check_jpeg_2000(stream, header)
    if syntax in _START_OF_FRAME:
        return _check_jpeg(stream, header)
    raise Refused("a compression that is not read; convert the file")


def find_frames(
    file: BinaryIO, header: Header, frames: int, offsets: bytes, lengths: bytes
) -> list[list[tuple[int, int]]]:
    """Where a multi-frame file has each frame's fragments: (offset, length) in the file. By its
    basic or extended offset table (PS3.5 A.4, PS3.3 C.7.6.3.1.8), or a fragment for each frame.
    """
    basic, fragments = _find_fragments(file, header.data_offset, frames)
    if frames == 1 and fragments:
        return [fragments]
    places = [at - fragments[0][0] for at, _ in fragments]
    if offsets:  # then every frame is one fragment
        whole = [length for _, length in fragments]
        same = np.array(places, "<u8").tobytes() == offsets and len(lengths) == len(offsets)
        own = np.frombuffer(lengths, "<u8").tolist() if same else []
        if basic or not same or any(n not in (m, m - 1) for n, m in zip(own, whole, strict=True)):
            raise Refused(f"{DAMAGED} (extended offset table)")
    elif basic:
        if len(basic) != frames or basic[0] != 0 or not set(basic) <= set(places):
            raise Refused(f"{DAMAGED} (offset table)")
        bounds = [*map(places.index, basic), len(places)]
        if any(b <= a for a, b in pairwise(bounds)):
            raise Refused(f"{DAMAGED} (offset table)")
        return [fragments[a:b] for a, b in pairwise(bounds)]
    if len(fragments) != frames:
        raise Refused(
            "compressed frames in several fragments without an offset table; convert the file to "
            "uncompressed"
        )
    return [[fragment] for fragment in fragments]


def _find_fragments(
    file: BinaryIO, begin: int, frames: int
) -> tuple[list[int], list[tuple[int, int]]]:
    """The basic offset table and where the fragments lie: (offset, length) in the file. At `begin`
    is the PixelData element (PS3.5 A.4): an offset table, fragments, a delimiter.

    pydicom takes tables of any length, fragments without end or beyond the file's, and needs no
    delimiter.
    """
    file.seek(begin)
    head, table = file.read(12), file.read(8)
    if head[:4] != b"\xe0\x7f\x10\x00":
        raise Refused("no pixel data")
    if head[4:] not in (b"OB\0\0\xff\xff\xff\xff", b"OW\0\0\xff\xff\xff\xff"):
        raise Refused("pixel data is not encapsulated, as its transfer syntax requires")
    if int.from_bytes(table[4:], "little") > 4 * frames:
        raise Refused(_SEVERAL if frames == 1 else f"{DAMAGED} (offset table)")
    file.seek(begin + 12)
    try:
        offsets = parse_basic_offsets(file)
    except struct.error:  # it reads less than it unpacks
        raise Refused(TRUNCATED) from None
    except ValueError:
        raise Refused(f"{DAMAGED} (fragments)") from None
    at, found = file.tell(), list[tuple[int, int]]()
    while len(item := file.read(8)) == 8 and item[:4] == b"\xfe\xff\x00\xe0":
        length = int.from_bytes(item[4:], "little")
        if length == 0xFFFFFFFF or len(found) == _FRAGMENTS + _FRAGMENTS_OF_A_FRAME * frames:
            raise Refused(f"{DAMAGED} (fragments)")
        found.append((at + 8, length))
        at = file.seek(length, 1)
    if len(item) < 8:
        raise Refused(TRUNCATED)
    if item != b"\xfe\xff\xdd\xe0\0\0\0\0":
        raise Refused(f"{DAMAGED} (fragments)")
    return offsets, found


def _check_jpeg(data: bytes, header: Header) -> Stream:
    """JPEG and JPEG-LS share their markers: segments, then one scan, then the end."""
    if data[:2] != b"\xff\xd8":
        raise Refused(f"{DAMAGED} (no start of image)")
    at, bits, component, restarts = 2, 0, -1, False
    tables: dict[int, tuple[int, ...]] = {}
    while True:
        if data[at : at + 1] != b"\xff":
            raise Refused(f"{DAMAGED} (marker)")
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        at += 2 + length
        if length < 2 or at > len(data):
            raise Refused(f"{DAMAGED} (marker)")
        if marker == 0xDA:
            break
        if marker in _START_OF_FRAME[header.transfer_syntax]:
            if bits or len(body) != 9 or body[7] != 0x11:
                raise Refused(f"{DAMAGED} (start of frame)")
            bits, component = body[0], body[6]
            if header.transfer_syntax == JPEGExtended12Bit and bits != 8:
                raise Refused("JPEG Extended of 12 bits cannot be decoded; convert the file")
            rows, columns = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            check_size(header, rows, columns, body[5], bits)
        elif marker not in _OTHER_SEGMENTS:
            raise Refused(f"{DAMAGED} (marker)")
        elif marker == 0xC4:
            tables |= _read_huffman_tables(body)
        elif marker == 0xDD:
            restarts = any(body)
    if not bits or len(body) != 6 or body[:2] != bytes((1, component)):
        raise Refused(f"{DAMAGED} (start of scan)")
    _check_scan(header, body, tables)
    # In the scan a marker is 0xFF and a byte that no encoder puts behind one: above 0x7F in
    # JPEG-LS, not 0 in JPEG, where restart markers may stand between.
    if header.transfer_syntax in (JPEGLSLossless, JPEGLSNearLossless):
        pattern = rb"\xff[\x80-\xfe]"
    else:
        pattern = rb"\xff[\x01-\xcf\xd8-\xfe]" if restarts else rb"\xff[\x01-\xfe]"
    end = re.compile(pattern).search(data, at)
    if end is None:
        raise Refused(TRUNCATED)
    if end[0] != b"\xff\xd9" or data[end.end() :].strip(b"\0\xff"):
        raise Refused(f"{DAMAGED} (a marker within the scan)")
    return Stream(data[: end.end()], bits)


def _read_huffman_tables(body: bytes) -> dict[int, tuple[int, ...]]:
    tables = {}
    while body:
        counts = body[1:17]
        symbols = body[17 : 17 + sum(counts)]
        codes = sum(count << (15 - i) for i, count in enumerate(counts))  # of the 2^16 there are
        if len(counts) < 16 or len(symbols) != sum(counts) or not symbols or codes > 1 << 16:
            raise Refused(f"{DAMAGED} (Huffman table)")
        tables[body[0]] = tuple(symbols)
        body = body[17 + len(symbols) :]
    return tables


def _check_scan(header: Header, body: bytes, tables: dict[int, tuple[int, ...]]) -> None:
    """What the start of the scan may say: JPEG's Ss, Se, Ah and Al, or NEAR and interleave."""
    syntax = header.transfer_syntax
    if syntax in (JPEGLSLossless, JPEGLSNearLossless):
        table, near, rest = body[2], body[3], body[4:]
        good = table == 0 and rest == b"\0\0" and (near == 0 or syntax == JPEGLSNearLossless)
    elif syntax in (JPEGLossless, JPEGLosslessSV1):
        predictors = range(1, 2 if syntax == JPEGLosslessSV1 else 8)
        differences = tables.get(body[2] >> 4, ())  # how many bits a difference has: 0 to 16
        good = body[3] in predictors and body[4:] == b"\0\0" and not body[2] & 0xF
        good = good and bool(differences) and max(differences) <= 16
    else:
        good = body[3:] == b"\0\x3f\0"
    if not good:
        raise Refused(f"{DAMAGED} (start of scan)")


def _check_rle(data: bytes, header: Header) -> Stream:
    """PS3.5 annex G: 64 bytes of offsets, then as many segments as a pixel has bytes, each of
    which unpacks to one byte per pixel.
    """
    words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, 64, 4)]
    count = header.bits_allocated // 8
    bounds = [*words[1 : 1 + count], len(data)]
    if len(data) < 64 or words[0] != count or words[1] != 64 or any(words[1 + count :]):
        raise Refused(f"{DAMAGED} (RLE header)")
    if any(b <= a for a, b in pairwise(bounds)):
        raise Refused(f"{DAMAGED} (RLE header)")
    for start, end in pairwise(bounds):
        _check_rle_segment(data, start, end, header.rows * header.columns)
    return Stream(data, header.bits_allocated)


def _check_rle_segment(data: bytes, at: int, end: int, pixels: int) -> None:
    """One walk over the run lengths. The decoders take a segment of any length and pad or cut."""
    unpacked = 0
    while at < end and unpacked < pixels:
        code = data[at]
        if code < 128:  # that many bytes and one, as they are
            unpacked += code + 1
            at += code + 2
        elif code > 128:  # the next byte, that often
            unpacked += 257 - code
            at += 2
        else:
            at += 1
    if at > end or unpacked < pixels:
        raise Refused("pixel data is truncated: an RLE segment is too short")
    if unpacked != pixels or data[at:end].strip(b"\0\x80"):
        raise Refused(f"{DAMAGED} (an RLE segment is too long)")
