"""Enhanced CT and Legacy Converted Enhanced CT (PS3.3 A.38, A.70): one file, many slices.

What a single-slice file has at its top level stands here in functional groups (C.7.6.16), shared by
all frames or given for each. They are put together into the header that a single-slice file of that
frame would have, so that each frame passes the same checks and quirks as a file of its own. A value
that is given in several places must be the same in all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset
from pydicom.filereader import read_partial
from pydicom.uid import EnhancedCTImageStorage, ImplicitVRLittleEndian

from ichfast.data import decoders, dicom, headers, kinds, limits
from ichfast.data.compressed import Stream
from ichfast.data.deflated import find_deflated
from ichfast.data.elements import Elements
from ichfast.data.image import Header, Image
from ichfast.data.problems import Refused, refuse_failures, silence
from ichfast.data.sniff import START, has_no_preamble
from ichfast.data.streams import check_length, check_stream, find_frames

_SHARED, _PER_FRAME = 0x52009229, 0x52009230
_FRAME_TYPE = 0x00089007
_VOLUMETRIC = 0x00089206
_ACQUISITION = 0x00189302
_FRAME_ACQUISITION = 0x00209156
_OFFSETS, _LENGTHS = 0x7FE00001, 0x7FE00002
# Functional group -> what is read from its one item.
_GROUPS = {
    0x00289110: (headers.SPACING, headers.THICKNESS),  # Pixel Measures
    0x00209113: (headers.POSITION,),  # Plane Position (Patient)
    0x00209116: (headers.ORIENTATION,),  # Plane Orientation (Patient)
    0x00289145: (headers.SLOPE, headers.INTERCEPT, headers.RESCALE_TYPE),  # Value Transformation
    0x00189329: (_FRAME_TYPE, _VOLUMETRIC, headers.PRESENTATION),  # CT Image Frame Type
    0x00209111: (_FRAME_ACQUISITION,),  # Frame Content
    0x00189301: (_ACQUISITION,),  # CT Acquisition Type
    0x00189304: (headers.TILT,),  # CT Acquisition Details
    0x00289132: (headers.WINDOW_CENTER,),  # Frame VOI LUT
}
_OF_A_FRAME = tuple(tag for tags in _GROUPS.values() for tag in tags)
# Where Legacy Converted files keep what has no group of its own (C.7.6.16.2.25 and on).
_UNASSIGNED = {0x00209170: _OF_A_FRAME, 0x00209171: _OF_A_FRAME}
# Change no pixel and no place.
_MAY_DIFFER = (headers.WINDOW_CENTER, headers.THICKNESS, headers.TILT, _FRAME_ACQUISITION)
_MIXED = b"MIXED"  # at the top level: the frames tell
_TAGS = [*headers.TAGS, *_OF_A_FRAME, _SHARED, _PER_FRAME, _OFFSETS, _LENGTHS]


@dataclass(frozen=True)
class Picture:
    """One slice of a file, by its header."""

    number: int  # of the frame, from 1; 0 in a file that holds one slice
    header: Header | Refused


def read_pictures(path: Path) -> list[Picture]:
    """The slices of a DICOM file of either kind, without pixels. `Refused` is raised where the
    whole file is unusable, and stands in place of the header where a frame is.
    """
    try:
        return [Picture(0, headers.scan_header(path)[0])]
    except headers.EnhancedCT:
        return EnhancedFile(path).pictures


class EnhancedFile:
    """Its headers and where its frames lie. Pixels are read from the disk frame by frame."""

    def __init__(self, path: Path):
        """`Refused` where the whole file is unusable: damaged, cut short, or no frame is usable."""
        self.path = path
        with BufferedReader(headers.open_file(path)) as file:
            with refuse_failures("damaged DICOM header"), silence("pydicom"):
                if find_deflated(file):
                    raise Refused("enhanced CT, deflated; convert it to explicit little endian")
                _check_frames(file)
                dataset, offset = headers.read_tags(file, path, _TAGS)
                found = list(_make_headers(dataset, offset))
            reasons = {str(header) for header in found if isinstance(header, Refused)}
            good = [header for header in found if isinstance(header, Header)]
            if not good and len(reasons) == 1:
                (refused,) = (h for h in found[:1] if isinstance(h, Refused))
                raise refused
            self.pictures = [Picture(i, header) for i, header in enumerate(found, 1)]
            self.places: list[list[tuple[int, int]]] = []  # by frame: where its bytes lie
            if good:
                self.places = _find_places(file, dataset, good[0], len(found))

    def read_image(self, number: int) -> Image:
        """As `ichfast.data.dicom.read_image`, for the frame with this number (from 1)."""
        header, data = self._read_frame(number)
        if header.transfer_syntax in headers.NATIVE:
            return dicom.make_image(header, dicom.view_native_pixels(data, header), None)
        stream = _check_stream(data, header)
        return dicom.decode_image(stream, header, decoders.choose(header.transfer_syntax))

    def compare_decoders(self, number: int) -> list[list[str]]:
        """As `ichfast.data.dicom.compare_decoders`, for one frame."""
        header, data = self._read_frame(number)
        if header.transfer_syntax in headers.NATIVE:
            return []
        return decoders.compare(_check_stream(data, header), header)

    def _read_frame(self, number: int) -> tuple[Header, bytes]:
        if number > len(self.pictures):
            raise Refused("the file has changed since its header was read")
        header = self.pictures[number - 1].header
        if isinstance(header, Refused):
            raise header
        if header.transfer_syntax not in headers.NATIVE:
            check_length(sum(length for _, length in self.places[number - 1]), header)
        data = b""
        with (
            BufferedReader(headers.open_file(self.path)) as file,
            refuse_failures("pixel data cannot be read"),
        ):
            for start, length in self.places[number - 1]:
                file.seek(start)
                data += file.read(length)
        if len(data) != sum(length for _, length in self.places[number - 1]):
            raise Refused("pixel data is truncated since its header was read")
        return header, data


def _check_stream(data: bytes, header: Header) -> Stream:
    with refuse_failures("compressed pixel data is damaged"):
        return check_stream(data, header)


# Headers


def _check_frames(file: BinaryIO) -> None:
    """Their number against what the file holds and what can be read, before the functional groups
    are gone through: 40,000 that say nothing took minutes.
    """
    wanted = [headers.FRAMES, headers.ROWS, headers.COLUMNS, headers.BITS_ALLOCATED]
    file.seek(0)
    bare = has_no_preamble(file.read(START))
    file.seek(0)
    start = read_partial(file, lambda tag, *_: tag >= _SHARED, specific_tags=wanted, force=bare)
    tags = headers.Tags(start)
    count = tags.get_raw(headers.FRAMES).strip(b" \0")
    if not count.isdigit() or len(count) > 9:
        return
    frames = int(count)
    if frames > limits.FRAMES:
        raise Refused(f"{frames:,} frames in a file; {limits.FRAMES:,} can be read")
    bits = tags.get_integer(headers.BITS_ALLOCATED, "BitsAllocated")
    rows, columns = (
        tags.get_integer(headers.ROWS, "Rows"),
        tags.get_integer(headers.COLUMNS, "Columns"),
    )
    needed, present = frames * rows * columns * bits // 8, file.seek(0, 2)
    limits.check_scan(needed)
    syntax = start.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
    if syntax in headers.NATIVE and needed > present:
        raise Refused(f"pixel data is truncated: {frames:,} frames in {present:,} bytes")


def _make_headers(dataset: Dataset, offset: int) -> Iterator[Header | Refused]:
    """The header of each frame in order, or the reason why it has none."""
    top = headers.Tags(dataset)
    syntax = top.get_syntax()
    if syntax in dicom.REWRITTEN:
        raise Refused("enhanced CT, big-endian or deflated; convert it to explicit little endian")
    if headers.LUT_SEQUENCE in dataset:
        raise Refused("enhanced CT with a Modality LUT beside its value transformation")
    # All values of the top level first: pydicom converts some of them when it opens a sequence.
    common = Elements(syntax)
    for tag in headers.TAGS:
        if tag in dataset and tag not in (*_OF_A_FRAME, *headers.SEQUENCES):
            common[tag], common.vrs[tag] = top.get_raw(tag), top.get_vr(tag).encode()
    outside = [*_read_values(top, _OF_A_FRAME)]
    shared = _get_items(dataset, _SHARED)
    frames = _get_items(dataset, _PER_FRAME)
    if len(shared) > 1 or _SHARED not in dataset or not frames:
        raise Refused("enhanced CT without its shared and per-frame functional groups")
    count = common.get(headers.FRAMES, b"").strip(b" \0")
    if not count.isdigit() or len(count) > 9 or int(count) != len(frames):
        raise Refused("NumberOfFrames is not the number of per-frame functional groups")
    converted = top.get_sop_class() != EnhancedCTImageStorage
    common[headers.SOP_CLASS], common[headers.FRAMES] = kinds.CT_IMAGE.encode(), b"1"
    image_type = common.pop(headers.IMAGE_TYPE, b"")
    outside = [*(pair for item in shared for pair in _gather(item)), *outside]
    mappings = [one for item in (dataset, *shared) for one in _get_items(item, headers.MAPPINGS)]
    for item in frames:
        try:
            values = Elements(syntax)
            values |= common
            values.vrs = common.vrs
            for tag, value in (*_gather(item), *outside):
                known = values.setdefault(tag, value)
                if tag not in _MAY_DIFFER and value != _MIXED and not _are_equal(known, value):
                    raise Refused("functional groups contradict each other")
            values[headers.IMAGE_TYPE] = _check_frame_type(values, image_type, converted)
            kinds.refuse(kinds.judge_units([*mappings, *_get_items(item, headers.MAPPINGS)]))
            if number := values.get(_FRAME_ACQUISITION):
                values[headers.ACQUISITION] = number
            yield headers.make_header(headers.PlainTags(values), offset)
        except Refused as refused:
            yield refused


def _get_items(dataset: Dataset, tag: int) -> list[Dataset]:
    return list(dataset[tag].value or ()) if tag in dataset else []


def _gather(item: Dataset) -> Iterator[tuple[int, bytes]]:
    """The values of the functional groups in an item of the shared or per-frame sequence."""
    for group, tags in (*_GROUPS.items(), *_UNASSIGNED.items()):
        inner = _get_items(item, group)
        if len(inner) > 1:
            raise Refused("a functional group has more than one item")
        for one in inner:
            yield from _read_values(headers.Tags(one), tags)


def _read_values(tags: headers.Tags, wanted: tuple[int, ...]) -> Iterator[tuple[int, bytes]]:
    for tag in wanted:
        if value := tags.get_raw(tag).strip(b" \0"):
            yield tag, value


def _are_equal(a: bytes, b: bytes) -> bool:
    if a == b:
        return True
    try:
        numbers = [[float(part) for part in value.split(b"\\")] for value in (a, b)]
    except ValueError:
        return False
    return numbers[0] == numbers[1]


def _check_frame_type(values: Elements, image_type: bytes, converted: bool) -> bytes:
    """Frame Type, or Image Type where it is missing; refused where the frame has no HU."""
    kind = values.get(_FRAME_TYPE, image_type.strip(b" \0"))
    parts = [part.strip(b" \0") for part in kind.split(b"\\")]
    if len(parts) < 3 or _MIXED in parts:
        raise Refused("FrameType is missing, so whether the frame is a slice is not known")
    if values.get(_ACQUISITION) == b"CONSTANT_ANGLE":
        raise Refused("localizer", skip=True)
    # What the file says of all its frames holds for this one, too; value 3 only sums them up.
    of_file = image_type.split(b"\\")
    kinds.refuse(kinds.judge_words(b"\\".join([*of_file[:2], b"", *of_file[3:]]), b"", b""))
    if not converted:
        rescale_type = values.get(headers.RESCALE_TYPE, b"")
        kinds.refuse(kinds.judge_frame_rescale(rescale_type, parts[0] == b"ORIGINAL"))
    if values.get(_VOLUMETRIC) == b"DISTORTED":
        raise Refused("a distorted picture, such as a curved reformat", skip=True)
    return kind


# Pixels


def _find_places(
    file: BinaryIO, dataset: Dataset, header: Header, frames: int
) -> list[list[tuple[int, int]]]:
    """Offset and length in the file of each frame's bytes."""
    if header.transfer_syntax not in headers.NATIVE:
        top = headers.Tags(dataset)
        return find_frames(file, header, frames, top.get_raw(_OFFSETS), top.get_raw(_LENGTHS))
    file.seek(header.data_offset)
    start, size = file.read(12), file.seek(0, 2)
    begin = dicom.find_pixels(start, size, header, frames, "its frames need")
    one = header.rows * header.columns * header.bits_allocated // 8
    return [[(begin + i * one, one)] for i in range(frames)]
