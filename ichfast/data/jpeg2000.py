"""A JPEG 2000 codestream (ISO 15444-1) before it meets a decoder: what its headers ask for."""

from pydicom.uid import HTJ2K, JPEG2000

from ichfast.data.compressed import DAMAGED, TRUNCATED, Stream, check_size
from ichfast.data.image import Header
from ichfast.data.problems import Refused

# Coding style and quantisation, each also for one component (table A.2).
_CODING = {0x52, 0x53, 0x5C, 0x5D}
_ONCE = {0x51, *_CODING}

# Decoders keep a structure for each precinct and each of its layers. Beside the levels of every
# tile, one for 32 x 32 pixels is allowed (writers have 64 x 64 and more), and of layers a thousand
# (writers have 50).
_PRECINCT = 32 * 32
_LAYERS = 1000

Spans = list[tuple[int, int]]
"""Of the tiles along an axis: where each begins and ends."""


def check_jpeg_2000(data: bytes, header: Header) -> Stream:
    """SOC, SIZ, other segments, then tile-parts that say how long they are, EOC (annex A). Refused
    unless they are whole and what the file's header says; the codestream alone is returned.
    """
    begin = _find_codestream(data)
    if data[begin : begin + 4] != b"\xff\x4f\xff\x51":
        raise Refused(f"{DAMAGED} (no start of codestream)")
    size = data[begin + 4 : begin + 45]
    down, across = _check_image(size, header)
    segments, at = _read_segments(data, begin + 45, b"\x90")
    common = _resolve({}, segments)
    _check_wavelet(common, header)
    _check_precincts(common, down, across)
    end = _check_tile_parts(data, at, common, header, down, across)
    return Stream(data[begin:end], (size[38] & 0x7F) + 1, bool(size[38] & 0x80))


def _check_image(size: bytes, header: Header) -> tuple[Spans, Spans]:
    """The tiles along each axis, down and across, of the segment SIZ (A.5.1)."""
    if len(size) < 41 or size[:2] != b"\0\x29":
        raise Refused("compressed pixel data is of another size than Rows x Columns")
    width, height, left, top, tile_width, tile_height, tile_left, tile_top = (
        int.from_bytes(size[i : i + 4], "big") for i in range(4, 36, 4)
    )
    components, bits = int.from_bytes(size[36:38], "big"), (size[38] & 0x7F) + 1
    check_size(header, height - top, width - left, components, bits)
    if size[39:41] != b"\1\1" or not (tile_width and tile_height):
        raise Refused(f"{DAMAGED} (sampling or tiles)")
    # A header with a million tiles of one pixel makes the decoder ask for gigabytes.
    across = _cut(left, width, tile_left, tile_width)
    down = _cut(top, height, tile_top, tile_height)
    if not 0 < len(across) * len(down) <= 4096:
        raise Refused(f"{DAMAGED} (tiles)")
    return down, across


def _check_tile_parts(
    data: bytes, at: int, common: dict[int, bytes], header: Header, down: Spans, across: Spans
) -> int:
    """Where the codestream ends. `common` is what the main header says for all tiles."""
    seen = set()
    while data[at : at + 2] == b"\xff\x90":  # start of a tile-part
        tile, length = (int.from_bytes(data[at + i : at + j], "big") for i, j in ((4, 6), (6, 10)))
        own, packets = _read_segments(data, at + 12, b"\x93")
        damaged = data[at + 2 : at + 4] != b"\0\x0a" or tile >= len(down) * len(across)
        if damaged or (length and at + length < packets + 2):
            raise Refused(f"{DAMAGED} (tile-part)")
        if own.keys() & _CODING:
            if tile in seen:  # only its first part may say so
                raise Refused(f"{DAMAGED} (tile-part)")
            special = _resolve(common, own)
            _check_wavelet(special, header)
            row, column = divmod(tile, len(across))
            _check_precincts(special, [down[row]], [across[column]])
        seen.add(tile)
        if length == 0:  # the last may leave its length open
            at = data.rfind(b"\xff\xd9")
            break
        at += length
    if at < 0 or at >= len(data):
        raise Refused(TRUNCATED)
    behind = data[at + 2 :].strip(b"\0\xff")  # what writers fill up with
    if data[at : at + 2] != b"\xff\xd9" or behind or len(seen) != len(down) * len(across):
        raise Refused(f"{DAMAGED} (tile-parts)")
    return at + 2


def _find_codestream(data: bytes) -> int:
    """Where it begins: at the start, or in a JP2 file, which some writers put here against PS3.5
    A.4.4 (annex I: boxes, each with its length, its type and perhaps a longer length). What looks
    like one within another box is none: decoders follow the boxes.
    """
    if not data.startswith(b"\0\0\0\x0cjP  "):
        return 0
    at = 0
    while at + 8 <= len(data):
        length, kind, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if length == 1:
            length, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if kind == b"jp2c":
            return at + head
        if length < head:
            break
        at += length
    raise Refused(f"{DAMAGED} (no codestream among its boxes)")


def _read_segments(data: bytes, at: int, end: bytes) -> tuple[dict[int, bytes], int]:
    """The segments of a header by their markers, and where the marker is that ends it."""
    segments: dict[int, bytes] = {}
    while data[at : at + 2] != b"\xff" + end:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at : at + 1] != b"\xff" or data[at + 1 : at + 2] < b"\x50" or length < 2:
            raise Refused(f"{DAMAGED} (marker)" if data[at:] else TRUNCATED)
        if data[at + 1] in _ONCE and (data[at + 1] in segments or data[at + 1] == 0x51):
            raise Refused(f"{DAMAGED} (marker)")
        segments[data[at + 1]] = data[at + 4 : at + 2 + length]
        at += 2 + length
    return segments, at


def _cut(begin: int, end: int, first: int, size: int) -> Spans:
    """The image from `begin` to `end` along an axis, in tiles (B.3); none where the first tile lies
    beside the image, and where there are more than can be read.
    """
    if not first <= begin < first + size or end - first > 4096 * size:
        return []
    edges = range(first, end, size)
    return [(max(edge, begin), min(edge + size, end)) for edge in edges]


def _resolve(common: dict[int, bytes], own: dict[int, bytes]) -> dict[int, bytes]:
    """Coding style and quantisation where a header says its own: for all components, or for the one
    that there is, which goes before (A.6.2, A.6.5).
    """
    result = common | {marker: own[marker] for marker in (0x52, 0x5C) if marker in own}
    if style := own.get(0x53):
        former = result.get(0x52, b"")[:5].ljust(5, b"\0")
        result[0x52] = bytes([former[0] & ~1 | style[1] & 1]) + former[1:] + style[2:]
    if steps := own.get(0x5D):
        result[0x5C] = steps[1:]
    return result


def _check_wavelet(segments: dict[int, bytes], header: Header) -> None:
    """Coding style and quantisation say the same thing twice: how many levels there are, and
    whether the transform is the reversible one, as a lossless syntax requires.
    """
    coding, steps = segments.get(0x52, b""), segments.get(0x5C, b"")
    if len(coding) < 10 or len(steps) < 2 or coding[5] > 32 or coding[9] > 1:
        raise Refused(f"{DAMAGED} (coding style)")
    style, reversible = steps[0] & 0x1F, coding[9] == 1
    bands = 3 * coding[5] + 1
    sizes = {0: 1 + bands, 1: 3, 2: 1 + 2 * bands}  # no quantisation, derived, given one by one
    lossless = header.transfer_syntax not in (JPEG2000, HTJ2K)
    if len(steps) != sizes.get(style) or reversible != (style == 0) or lossless > reversible:
        raise Refused(f"{DAMAGED} (coding style)")


def _check_precincts(segments: dict[int, bytes], down: Spans, across: Spans) -> None:
    """A header of a hundred bytes may ask for a precinct of each pixel, or for layers without end,
    and a decoder for gigabytes to hold them. Counted as B.5 and B.6 divide a tile.
    """
    coding = segments[0x52]
    layers, levels = int.from_bytes(coding[2:4], "big"), coding[5]
    sizes = coding[10:] if coding[0] & 1 else b"\xff" * (levels + 1)
    if len(sizes) < levels + 1 or not 1 <= layers <= _LAYERS:
        raise Refused(f"{DAMAGED} (coding style)")

    def count(tiles: Spans, level: int, exponent: int) -> int:
        low = [(-(-a >> level), -(-b >> level)) for a, b in tiles]
        return sum((b - 1 >> exponent) - (a >> exponent) + 1 for a, b in low if b > a)

    precincts = sum(
        count(down, levels - i, size >> 4) * count(across, levels - i, size & 15)
        for i, size in enumerate(sizes[: levels + 1])
    )
    pixels = (down[-1][1] - down[0][0]) * (across[-1][1] - across[0][0])
    if precincts > 4 * len(down) * len(across) * (levels + 1) + pixels // _PRECINCT * 2:
        raise Refused(f"{DAMAGED} ({precincts:,} precincts)")
