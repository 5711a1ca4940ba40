"""The native walk over a header says what the Python one of plain_elements says, of any bytes."""

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from plain_elements import plain_elements
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ichfast.data import headers
from ichfast.data.elements import walk_elements
from ichfast.data.headers import TAGS


def walk(data: bytes) -> Any:
    found = walk_elements(data, TAGS)
    return None if found is None else (dict(found), found.vrs, found.file_meta, found.pixels)


def walk_in_python(data: bytes) -> Any:
    try:
        found = plain_elements(data, set(TAGS))
    except Exception:
        return None
    return dict(found), found.vrs, found.file_meta, found.pixels


def test_the_table_has_every_tag_in_order() -> None:
    named = [v for name, v in vars(headers).items() if name.isupper() and isinstance(v, int)]
    assert tuple(sorted(tag for tag in named if tag > 0xFFFF)) == TAGS


def mutate(base: bytes, rng: random.Random) -> bytes:
    data = bytearray(base)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(128, max(129, len(data)))
        match rng.randrange(7):
            case 0 | 1:
                data[at : at + 1] = rng.randbytes(1)
            case 2:
                data[at : at + 1] = bytes(
                    byte ^ 1 << rng.randrange(8) for byte in data[at : at + 1]
                )
            case 3:
                del data[at : at + rng.randrange(1, 9)]
            case 4:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 5:  # a length, mostly: the greatest, undefined, short of nothing
                word = rng.choice((2**32 - 1, 2**32 - 2, 2**31, 0xFFFF, 0, 1, 8, 1 << 16))
                data[at : at + 4] = struct.pack("<L", word)
            case 6:  # two places change theirs
                size, to = rng.randrange(1, 40), rng.randrange(128, max(129, len(data)))
                data[at : at + size], data[to : to + size] = (
                    data[to : to + size],
                    data[at : at + size],
                )
    return bytes(data)


def item(depth: int, undefined: bool) -> Dataset:
    dataset = Dataset()
    dataset.ReferencedSOPInstanceUID = "1.2.3"
    if depth == 1:
        dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.is_undefined_length_sequence_item = undefined
    if depth:
        inner = [item(depth - 1, undefined), item(0, not undefined)]
        dataset.ReferencedImageSequence = Sequence(inner)
        dataset["ReferencedImageSequence"].is_undefined_length = undefined
    return dataset


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, make_dicom: Any) -> list[bytes]:
    path = tmp_path_factory.mktemp("elements") / "a.dcm"
    found = []
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        for undefined in (False, True):
            for depth in (0, 2, 16, 17, 18):
                dataset = make_dicom(np.zeros((2, 2), np.int16), TransferSyntaxUID=syntax)
                dataset.SpecificCharacterSet = "ISO_IR 192"
                dataset.ReferencedStudySequence = Sequence([item(depth, undefined)])
                dataset["ReferencedStudySequence"].is_undefined_length = undefined
                dataset.PixelPaddingValue = -5
                dataset.save_as(path, enforce_file_format=True)
                found.append(path.read_bytes())
    return found


def samples() -> Iterator[bytes]:
    """The beginning of every file that comes with pydicom."""
    for path in sorted(Path(pydicom.data.__file__).parent.rglob("*")):
        if path.is_file():
            yield path.read_bytes()[:8192]


def test_of_whole_files(bases: list[bytes]) -> None:
    taken = [walk(data) for data in bases]
    assert taken == [walk_in_python(data) for data in bases]
    # Too deep, where sequences must be gone through and are not skipped by their length.
    assert [found is None for found in taken] == 2 * (5 * [False] + 3 * [False] + 2 * [True])
    theirs = [(walk(data), walk_in_python(data)) for data in samples()]
    assert all(ours == reference for ours, reference in theirs)
    assert sum(ours is not None for ours, _ in theirs) > 50


def test_of_every_beginning(bases: list[bytes]) -> None:
    for base in bases[1::5]:
        for size in range(len(base) + 1):
            assert walk(base[:size]) == walk_in_python(base[:size]), size


def test_of_mutants(bases: list[bytes]) -> None:
    rng = random.Random(0)
    theirs = [data for data in samples() if walk(data) is not None]
    taken, count = 0, 6000
    for _ in range(count):
        data = mutate(rng.choice(rng.choice((bases, theirs))), rng)
        found = walk(data)
        assert found == walk_in_python(data)
        taken += found is not None
    assert count / 10 < taken < 9 * count / 10


def test_of_transfer_syntaxes(bases: list[bytes]) -> None:
    """As they should be, and near to that."""
    plain = 0
    for end in (b"", b".1", b".2", b".5", b".4.50", b".4.5\n", b".4.", b".4.x", b".1.99", b"."):
        for padding in (b"", b"\0", b" ", b"\0\0", b"\n"):
            uid = b"1.2.840.10008.1.2" + end + padding
            for base in (bases[0], bases[10]):  # explicit, implicit
                at = base.index(b"\x02\x00\x10\x00UI") + 6
                behind = at + 2 + int.from_bytes(base[at : at + 2], "little")
                data = base[:at] + struct.pack("<H", len(uid)) + uid + base[behind:]
                assert walk(data) == walk_in_python(data), uid
                plain += walk(data) is not None
    assert plain == 3 * 4  # of three paddings: explicit as three syntaxes, implicit as one


def test_of_character_sets(bases: list[bytes]) -> None:
    for name, known in (
        (b"ISO_IR 100", True),
        (b"ISO_IR 6\t ", True),
        (b"GB18030\r\n\v", True),
        (b" " * 10, True),
        (b"GB18030\0  ", False),
        (b" ISO_IR 6 ", False),
        (b"iso_ir 100", False),
    ):
        data = bases[1].replace(b"ISO_IR 192", name)  # of the file
        assert walk(data) == walk_in_python(data)
        assert (walk(data) is not None) == known
        data = bases[6].replace(b"ISO_IR 100", name)  # of an item
        assert walk(data) == walk_in_python(data)
        assert (walk(data) is not None) == known
