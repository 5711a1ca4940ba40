"""The native Python module: what its functions refuse, and that they keep no reference too many.

What dicom_elements finds stands in tests/data/test_elements.py; what flush_denormals does, in
tests/training/test_host.py.
"""

import gc
import sys
from typing import Any

import pytest
from ichfast._C_python import build_info, dicom_elements, flush_denormals

# Implicit VR: only a dictionary knows that (0008,1140) is a sequence.
SYNTAX = b"\2\0\x10\0UI\x12\x001.2.840.10008.1.2\0"
PATIENT = b"\x10\0\x20\0" + b"\4\0\0\0" + b"1234"
SEQUENCE = b"\x08\0\x40\x11" + b"\xff\xff\xff\xff" + b"\xfe\xff\xdd\xe0\0\0\0\0"
PIXELS = b"\xe0\x7f\x10\0" + b"\0\0\0\0"
FILE = bytes(128) + b"DICM" + SYNTAX + SEQUENCE + PATIENT + PIXELS
PATIENT_ID = 0x00100020


def test_elements() -> None:
    asked = []

    def is_sequence(tag: int) -> int:
        asked.append(tag)
        return 1  # anything that is true

    values, vrs, syntax, pixels = dicom_elements(FILE, (0x00080005, PATIENT_ID), is_sequence)
    assert values == {PATIENT_ID: b"1234"}
    assert vrs == {PATIENT_ID: b""}
    assert syntax == "1.2.840.10008.1.2"
    assert pixels == len(FILE) - len(PIXELS)
    assert asked == [0x00081140]
    assert dicom_elements(FILE, (PATIENT_ID,), lambda tag: False) is None
    assert dicom_elements(FILE[:-1], (PATIENT_ID,), is_sequence) is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((), TypeError, r"dicom_elements\(\) takes exactly 3 arguments \(0 given\)"),
        ((FILE, (), id, 1), TypeError, r"dicom_elements\(\) takes exactly 3 arguments \(4 given\)"),
        ((bytearray(FILE), (), id), TypeError, "argument 1 must be bytes, not bytearray"),
        ((None, (), id), TypeError, "argument 1 must be bytes, not None"),
        ((FILE, [PATIENT_ID], id), TypeError, "argument 2 must be tuple, not list"),
        ((FILE, ("tag",), id), TypeError, "integer"),
        ((FILE, (-1,), id), OverflowError, "negative|unsigned"),
        ((FILE, (1 << 32,), id), OverflowError, "a tag has 32 bits, and 4294967296 has more"),
        ((FILE, (1 << 64,), id), OverflowError, "too large"),
        ((FILE, (), None), TypeError, "'NoneType' object is not callable"),
    ],
)
def test_elements_refuse(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        dicom_elements(*arguments)


def test_errors_of_the_question_come_back() -> None:
    def is_sequence(tag: int) -> bool:
        raise LookupError(hex(tag))

    with pytest.raises(LookupError, match="0x81140"):
        dicom_elements(FILE, (), is_sequence)

    class Neither:
        def __bool__(self) -> bool:
            raise LookupError("neither")

    with pytest.raises(LookupError, match="neither"):
        dicom_elements(FILE, (), lambda tag: Neither())


def test_others_refuse() -> None:
    with pytest.raises(TypeError, match="takes exactly 2 arguments"):
        flush_denormals(True)
    with pytest.raises(TypeError, match="integer"):
        flush_denormals(True, "two")
    with pytest.raises(OverflowError):
        flush_denormals(True, 1 << 40)
    with pytest.raises(TypeError, match=r"build_info"):
        build_info(1)


def test_no_reference_is_kept() -> None:
    """Whether a call ends well, finds nothing, or fails halfway."""
    tag = int("1048608")  # an object of this test's own
    assert tag == PATIENT_ID
    data, answer = bytes(FILE), object()

    def is_sequence(_: int) -> object:
        return answer

    def raises(_: int) -> object:
        raise ValueError

    def call() -> None:
        assert dicom_elements(data, (tag,), is_sequence) is not None
        assert dicom_elements(data[:-1], (tag,), is_sequence) is None
        with pytest.raises(ValueError, match=r"^$"):
            dicom_elements(data, (tag,), raises)
        with pytest.raises(OverflowError):
            dicom_elements(data, (tag, -1), is_sequence)
        assert build_info()["torch_target"]

    def count() -> tuple[list[int], int]:
        gc.collect()
        references = [sys.getrefcount(o) for o in (tag, data, answer, is_sequence, raises)]
        return references, sys.getallocatedblocks()

    call()
    references, blocks = count()
    for _ in range(1000):
        call()
    after, more_blocks = count()
    assert after == references
    assert more_blocks - blocks < 500  # one object too many a call were 1000
