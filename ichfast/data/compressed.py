"""What the checks of all compressions share."""

from dataclasses import dataclass

from ichfast.data.image import Header
from ichfast.data.problems import Refused

TRUNCATED = "pixel data is truncated: its compressed stream does not end"
DAMAGED = "compressed pixel data is damaged"


@dataclass(frozen=True)
class Stream:
    """One frame as compressed, and what it says of itself."""

    data: bytes
    bits: int  # precision of its samples
    signed: bool | None = None  # only JPEG 2000 says


def check_size(header: Header, rows: int, columns: int, components: int, bits: int) -> None:
    """Of a stream's own header, against that of the file."""
    if (rows, columns, components) != (header.rows, header.columns, 1):
        raise Refused("compressed pixel data is of another size than Rows x Columns")
    if not 2 <= bits <= header.bits_allocated:
        raise Refused(
            f"compressed pixel data has {bits} bits, BitsAllocated {header.bits_allocated}"
        )
