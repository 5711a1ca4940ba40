"""What a file may ask for. Whatever inflates, or is as large as a number in a header says, is
bounded before it takes memory: by the file's own size on the disk, or by the largest picture that
is read.

What a decoder takes is bounded in its process (`ichfast.data.decoder_process`), JPEG 2000's headers
in `ichfast.data.jpeg2000`, deflated files in `ichfast.data.deflated`.
"""

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import BinaryIO

from ichfast.data.image import Header
from ichfast.data.problems import Refused
from ichfast.errors import DataError

SIDE = 4096
"""pixels along a picture's side; beyond any CT"""
FREE = 64 << 20
"""bytes that any compressed file may inflate to"""
RATIO = 100
"""and how many times its own size more: gzip halves a CT, and a drawn one shrinks to a fiftieth"""
SCAN = 4 << 30
"""bytes of the voxels of one scan or file"""
BESIDE = 4 << 20
"""bytes that a file with one slice, where it is read as a whole, has beside twice its pixels"""
FRAMES = 1 << 14
"""of one file; every one takes the better part of a millisecond"""
LINE = 1 << 20
"""bytes of a table's line"""


def check_inflated(wanted: int, size: int, what: str) -> None:
    """Refused where a file of `size` bytes inflates to so many more that it cannot be a scan."""
    if wanted > FREE + RATIO * size:
        raise Refused(f"{what} of {size:,} bytes says that it inflates to {wanted:,}")


def check_scan(wanted: int) -> None:
    if wanted > SCAN:
        raise Refused(f"{wanted:,} bytes of voxels; {SCAN:,} can be read")


def check_nifti(path: Path, most: int | None = None) -> None:
    """Of what its header says that lies before its voxels (extensions, which nibabel loads) and in
    them; `most` bytes where that is known, as of a mask. What is no header is left to nibabel.
    """
    import nibabel

    size = path.stat().st_size
    packed = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            start = file.read(540)
        kind = next(
            kind
            for kind in (nibabel.Nifti1Header, nibabel.Nifti2Header)
            if kind.may_contain_header(start)
        )
        header = kind(start[: kind.sizeof_hdr], check=False)
        voxels = math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize
        wanted = header.get_data_offset() + voxels
    except (StopIteration, OSError, EOFError, zlib.error, ValueError, OverflowError):
        return
    if most is not None and wanted > FREE + most:
        raise Refused(f"says that it holds {wanted:,} bytes")
    if packed and most is None:
        check_inflated(wanted, size, "a file")
    check_scan(wanted)


def check_lines(file: BinaryIO, path: Path) -> None:
    """DataError where a line is so long that none was meant: readers of lines hold it in memory. In
    any encoding, since a line's end has one of these bytes in all of them.
    """
    begun = 0  # bytes of the line that goes on in the next block
    while block := file.read(LINE):
        first = min((i for end in (b"\n", b"\r") if (i := block.find(end)) >= 0), default=LINE)
        if begun + first > LINE:
            raise DataError(f"{path}: a line of over {LINE:,} bytes, so it is no table")
        last = max(block.rfind(b"\n"), block.rfind(b"\r"))
        begun = len(block) - last - 1 if last >= 0 else begun + len(block)
    file.seek(0)


def read_slice_file(file: BinaryIO, header: Header) -> bytes:
    """All of a file that holds one slice, compressed or not."""
    size, pixels = os.fstat(file.fileno()).st_size, header.rows * header.columns
    most = header.data_offset + 2 * pixels * header.bits_allocated // 8 + BESIDE
    if size > most:
        raise Refused(f"{size:,} bytes for one slice; {most:,} can be read")
    file.seek(0)
    return file.read()
