"""DICOM elements before the pixels, by pydicom; of deflated files (PS3.5 A.5) no more is inflated
than is needed. pydicom inflates all of such a file before it looks at it: a megabyte took 2 GB.
"""

import zlib
from io import BytesIO
from typing import Any, BinaryIO

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ichfast.data.problems import Refused

HEADER = 1 << 20
"""bytes: what the elements before the pixels may inflate to"""

_DEFLATED = DeflatedExplicitVRLittleEndian.encode()
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_SPARE = 1 << 16  # what does not compress grows a little


def read_elements(file: BinaryIO, tags: list[Any], *, force: bool = False) -> tuple[Dataset, int]:
    """The elements with these tags or keywords, and where PixelData begins: in the file, or in what
    a deflated one inflates to. pydicom's errors; `force` as `dcmread` has it.
    """
    found = find_deflated(file)
    if found is None:
        file.seek(0)
        dataset: Dataset = dcmread(file, stop_before_pixels=True, specific_tags=tags, force=force)
        return dataset, file.tell()
    begin, meta = found
    whole = BytesIO(inflate(file, begin, HEADER))
    dataset = read_dataset(
        whole, False, True, stop_when=lambda tag, *_: tag in _PIXELS, specific_tags=tags
    )
    at = whole.tell()
    if len(whole.getbuffer()) == HEADER and whole.read(2) != b"\xe0\x7f":
        raise Refused(f"its deflated header inflates to over {HEADER:,} bytes")
    dataset.file_meta = FileMetaDataset(meta)
    return dataset, at


def find_deflated(file: BinaryIO) -> tuple[int, Dataset] | None:
    """Where a deflated file's elements begin, and its file meta; None for other files. Its preamble
    may be missing.
    """
    file.seek(0)
    start = file.read(132)
    if start[128:] != b"DICM":
        if not start.startswith(b"\2\0"):
            return None
        file.seek(0)
    meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
    syntax = meta.get_item(0x00020010)
    value = syntax.value if syntax is not None else None
    if not isinstance(value, bytes) or value.strip(b" \0") != _DEFLATED:
        return None
    return file.tell(), meta


def inflate(file: BinaryIO, begin: int, most: int) -> bytes:
    """Up to `most` bytes of what begins there. zlib.error where it is damaged."""
    file.seek(begin)
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(most + _SPARE), most)
