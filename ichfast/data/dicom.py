"""One DICOM file -> header and stored pixels. Nothing in the file is trusted: its text never
reaches a message, its numbers are checked before use, and every refusal is a `Refused` that says
why.
"""

import math
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
)

from ichfast.data import decoders
from ichfast.data.image import Header, Image, LookUpTable
from ichfast.data.problems import Refused, quietly, refusing
from ichfast.data.streams import Stream, read_stream

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MAX_SIDE = 4096  # beyond any CT: a corrupt header must not ask for gigabytes
SUFFIXES = {".dcm", ".dicom", ".ima"}  # of files that are meant to be DICOM

_IN_PLACE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_REWRITTEN = (ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)

_SOP_CLASS = 0x00080016
_IMAGE_TYPE = 0x00080008
_MODALITY = 0x00080060
_PATIENT = 0x00100020
_TILT = 0x00181120
_STUDY = 0x0020000D
_SERIES = 0x0020000E
_POSITION = 0x00200032
_ORIENTATION = 0x00200037
_SAMPLES = 0x00280002
_PHOTOMETRIC = 0x00280004
_FRAMES = 0x00280008
_ROWS = 0x00280010
_COLUMNS = 0x00280011
_SPACING = 0x00280030
_BITS_ALLOCATED = 0x00280100
_BITS_STORED = 0x00280101
_HIGH_BIT = 0x00280102
_REPRESENTATION = 0x00280103
_PADDING = 0x00280120
_PADDING_LIMIT = 0x00280121
_WINDOW_CENTER = 0x00281050
_INTERCEPT = 0x00281052
_SLOPE = 0x00281053
_RESCALE_TYPE = 0x00281054
_LUT_SEQUENCE = 0x00283000
_TAGS = [value for name, value in list(globals().items()) if type(value) is int and name[0] == "_"]


class EnhancedCT(Refused):
    """A file with many slices: `ichfast.data.enhanced` reads it, the functions here do not."""


def read_header(path: Path) -> Header:
    """The few tags that are needed, without the pixels."""
    with _open(path) as file:
        return _parse(file, path)


def read_image(path: Path) -> Image:
    """Header and pixels as decoded; `ichfast.data.quirks.correct` makes them Hounsfield units."""
    data, header = _read(path)
    signed = None
    if header.transfer_syntax in _IN_PLACE:
        pixels = _native_pixels(data, header)
    elif header.transfer_syntax in _REWRITTEN:
        pixels = _rewritten_pixels(data, header)
    else:
        name = decoders.available(header.transfer_syntax)[0]
        stream = _stream(data, header)
        pixels, signed = (
            _stored(decoders.decode(stream, header, name), stream, header),
            stream.signed,
        )
    return _image(header, pixels, signed)


def decoders_agree(path: Path) -> bool | None:
    """Whether all installed decoders give the same pixels. None: fewer than two can decode them."""
    groups = compare_decoders(path)
    return None if sum(map(len, groups)) < 2 else len(groups) == 1


def compare_decoders(path: Path) -> list[list[str]]:
    """The names of the decoders that can decode the file, together where they give the same pixels.
    Empty for uncompressed files.
    """
    data, header = _read(path)
    if header.transfer_syntax in _IN_PLACE + _REWRITTEN:
        return []
    return decoders.compare(_stream(data, header), header)


def _read(path: Path) -> tuple[bytes, Header]:
    with _open(path) as file:
        data = file.read()
    return data, _parse(BytesIO(data), path)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise Refused(f"cannot be opened ({error.strerror})") from None


def _parse(file: BinaryIO, path: Path) -> Header:
    with refusing("damaged DICOM header"), quietly("pydicom"):
        try:
            dataset = dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
        except InvalidDicomError:
            if file.seek(0, 2) == 0:
                raise Refused("empty file") from None
            meant = path.suffix.lower() in SUFFIXES
            raise Refused("not a DICOM file (no DICM mark at byte 128)", skip=not meant) from None
        return _header(_Tags(dataset), file.tell())


class _Tags:
    """Values straight from the bytes: pydicom's conversion costs more and warns."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset
        self.order = "little" if dataset.original_encoding[1] else "big"

    def raw(self, tag: int) -> bytes:
        element = self.dataset.get_item(tag)
        value = None if element is None else element.value
        return value if isinstance(value, bytes) else b""

    def text(self, tag: int) -> str:
        return self.raw(tag).decode("latin-1").strip(" \0")

    def numbers(self, tag: int, count: int, name: str) -> tuple[float, ...]:
        try:
            values = tuple(float(part.strip(b" \0")) for part in self.raw(tag).split(b"\\"))
        except ValueError:
            values = ()
        if len(values) != count or not all(map(math.isfinite, values)):
            raise Refused(f"{name} is missing or not {count} finite number{'s' * (count > 1)}")
        return values

    def integer(self, tag: int, name: str) -> int:
        raw = self.raw(tag)
        if len(raw) not in (2, 4):
            raise Refused(f"{name} is missing")
        return int.from_bytes(raw[:2], self.order)  # type: ignore[arg-type]

    def bits(self, tag: int) -> int | None:
        """A 'US or SS' value as unsigned bits, whichever VR it was written with."""
        raw = self.raw(tag)
        return int.from_bytes(raw, self.order) if len(raw) in (2, 4) else None  # type: ignore[arg-type]

    def vr(self, tag: int) -> str:
        element = self.dataset.get_item(tag)
        return (element.VR or "") if element is not None else ""


def _header(tags: _Tags, data_offset: int) -> Header:
    _refuse_other_images(tags)
    rows, columns = tags.integer(_ROWS, "Rows"), tags.integer(_COLUMNS, "Columns")
    if not (0 < rows <= MAX_SIDE and 0 < columns <= MAX_SIDE):
        raise Refused(f"Rows x Columns is {rows} x {columns}; 1 to {MAX_SIDE} can be read")
    allocated = tags.integer(_BITS_ALLOCATED, "BitsAllocated")
    stored = tags.integer(_BITS_STORED, "BitsStored")
    high = tags.integer(_HIGH_BIT, "HighBit") if tags.raw(_HIGH_BIT) else stored - 1
    if allocated not in (8, 16, 32) or not 1 <= stored <= high + 1 <= allocated:
        raise Refused(f"impossible bit depth: {stored} bits up to bit {high} of {allocated}")
    representation = tags.integer(_REPRESENTATION, "PixelRepresentation")
    if representation > 1:
        raise Refused(f"PixelRepresentation is {representation}, not 0 or 1")
    table = _modality_lut(tags, bool(representation))
    slope, intercept = 1.0, 0.0
    if table is None:
        (slope,) = tags.numbers(_SLOPE, 1, "RescaleSlope")
        (intercept,) = tags.numbers(_INTERCEPT, 1, "RescaleIntercept")
        if slope == 0:
            raise Refused("RescaleSlope is 0")
    spacing = tags.numbers(_SPACING, 2, "PixelSpacing")
    if min(spacing) <= 0:
        raise Refused("PixelSpacing is not positive")
    tilt = tags.numbers(_TILT, 1, "GantryDetectorTilt")[0] if tags.raw(_TILT).strip() else 0.0
    series = tags.text(_SERIES)
    if not series:
        raise Refused("SeriesInstanceUID is missing")
    syntax = tags.dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
    if not isinstance(syntax, str):
        raise Refused("TransferSyntaxUID is not one value")
    return Header(
        transfer_syntax=syntax,
        patient=tags.text(_PATIENT),
        study=tags.text(_STUDY),
        series=series,
        position=tags.numbers(_POSITION, 3, "ImagePositionPatient"),
        orientation=tags.numbers(_ORIENTATION, 6, "ImageOrientationPatient"),
        spacing=spacing,
        gantry_tilt=tilt,
        rows=rows,
        columns=columns,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=bool(representation),
        photometric=tags.text(_PHOTOMETRIC),
        slope=slope,
        intercept=intercept,
        padding=tags.bits(_PADDING),
        padding_limit=tags.bits(_PADDING_LIMIT),
        padding_vr=tags.vr(_PADDING),
        windows=tags.raw(_WINDOW_CENTER).count(b"\\") + 1 if tags.raw(_WINDOW_CENTER) else 0,
        table=table,
        data_offset=data_offset,
    )


def _refuse_other_images(tags: _Tags) -> None:
    modality = tags.text(_MODALITY)
    if not modality:
        raise Refused("Modality is missing")
    if modality != "CT":
        raise Refused("not a CT image (Modality)", skip=True)
    sop_class = tags.text(_SOP_CLASS)
    if sop_class in (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage):
        raise EnhancedCT("enhanced multi-frame CT, where one slice is expected")
    if sop_class not in ("", CT_IMAGE):
        raise Refused("not a CT Image (SOP class)", skip=True)
    if b"LOCALIZER" in tags.raw(_IMAGE_TYPE):
        raise Refused("localizer", skip=True)
    frames = tags.raw(_FRAMES).strip(b" \0")
    if frames not in (b"", b"1"):
        raise Refused("multi-frame image; only one slice per file is read")
    if tags.raw(_SAMPLES) and tags.integer(_SAMPLES, "SamplesPerPixel") != 1:
        raise Refused("colour image", skip=True)
    if tags.text(_PHOTOMETRIC) not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refused("PhotometricInterpretation is not greyscale")
    # HU_MOD is HU after metal artefact reduction; US, "unspecified", is what careless writers put.
    if tags.text(_RESCALE_TYPE) not in ("", "HU", "HU_MOD", "US"):
        raise Refused("RescaleType is not HU (a dual-energy map?)", skip=True)


def _modality_lut(tags: _Tags, signed: bool) -> LookUpTable | None:
    """Modality LUT Sequence, which takes precedence over slope and intercept (PS3.3 C.11.1)."""
    if _LUT_SEQUENCE not in tags.dataset or not tags.dataset[_LUT_SEQUENCE].value:
        return None
    item = tags.dataset[_LUT_SEQUENCE].value[0]
    count, first, _ = (int(value) & 0xFFFF for value in item.LUTDescriptor)
    if str(item.get("ModalityLUTType", "")) not in ("HU", "US", ""):
        raise Refused("Modality LUT does not give HU")
    data = item.LUTData
    if isinstance(data, bytes):  # OW: unsigned words
        data = np.frombuffer(data, "<u2" if tags.order == "little" else ">u2")
    entries = np.atleast_1d(np.asarray(data, dtype=np.int32))
    if len(entries) < (count or 65536):  # 0 stands for 65,536
        raise Refused("Modality LUT is shorter than its descriptor says")
    return LookUpTable(first - 65536 if signed and first > 32767 else first, entries)


def _native_pixels(data: bytes, header: Header) -> np.ndarray:
    """The PixelData element read in place: no copy, read-only."""
    at = header.data_offset
    if data[at : at + 4] != b"\xe0\x7f\x10\x00":
        raise Refused("no pixel data")
    # tag(4) VR(2) reserved(2) length(4) with an explicit VR; tag(4) length(4) with an implicit one
    explicit = data[at + 4 : at + 6] in (b"OW", b"OB", b"UN")
    start = at + (12 if explicit else 8)
    length = int.from_bytes(data[start - 4 : start], "little")
    width = header.bits_allocated // 8
    expected = header.rows * header.columns * width
    present = min(length, len(data) - start)
    if present < expected:
        raise Refused(f"pixel data is truncated: {max(present, 0):,} bytes of {expected:,}")
    # A little padding at the end is common; a whole row or column of it is a wrong size.
    if length - expected >= min(header.rows, header.columns) * width:
        raise Refused(f"pixel data holds {length:,} bytes, Rows x Columns needs {expected:,}")
    kind = np.dtype(f"<{'i' if header.signed else 'u'}{width}")
    pixels = np.frombuffer(data, kind, header.rows * header.columns, start)
    return pixels.reshape(header.rows, header.columns)


def _rewritten_pixels(data: bytes, header: Header) -> np.ndarray:
    """Big endian, and whole files that are deflated."""
    with refusing("damaged DICOM file"), quietly("pydicom"):
        element = dcmread(BytesIO(data))["PixelData"]
        value = bytes(element.value)
    width = header.bits_allocated // 8
    expected = header.rows * header.columns * width
    if not expected <= len(value) <= expected + expected % 2:
        raise Refused(f"pixel data holds {len(value):,} bytes, Rows x Columns needs {expected:,}")
    big = header.transfer_syntax == ExplicitVRBigEndian
    if big and width == 1 and element.VR == "OW":
        raise Refused("8-bit pixels in big-endian words; convert the file")
    kind = np.dtype(f"{'>' if big else '<'}{'i' if header.signed else 'u'}{width}")
    pixels = np.frombuffer(value, kind, header.rows * header.columns)
    return pixels.astype(kind.newbyteorder("=")).reshape(header.rows, header.columns)


def _stream(data: bytes, header: Header) -> Stream:
    with refusing("compressed pixel data is damaged"):
        return read_stream(data, header)


def _image(header: Header, pixels: np.ndarray, signed: bool | None) -> Image:
    if pixels.itemsize == 4 and pixels.max() >= 2**31:
        raise Refused("pixel values do not fit into 32 bits with a sign")
    return Image(header, pixels, header.slope, header.intercept, stream_signed=signed)


def _stored(unsigned: np.ndarray, stream: Stream, header: Header) -> np.ndarray:
    """From a stream's bits to stored values. Streams know no sign (JPEG 2000's may be wrong): the
    header says. RLE has whole words, with all that uncompressed ones may have in them.
    """
    bits = stream.bits
    value = unsigned - ((unsigned >> (bits - 1)) << bits) if header.signed else unsigned
    if header.transfer_syntax != RLELossless:
        if header.high_bit != header.bits_stored - 1:
            raise Refused("HighBit is not BitsStored - 1, which a compressed stream cannot have")
        # Fewer bits than are stored and none for the sign: nothing says where the sign is.
        if header.signed and not stream.signed and bits < header.bits_stored:
            raise Refused(f"compressed pixel data has {bits} bits, BitsStored {header.bits_stored}")
        top = 1 << (header.bits_stored - header.signed)
        beyond = (value >= top) | (value < (-top if header.signed else 0))
        if header.padding is not None:
            beyond &= unsigned != header.padding & ((1 << bits) - 1)
        if beyond.any():
            raise Refused("compressed pixel data has values beyond BitsStored")
    return value.astype(f"{'i' if header.signed else 'u'}{header.bits_allocated // 8}")
