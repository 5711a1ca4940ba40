"""One DICOM file -> header and stored pixels. Every refusal is a `Refused` with the reason."""

import os
from io import BytesIO, FileIO
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
)

from ichfast.data import decoders
from ichfast.data.compressed import Stream
from ichfast.data.deflated import find_deflated, inflate
from ichfast.data.headers import NATIVE, open_file, scan_open_file
from ichfast.data.image import Header, Image
from ichfast.data.limits import read_slice_file
from ichfast.data.problems import Refused, refuse_failures, silence
from ichfast.data.streams import read_stream

REWRITTEN = (ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def read_image(path: Path) -> Image:
    """Header and pixels as decoded; `ichfast.data.quirks.correct` makes them Hounsfield units."""
    with open_file(path) as file:
        header = scan_open_file(file, path)
        if header.transfer_syntax in NATIVE:
            return make_image(header, _read_native_pixels(file, header), None)
        if header.transfer_syntax == DeflatedExplicitVRLittleEndian:
            return make_image(header, _read_deflated_pixels(file, header), None)
        data = read_slice_file(file, header)
    if header.transfer_syntax == ExplicitVRBigEndian:
        return make_image(header, _read_big_endian_pixels(data, header), None)
    name = decoders.choose(header.transfer_syntax)  # first: it names what is not read at all
    return decode_image(_read_stream(data, header), header, name)


def decode_image(stream: Stream, header: Header, name: str) -> Image:
    """The image of a compressed stream, by the decoder of this name."""
    pixels = _restore_stored(decoders.decode(stream, header, name), stream, header)
    return make_image(header, pixels, stream.signed)


def decoders_agree(path: Path) -> bool | None:
    """Whether all installed decoders give the same pixels. None: fewer than two can decode them."""
    groups = compare_decoders(path)
    return None if sum(map(len, groups)) < 2 else len(groups) == 1


def compare_decoders(path: Path) -> list[list[str]]:
    """The names of the decoders that can decode the file, grouped by the pixels they give. Empty
    for uncompressed files.
    """
    with open_file(path) as file:
        header = scan_open_file(file, path)
        if header.transfer_syntax in NATIVE + REWRITTEN:
            return []
        data = read_slice_file(file, header)
    return decoders.compare(_read_stream(data, header), header)


def find_pixels(start: bytes, size: int, header: Header, frames: int, needs: str) -> int:
    """Where in a file of this size the uncompressed pixels of `frames` frames begin. `start` is the
    first 12 bytes of the PixelData element; refused unless it holds these frames and nothing else.
    """
    if start[:4] != b"\xe0\x7f\x10\x00":
        raise Refused("no pixel data")
    # tag(4) VR(2) reserved(2) length(4) with an explicit VR; tag(4) length(4) with an implicit one
    used = 12 if start[4:6] in (b"OW", b"OB", b"UN") else 8
    begin = header.data_offset + used
    length = int.from_bytes(start[used - 4 : used], "little")
    width = header.bits_allocated // 8
    expected = header.rows * header.columns * width * frames
    present = min(length, size - begin)
    if present < expected:
        raise Refused(f"pixel data is truncated: {max(present, 0):,} bytes of {expected:,}")
    # A little padding at the end is common; a whole row or column of it is a wrong size.
    if length - expected >= min(header.rows, header.columns) * width:
        raise Refused(f"pixel data holds {length:,} bytes, {needs} {expected:,}")
    return begin


def view_native_pixels(data: bytes | np.ndarray, header: Header) -> np.ndarray:
    """Uncompressed little-endian pixels in place: no copy."""
    kind = np.dtype(f"<{'i' if header.signed else 'u'}{header.bits_allocated // 8}")
    return np.frombuffer(data, kind).reshape(header.rows, header.columns)


def _read_native_pixels(file: FileIO, header: Header) -> np.ndarray:
    """Straight from the file to where they stay."""
    size = os.fstat(file.fileno()).st_size
    file.seek(header.data_offset)
    begin = find_pixels(file.read(12), size, header, 1, "Rows x Columns needs")
    file.seek(begin)
    data = np.empty(header.rows * header.columns * header.bits_allocated // 8, np.uint8)
    rest = data.data
    while rest and (count := file.readinto(rest)):  # a slow disk may give a part
        rest = rest[count:]
    if rest:
        raise Refused("pixel data is truncated since its header was read")
    return view_native_pixels(data, header)


def _read_deflated_pixels(file: FileIO, header: Header) -> np.ndarray:
    """As those of a plain file, of which no more is inflated than they need."""
    size = header.rows * header.columns * header.bits_allocated // 8
    with refuse_failures("damaged DICOM file"), silence("pydicom"):
        found = find_deflated(file)
        if found is None:
            raise Refused("has changed since its header was read")
        data = inflate(file, found[0], header.data_offset + 12 + size)
    start = data[header.data_offset :][:12]
    begin = find_pixels(start, len(data), header, 1, "Rows x Columns needs")
    return view_native_pixels(data[begin : begin + size], header).copy()


def _read_big_endian_pixels(data: bytes, header: Header) -> np.ndarray:
    with refuse_failures("damaged DICOM file"), silence("pydicom"):
        element = dcmread(BytesIO(data))["PixelData"]
        value = bytes(element.value)
    width = header.bits_allocated // 8
    expected = header.rows * header.columns * width
    if not expected <= len(value) <= expected + expected % 2:
        raise Refused(f"pixel data holds {len(value):,} bytes, Rows x Columns needs {expected:,}")
    if width == 1 and element.VR == "OW":
        raise Refused("8-bit pixels in big-endian words; convert the file")
    kind = np.dtype(f">{'i' if header.signed else 'u'}{width}")
    pixels = np.frombuffer(value, kind, header.rows * header.columns)
    return pixels.astype(kind.newbyteorder("=")).reshape(header.rows, header.columns)


def _read_stream(data: bytes, header: Header) -> Stream:
    with refuse_failures("compressed pixel data is damaged"):
        return read_stream(data, header)


def make_image(header: Header, pixels: np.ndarray, signed: bool | None) -> Image:
    if pixels.itemsize == 4 and pixels.max() >= 2**31:
        raise Refused("pixel values do not fit into 32 bits with a sign")
    return Image(header, pixels, header.slope, header.intercept, stream_signed=signed)


def _restore_stored(unsigned: np.ndarray, stream: Stream, header: Header) -> np.ndarray:
    """From a stream's bits to stored values. The sign is the header's: streams have none or, in
    JPEG 2000, perhaps a wrong one. RLE holds whole words, with all that uncompressed ones may hold.
    """
    bits = stream.bits
    value = unsigned - ((unsigned >> (bits - 1)) << bits) if header.signed else unsigned
    if header.transfer_syntax != RLELossless:
        if header.high_bit != header.bits_stored - 1:
            raise Refused("HighBit is not BitsStored - 1, which a compressed stream cannot have")
        # Fewer bits than are stored and none for the sign: where the sign is is not known.
        if header.signed and not stream.signed and bits < header.bits_stored:
            raise Refused(f"compressed pixel data has {bits} bits, BitsStored {header.bits_stored}")
        top = 1 << (header.bits_stored - header.signed)
        beyond = (value >= top) | (value < (-top if header.signed else 0))
        if header.padding is not None:
            beyond &= unsigned != header.padding & ((1 << bits) - 1)
        if beyond.any():
            raise Refused("compressed pixel data has values beyond BitsStored")
    return value.astype(f"{'i' if header.signed else 'u'}{header.bits_allocated // 8}")
