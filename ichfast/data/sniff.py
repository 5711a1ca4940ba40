"""What a file is by its first bytes."""

import re

START = 132  # bytes that the functions here want
# The groups that a data set without a preamble begins with: the file meta's length, or an early
# element of group 8 with an explicit VR or a short implicit length.
_DATA_SET = re.compile(
    rb"(\x02\0\0\0UL\x04\0|\x08\0[\0-\x18]\0(CS|DA|IS|LO|SH|TM|UI|UL|[\0-\x60]\0\0\0))", re.DOTALL
)


def is_dicom(start: bytes) -> bool:
    return start[128:132] == b"DICM" or has_no_preamble(start)


def has_no_preamble(start: bytes) -> bool:
    """Whether it is DICOM, little-endian, that lacks its preamble, and perhaps the file meta."""
    return start[128:132] != b"DICM" and _DATA_SET.match(start) is not None
