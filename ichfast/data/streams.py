"""Compressed pixel data before it meets a decoder: the one frame's stream, whole and of the size,
depth and kind that the header says.

DICOM has no checksums and the decoders are lenient: they fill what is missing with zeros, take the
size from the stream, and crash on nonsense. What the format lets one check is checked here.
"""

import re
import struct
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from typing import BinaryIO

import numpy as np
from pydicom.encaps import parse_basic_offsets, parse_fragments
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

from ichfast.data.image import Header
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

_TRUNCATED = "pixel data is truncated: its compressed stream does not end"
_DAMAGED = "compressed pixel data is damaged"
_SEVERAL = "compressed pixel data is not one frame"


@dataclass(frozen=True)
class Stream:
    """One frame as compressed, and what it says of itself."""

    data: bytes
    bits: int  # precision of its samples
    signed: bool | None = None  # only JPEG 2000 says


def read_stream(data: bytes, header: Header) -> Stream:
    """From the PixelData element at the header's offset."""
    offsets, fragments = _find_fragments(BytesIO(data), header.data_offset, 1)
    if not fragments or offsets not in ([], [0]):
        raise Refused(_SEVERAL)
    return check_stream(b"".join(data[at : at + length] for at, length in fragments), header)


def check_stream(stream: bytes, header: Header) -> Stream:
    """One frame's bytes, out of their fragments. Refused unless they are what the header says."""
    syntax = header.transfer_syntax
    if syntax == RLELossless:
        return _check_rle(stream, header)
    if syntax in _JPEG_2000:
        return _check_jpeg_2000(stream, header)
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
            raise Refused(f"{_DAMAGED} (extended offset table)")
    elif basic:
        if len(basic) != frames or basic[0] != 0 or not set(basic) <= set(places):
            raise Refused(f"{_DAMAGED} (offset table)")
        bounds = [*map(places.index, basic), len(places)]
        if any(b <= a for a, b in pairwise(bounds)):
            raise Refused(f"{_DAMAGED} (offset table)")
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

    pydicom takes tables of any length and fragments that reach beyond the file, and needs no
    delimiter.
    """
    file.seek(begin)
    head, table = file.read(12), file.read(8)
    if head[:4] != b"\xe0\x7f\x10\x00":
        raise Refused("no pixel data")
    if head[4:] not in (b"OB\0\0\xff\xff\xff\xff", b"OW\0\0\xff\xff\xff\xff"):
        raise Refused("pixel data is not encapsulated, as its transfer syntax requires")
    if int.from_bytes(table[4:], "little") > 4 * frames:
        raise Refused(_SEVERAL if frames == 1 else f"{_DAMAGED} (offset table)")
    file.seek(begin + 12)
    try:
        offsets = parse_basic_offsets(file)
        end = file.tell()
        _, starts = parse_fragments(file)
    except struct.error:  # it reads less than it unpacks
        raise Refused(_TRUNCATED) from None
    except ValueError:
        raise Refused(f"{_DAMAGED} (fragments)") from None
    if starts:
        file.seek(starts[-1] + 4)
        end = starts[-1] + 8 + int.from_bytes(file.read(4), "little")
    file.seek(end)
    delimiter = file.read(8)
    if len(delimiter) < 8:
        raise Refused(_TRUNCATED)
    if delimiter != b"\xfe\xff\xdd\xe0\0\0\0\0":
        raise Refused(f"{_DAMAGED} (fragments)")
    return offsets, [(a + 8, b - a - 8) for a, b in pairwise([*starts, end])]


def _check_size(header: Header, rows: int, columns: int, components: int, bits: int) -> None:
    if (rows, columns, components) != (header.rows, header.columns, 1):
        raise Refused("compressed pixel data is of another size than Rows x Columns")
    if not 2 <= bits <= header.bits_allocated:
        raise Refused(
            f"compressed pixel data has {bits} bits, BitsAllocated {header.bits_allocated}"
        )


def _check_jpeg(data: bytes, header: Header) -> Stream:
    """JPEG and JPEG-LS share their markers: segments, then one scan, then the end."""
    if data[:2] != b"\xff\xd8":
        raise Refused(f"{_DAMAGED} (no start of image)")
    at, bits, component, restarts = 2, 0, -1, False
    tables: dict[int, tuple[int, ...]] = {}
    while True:
        if data[at : at + 1] != b"\xff":
            raise Refused(f"{_DAMAGED} (marker)")
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        at += 2 + length
        if length < 2 or at > len(data):
            raise Refused(f"{_DAMAGED} (marker)")
        if marker == 0xDA:
            break
        if marker in _START_OF_FRAME[header.transfer_syntax]:
            if bits or len(body) != 9 or body[7] != 0x11:
                raise Refused(f"{_DAMAGED} (start of frame)")
            bits, component = body[0], body[6]
            rows, columns = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            _check_size(header, rows, columns, body[5], bits)
        elif marker not in _OTHER_SEGMENTS:
            raise Refused(f"{_DAMAGED} (marker)")
        elif marker == 0xC4:
            tables |= _read_huffman_tables(body)
        elif marker == 0xDD:
            restarts = any(body)
    if not bits or len(body) != 6 or body[:2] != bytes((1, component)):
        raise Refused(f"{_DAMAGED} (start of scan)")
    _check_scan(header, body, tables)
    # In the scan a marker is 0xFF and a byte that no encoder puts behind one: above 0x7F in
    # JPEG-LS, not 0 in JPEG, where restart markers may stand between.
    if header.transfer_syntax in (JPEGLSLossless, JPEGLSNearLossless):
        pattern = rb"\xff[\x80-\xfe]"
    else:
        pattern = rb"\xff[\x01-\xcf\xd8-\xfe]" if restarts else rb"\xff[\x01-\xfe]"
    end = re.compile(pattern).search(data, at)
    if end is None:
        raise Refused(_TRUNCATED)
    if end[0] != b"\xff\xd9" or data[end.end() :].strip(b"\0\xff"):
        raise Refused(f"{_DAMAGED} (a marker within the scan)")
    return Stream(data, bits)


def _read_huffman_tables(body: bytes) -> dict[int, tuple[int, ...]]:
    tables = {}
    while body:
        counts = body[1:17]
        symbols = body[17 : 17 + sum(counts)]
        codes = sum(count << (15 - i) for i, count in enumerate(counts))  # of the 2^16 there are
        if len(counts) < 16 or len(symbols) != sum(counts) or not symbols or codes > 1 << 16:
            raise Refused(f"{_DAMAGED} (Huffman table)")
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
        raise Refused(f"{_DAMAGED} (start of scan)")


def _check_jpeg_2000(data: bytes, header: Header) -> Stream:
    """ISO 15444-1 annex A: SOC, SIZ, other segments, then tile-parts that say how long they are."""
    at = 0
    if data.startswith(b"\0\0\0\x0cjP  "):  # in a JP2 file, as some writers do against PS3.5 A.4.4
        at = data.find(b"jp2c") + 4
    if data[at : at + 4] != b"\xff\x4f\xff\x51":
        raise Refused(f"{_DAMAGED} (no start of codestream)")
    size = data[at + 4 : at + 45]
    if len(size) < 41 or size[:2] != b"\0\x29":
        raise Refused("compressed pixel data is of another size than Rows x Columns")
    width, height, left, top, tile_width, tile_height, tile_left, tile_top = (
        int.from_bytes(size[i : i + 4], "big") for i in range(4, 36, 4)
    )
    bits, signed = (size[38] & 0x7F) + 1, bool(size[38] & 0x80)
    _check_size(header, height - top, width - left, int.from_bytes(size[36:38], "big"), bits)
    if size[39:41] != b"\1\1" or not (tile_width and tile_height):
        raise Refused(f"{_DAMAGED} (sampling or tiles)")
    # A header with a million tiles of one pixel makes the decoder ask for gigabytes.
    tiles = -(-(width - tile_left) // tile_width) * -(-(height - tile_top) // tile_height)
    if not 0 < tiles <= 4096:
        raise Refused(f"{_DAMAGED} (tiles)")
    at += 45
    segments: dict[int, bytes] = {}
    while data[at : at + 2] != b"\xff\x90":
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at : at + 1] != b"\xff" or data[at + 1] < 0x50 or length < 2:
            raise Refused(f"{_DAMAGED} (marker)" if data[at:] else _TRUNCATED)
        segments[data[at + 1]] = data[at + 4 : at + 2 + length]
        at += 2 + length
    _check_wavelet(segments, header)
    seen = set()
    while data[at : at + 2] == b"\xff\x90":  # start of a tile-part
        tile, length = (int.from_bytes(data[at + i : at + j], "big") for i, j in ((4, 6), (6, 10)))
        seen.add(tile)
        if length == 0:  # the last may leave its length open
            at = data.rfind(b"\xff\xd9")
            break
        if data[at + 2 : at + 4] != b"\0\x0a" or length < 14:
            raise Refused(f"{_DAMAGED} (tile-part)")
        at += length
    if at < 0 or at >= len(data):
        raise Refused(_TRUNCATED)
    if data[at : at + 2] != b"\xff\xd9" or data[at + 2 :].strip(b"\0") or len(seen) != tiles:
        raise Refused(f"{_DAMAGED} (tile-parts)")
    return Stream(data, bits, signed)


def _check_wavelet(segments: dict[int, bytes], header: Header) -> None:
    """Coding style and quantisation say the same thing twice: how many levels there are, and
    whether the transform is the reversible one, as a lossless syntax requires.
    """
    coding, steps = segments.get(0x52, b""), segments.get(0x5C, b"")
    if len(coding) < 10 or len(steps) < 2 or coding[5] > 32 or coding[9] > 1:
        raise Refused(f"{_DAMAGED} (coding style)")
    style, reversible = steps[0] & 0x1F, coding[9] == 1
    bands = 3 * coding[5] + 1
    sizes = {0: 1 + bands, 1: 3, 2: 1 + 2 * bands}  # no quantisation, derived, given one by one
    lossless = header.transfer_syntax not in (JPEG2000, HTJ2K)
    if len(steps) != sizes.get(style) or reversible != (style == 0) or lossless > reversible:
        raise Refused(f"{_DAMAGED} (coding style)")


def _check_rle(data: bytes, header: Header) -> Stream:
    """PS3.5 annex G: 64 bytes of offsets, then as many segments as a pixel has bytes, each of
    which unpacks to one byte per pixel.
    """
    words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, 64, 4)]
    count = header.bits_allocated // 8
    bounds = [*words[1 : 1 + count], len(data)]
    if len(data) < 64 or words[0] != count or words[1] != 64 or any(words[1 + count :]):
        raise Refused(f"{_DAMAGED} (RLE header)")
    if any(b <= a for a, b in pairwise(bounds)):
        raise Refused(f"{_DAMAGED} (RLE header)")
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
        raise Refused(f"{_DAMAGED} (an RLE segment is too long)")
