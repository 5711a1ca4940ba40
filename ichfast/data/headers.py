"""The header of a DICOM file. Nothing in the file is trusted: its text never reaches a message, its
numbers are checked before use, and every refusal is a `Refused` that says why.
"""

import math
import os
from collections.abc import Sequence
from functools import lru_cache
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
)

from ichfast.data import kinds
from ichfast.data.deflated import read_elements
from ichfast.data.elements import Elements, walk_elements
from ichfast.data.image import Header, LookUpTable
from ichfast.data.limits import SIDE
from ichfast.data.problems import Refused, refuse_failures, silence
from ichfast.data.sniff import START, has_no_preamble

SUFFIXES = {".dcm", ".dicom", ".ima"}  # of files that are meant to be DICOM

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)  # uncompressed little-endian
# Most headers end within the first size, all but the strangest within the second.
_SIZES = (8 << 10, 256 << 10)

IMAGE_TYPE = 0x00080008
SOP_CLASS = 0x00080016
ACQUISITION_TIME = 0x00080032
MODALITY = 0x00080060
PRESENTATION = 0x00089205
PATIENT = 0x00100020
THICKNESS = 0x00180050
TILT = 0x00181120
STUDY = 0x0020000D
SERIES = 0x0020000E
SERIES_NUMBER = 0x00200011
ACQUISITION = 0x00200012
POSITION = 0x00200032
ORIENTATION = 0x00200037
FRAME_OF_REFERENCE = 0x00200052
SAMPLES = 0x00280002
PHOTOMETRIC = 0x00280004
FRAMES = 0x00280008
ROWS = 0x00280010
COLUMNS = 0x00280011
SPACING = 0x00280030
BITS_ALLOCATED = 0x00280100
BITS_STORED = 0x00280101
HIGH_BIT = 0x00280102
REPRESENTATION = 0x00280103
PADDING = 0x00280120
PADDING_LIMIT = 0x00280121
WINDOW_CENTER = 0x00281050
INTERCEPT = 0x00281052
SLOPE = 0x00281053
RESCALE_TYPE = 0x00281054
LOSSY = 0x00282110
LUT_SEQUENCE = 0x00283000
MAPPINGS = 0x00409096  # Real World Value Mapping Sequence
TAGS = (  # ascending, as `walk_elements` wants them
    IMAGE_TYPE,
    SOP_CLASS,
    ACQUISITION_TIME,
    MODALITY,
    PRESENTATION,
    PATIENT,
    THICKNESS,
    TILT,
    STUDY,
    SERIES,
    SERIES_NUMBER,
    ACQUISITION,
    POSITION,
    ORIENTATION,
    FRAME_OF_REFERENCE,
    SAMPLES,
    PHOTOMETRIC,
    FRAMES,
    ROWS,
    COLUMNS,
    SPACING,
    BITS_ALLOCATED,
    BITS_STORED,
    HIGH_BIT,
    REPRESENTATION,
    PADDING,
    PADDING_LIMIT,
    WINDOW_CENTER,
    INTERCEPT,
    SLOPE,
    RESCALE_TYPE,
    LOSSY,
    LUT_SEQUENCE,
    MAPPINGS,
)
SEQUENCES = (LUT_SEQUENCE, MAPPINGS)


class EnhancedCT(Refused):
    """A file with many slices: `ichfast.data.enhanced` reads it, the functions here do not."""


def scan_header(path: Path) -> tuple[Header, int]:
    """The header and the file's size: what `read_header` returns, and refused what that refuses, in
    a twelfth of its time.
    """
    try:
        with open_file(path) as file:
            return scan_open_file(file, path), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise Refused(f"cannot be opened ({error.strerror})") from None


def scan_open_file(file: FileIO, path: Path) -> Header:
    """Of the file that is open at the path."""
    for limit in _SIZES:
        file.seek(0)
        header = _scan_plain(file.read(limit))
        if header is not None:
            return header
    return read_header(path)


def _scan_plain(data: bytes) -> Header | None:
    """None where pydicom has to decide."""
    try:
        found = walk_elements(data, TAGS)
        if found is None or any(tag in found for tag in SEQUENCES):
            return None
        if SOP_CLASS not in found and found.get(MODALITY, b"").strip() != b"CT":
            return None  # the file meta may tell
        return make_header(PlainTags(found), found.pixels)
    except Refused:
        raise
    except Exception:  # not the plain case
        return None


def read_header(path: Path) -> Header:
    """The few tags that are needed, without the pixels, by pydicom."""
    with BufferedReader(open_file(path)) as file:
        return _read_open_file(file, path)


def is_cut_short(header: Header, path: Path) -> bool:
    """Whether the file of one slice is too small for its pixels; False where they are compressed,
    since that is not known without them.
    """
    pixels = header.rows * header.columns * header.bits_allocated // 8
    # The element's tag and length take 8 bytes or 12.
    least = header.data_offset + 8 + pixels
    return header.transfer_syntax in NATIVE and os.path.getsize(path) < least


def open_file(path: Path) -> FileIO:
    try:
        return open(path, "rb", buffering=0)  # two thirds of what Path.open costs
    except OSError as error:
        raise Refused(f"cannot be opened ({error.strerror})") from None


def _read_open_file(file: BinaryIO, path: Path) -> Header:
    with refuse_failures("damaged DICOM header"), silence("pydicom"):
        dataset, offset = read_tags(file, path, TAGS)
        return make_header(Tags(dataset), offset)


def read_tags(file: BinaryIO, path: Path, tags: Sequence[int]) -> tuple[Dataset, int]:
    """These of the file that is open at the path, as `read_elements` has them. A preamble may be
    missing, with the file meta or without.
    """
    file.seek(0)
    start = file.read(START)
    if not start:
        raise Refused("empty file")
    try:
        return read_elements(file, list(tags), force=has_no_preamble(start))
    except InvalidDicomError:
        meant = path.suffix.lower() in SUFFIXES or start.startswith(b"DICM")
        raise Refused("not a DICOM file (no DICM mark at byte 128)", skip=not meant) from None


class Tags:
    """Values straight from the bytes: pydicom's conversion costs more and warns."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset
        self.order = "little" if dataset.original_encoding[1] else "big"

    def get_raw(self, tag: int) -> bytes:
        element = self.dataset.get_item(tag)
        value = None if element is None else element.value
        return value if isinstance(value, bytes) else b""

    def get_text(self, tag: int) -> str:
        return self.get_raw(tag).decode("latin-1").strip(" \0")

    def get_numbers(self, tag: int, count: int, name: str) -> tuple[float, ...]:
        values = _parse_numbers(self.get_raw(tag))
        if len(values) != count:
            raise Refused(f"{name} is missing or not {count} finite number{'s' * (count > 1)}")
        return values

    def get_integer(self, tag: int, name: str) -> int:
        raw = self.get_raw(tag)
        if len(raw) not in (2, 4):
            raise Refused(f"{name} is missing")
        return int.from_bytes(raw[:2], self.order)  # type: ignore[arg-type]

    def get_bits(self, tag: int) -> int | None:
        """A 'US or SS' value as unsigned bits, whichever VR it was written with."""
        raw = self.get_raw(tag)
        return int.from_bytes(raw, self.order) if len(raw) in (2, 4) else None  # type: ignore[arg-type]

    def get_vr(self, tag: int) -> str:
        element = self.dataset.get_item(tag)
        return (element.VR or "") if element is not None else ""

    def get_optional(self, tag: int) -> float | None:
        """One finite number; None where it is missing or anything else."""
        values = _parse_numbers(self.get_raw(tag))
        return values[0] if len(values) == 1 else None

    def get_syntax(self) -> str:
        meta = getattr(self.dataset, "file_meta", {})
        syntax = meta.get("TransferSyntaxUID")
        if syntax is None:
            implicit = self.dataset.original_encoding[0]
            return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        if not isinstance(syntax, str):
            raise Refused("TransferSyntaxUID is not one value")
        return syntax

    def get_sop_class(self) -> str:
        meta = getattr(self.dataset, "file_meta", {})
        return self.get_text(SOP_CLASS) or str(meta.get("MediaStorageSOPClassUID", "")).strip(" \0")


class PlainTags(Tags):
    """The same of little-endian `Elements`."""

    def __init__(self, found: Elements):
        self.dataset: Any = found
        self.order = "little"

    def get_raw(self, tag: int) -> bytes:
        value: bytes = self.dataset.get(tag, b"")
        return value

    def get_vr(self, tag: int) -> str:
        vr: bytes = self.dataset.vrs.get(tag, b"")
        return vr.decode()

    def get_syntax(self) -> str:
        return str(self.dataset.file_meta["TransferSyntaxUID"])


@lru_cache(maxsize=4096)  # most are those of the whole scan
def _parse_numbers(raw: bytes) -> tuple[float, ...]:
    """Finite ones, or none at all."""
    try:
        values = tuple(float(part.strip(b" \0")) for part in raw.split(b"\\"))
    except ValueError:
        return ()
    return values if all(map(math.isfinite, values)) else ()


def make_header(tags: Tags, data_offset: int) -> Header:
    _refuse_other_images(tags)
    rows, columns = tags.get_integer(ROWS, "Rows"), tags.get_integer(COLUMNS, "Columns")
    if not (0 < rows <= SIDE and 0 < columns <= SIDE):
        raise Refused(f"Rows x Columns is {rows} x {columns}; 1 to {SIDE} can be read")
    allocated = tags.get_integer(BITS_ALLOCATED, "BitsAllocated")
    stored = tags.get_integer(BITS_STORED, "BitsStored")
    high = tags.get_integer(HIGH_BIT, "HighBit") if tags.get_raw(HIGH_BIT) else stored - 1
    if allocated not in (8, 16, 32) or not 1 <= stored <= high + 1 <= allocated:
        raise Refused(f"impossible bit depth: {stored} bits up to bit {high} of {allocated}")
    representation = tags.get_integer(REPRESENTATION, "PixelRepresentation")
    if representation > 1:
        raise Refused(f"PixelRepresentation is {representation}, not 0 or 1")
    table = _read_modality_lut(tags, bool(representation))
    if MAPPINGS in tags.dataset:  # not earlier, as pydicom converts values when it opens one
        kinds.refuse(kinds.judge_units(tags.dataset[MAPPINGS].value or ()))
    slope, intercept = 1.0, 0.0
    if table is None:
        (slope,) = tags.get_numbers(SLOPE, 1, "RescaleSlope")
        (intercept,) = tags.get_numbers(INTERCEPT, 1, "RescaleIntercept")
        if slope == 0:
            raise Refused("RescaleSlope is 0")
    spacing = tags.get_numbers(SPACING, 2, "PixelSpacing")
    if min(spacing) <= 0:
        raise Refused("PixelSpacing is not positive")
    thickness = tags.get_optional(THICKNESS) or 0.0
    series = tags.get_text(SERIES)
    return Header(
        transfer_syntax=tags.get_syntax(),
        patient=tags.get_text(PATIENT),
        study=tags.get_text(STUDY),
        series=series,
        series_number="" if series else tags.get_text(SERIES_NUMBER),
        frame_of_reference="" if series else tags.get_text(FRAME_OF_REFERENCE),
        acquisition=(tags.get_raw(ACQUISITION).strip(b" \0"), tags.get_raw(ACQUISITION_TIME)),
        position=tags.get_numbers(POSITION, 3, "ImagePositionPatient"),
        orientation=tags.get_numbers(ORIENTATION, 6, "ImageOrientationPatient"),
        spacing=spacing,
        thickness=thickness if thickness > 0 else None,
        gantry_tilt=tags.get_optional(TILT) or 0.0,
        rows=rows,
        columns=columns,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=bool(representation),
        photometric=tags.get_text(PHOTOMETRIC),
        slope=slope,
        intercept=intercept,
        padding=tags.get_bits(PADDING),
        padding_limit=tags.get_bits(PADDING_LIMIT),
        padding_vr=tags.get_vr(PADDING),
        windows=tags.get_raw(WINDOW_CENTER).count(b"\\") + 1 if tags.get_raw(WINDOW_CENTER) else 0,
        lossy=tags.get_raw(LOSSY).strip(b" \0") == b"01",
        table=table,
        data_offset=data_offset,
    )


def _refuse_other_images(tags: Tags) -> None:
    sop_class, modality = tags.get_sop_class(), tags.get_text(MODALITY).upper()
    if sop_class in (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage):
        if modality == "CT":
            raise EnhancedCT("enhanced multi-frame CT, where one slice is expected")
        sop_class = kinds.CT_IMAGE
    kinds.refuse(kinds.judge_class(sop_class, modality, bool(tags.get_raw(ROWS))))
    kinds.refuse(
        kinds.judge_words(
            tags.get_raw(IMAGE_TYPE), tags.get_raw(RESCALE_TYPE), tags.get_raw(PRESENTATION)
        )
    )
    frames = tags.get_optional(FRAMES)
    if frames not in (None, 1):
        raise Refused("multi-frame image; only one slice per file is read")
    if tags.get_raw(SAMPLES) and tags.get_integer(SAMPLES, "SamplesPerPixel") != 1:
        raise Refused("colour image", skip=True)
    if tags.get_text(PHOTOMETRIC) not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refused("PhotometricInterpretation is not greyscale")


def _read_modality_lut(tags: Tags, signed: bool) -> LookUpTable | None:
    """Modality LUT Sequence, which takes precedence over slope and intercept (PS3.3 C.11.1)."""
    if LUT_SEQUENCE not in tags.dataset or not tags.dataset[LUT_SEQUENCE].value:
        return None
    item = tags.dataset[LUT_SEQUENCE].value[0]
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
