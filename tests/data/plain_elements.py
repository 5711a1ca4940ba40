"""The walk of csrc/dicom/elements.h once more, in Python: slow, and made of other parts."""

import re
import struct
from collections.abc import Set

from pydicom.uid import ImplicitVRLittleEndian

from ichfast.data.elements import Elements, is_sequence

# The encapsulated ones are explicit little-endian as well.
_PLAIN = re.compile(rb"1\.2\.840\.10008\.1\.2(\.1|\.4\.\d+|\.5)?[\0 ]?")

_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_SHORT = set(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_UNDEFINED = 0xFFFFFFFF
_ITEM, _END_OF_ITEM, _END_OF_SEQUENCE = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}
# pydicom looks at this one and may stumble over it; these it knows.
_CHARACTER_SET = 0x00080005
_CHARACTER_SETS = {b"", b"ISO_IR 6", b"ISO_IR 100", b"ISO_IR 101", b"ISO_IR 192", b"GB18030"}
_DEPTH = 16  # of nested sequences

_explicit = struct.Struct("<HH2sH").unpack_from
_implicit = struct.Struct("<HHL").unpack_from
_length = struct.Struct("<L").unpack_from


class Unsure(Exception):
    """Not the plain case: pydicom decides."""


def plain_elements(data: bytes, wanted: Set[int]) -> Elements:
    """Those of the wanted tags that come before PixelData. `data` is the file, or enough of its
    beginning. Whatever it raises, `Unsure` or what indices and struct do, means that pydicom must
    look.
    """
    if data[128:132] != b"DICM":
        raise Unsure
    at, before, syntax = 132, -1, b""
    while data[at : at + 2] == b"\x02\x00":
        tag, vr, start, length = _element(data, at, True)
        if tag <= before or (tag == 0x00020000 and (vr, length) != (b"UL", 4)):
            raise Unsure
        before, at = tag, start + length
        if tag == 0x00020010 and vr == b"UI":
            syntax = data[start:at]
    if at > len(data) or not _PLAIN.fullmatch(syntax):
        raise Unsure
    name = syntax.rstrip(b"\0 ").decode()
    explicit = name != ImplicitVRLittleEndian
    if not explicit and data[at + 4 : at + 6].isalpha():
        raise Unsure  # says implicit and looks explicit
    found = Elements(name)
    found.pixels = _walk(data, at, explicit, wanted, found)
    return found


def _walk(data: bytes, at: int, explicit: bool, wanted: Set[int], found: Elements) -> int:
    """Put the wanted elements into `found`; where PixelData begins."""
    before = 0x0007FFFF  # no file meta, no command set
    while True:
        if explicit:  # the common case of `_element`, without a call
            group, element, vr, length = _explicit(data, at)
            tag, start = group << 16 | element, at + 8
        if not explicit or vr not in _SHORT:
            tag, vr, start, length = _element(data, at, explicit)
        if tag in _PIXELS:
            return at
        if tag <= before or tag >= 0xFFFE0000:
            raise Unsure
        before = tag
        if length == _UNDEFINED:
            if tag in wanted:
                raise Unsure
            at = _after_sequence(data, start, tag, vr, explicit, 0)
            continue
        at = start + length
        if at > len(data):
            raise Unsure
        if tag in wanted:
            found[tag] = data[start:at]
            found.vrs[tag] = vr
        elif tag == _CHARACTER_SET and data[start:at].rstrip() not in _CHARACTER_SETS:
            raise Unsure


def _element(data: bytes, at: int, explicit: bool) -> tuple[int, bytes, int, int]:
    """Tag, VR ("" when implicit), where its value begins, and the value's length."""
    if not explicit:
        group, element, length = _implicit(data, at)
        return group << 16 | element, b"", at + 8, length
    group, element, vr, length = _explicit(data, at)
    if vr in _SHORT:
        return group << 16 | element, vr, at + 8, length
    if vr in _LONG:
        return group << 16 | element, vr, at + 12, _length(data, at + 8)[0]
    if group == 0xFFFE:  # delimiters have no VR
        return group << 16 | element, b"", at + 8, _length(data, at + 4)[0]
    raise Unsure


def _after_sequence(data: bytes, at: int, tag: int, vr: bytes, explicit: bool, depth: int) -> int:
    """Where a sequence of undefined length ends."""
    if depth > _DEPTH or not (vr == b"SQ" if explicit else is_sequence(tag)):
        raise Unsure
    while True:
        group, element, length = _implicit(data, at)
        at += 8
        tag = group << 16 | element
        if tag == _END_OF_SEQUENCE and length == 0:
            return at
        if tag != _ITEM:
            raise Unsure
        at = _after_item(data, at, length, explicit, depth)


def _after_item(data: bytes, at: int, length: int, explicit: bool, depth: int) -> int:
    end = len(data) if length == _UNDEFINED else at + length
    while at < end:
        tag, vr, start, own = _element(data, at, explicit)
        if tag == _END_OF_ITEM and own == 0 and length == _UNDEFINED:
            return start
        if tag >= 0xFFFE0000:
            raise Unsure
        if own == _UNDEFINED:
            at = _after_sequence(data, start, tag, vr, explicit, depth + 1)
        else:
            at = start + own
            if tag == _CHARACTER_SET and data[start:at].rstrip() not in _CHARACTER_SETS:
                raise Unsure
    if at != end or end > len(data) or length == _UNDEFINED:
        raise Unsure
    return at
