"""Where a compressed file's fragments lie, and what of that pydicom's parsers would let pass."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.encaps import encapsulate, generate_fragments

from ichfast.data.headers import read_header
from ichfast.data.image import Header
from ichfast.data.problems import Refused
from ichfast.data.streams import find_frames

START = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff"
END = b"\xfe\xff\xdd\xe0\0\0\0\0"
FRAMES = [b"one stream", b"another, longer one", b"3rd."]


def item(data: bytes, length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    return b"\xfe\xff\0\xe0" + size.to_bytes(4, "little") + data


@pytest.fixture
def header(tmp_path: Path, write_dicom: Any, head: Any) -> Header:
    found = read_header(write_dicom(tmp_path / "a.dcm", head().astype(np.int16)))
    return replace(found, data_offset=0)


@pytest.mark.parametrize("per_frame", [1, 2])
@pytest.mark.parametrize("has_table", [True, False])
def test_frames_are_where_pydicom_has_them(header: Header, per_frame: int, has_table: bool) -> None:
    value = encapsulate(FRAMES, fragments_per_frame=per_frame, has_bot=has_table)
    data = START + value + END
    if per_frame == 2 and not has_table:
        with pytest.raises(Refused, match="without an offset table"):
            find_frames(BytesIO(data), header, 3, b"", b"")
        return
    found = find_frames(BytesIO(data), header, 3, b"", b"")
    fragments = [data[at : at + length] for frame in found for at, length in frame]
    table = 12 * has_table + 8
    assert fragments == list(generate_fragments(value[table:]))
    assert [len(frame) for frame in found] == [per_frame] * 3


TABLE = item(bytes(4))
REFUSED = {
    "no element": (b"", "no pixel data"),
    "another element": (b"\xe0\x7f\x08\0" + START[4:] + TABLE + item(b"ab") + END, "no pixel data"),
    "uncompressed": (START[:8] + bytes(4) + TABLE + item(b"ab") + END, "not encapsulated"),
    "no table": (START, "truncated"),
    "half a table": (START + TABLE[:10], "truncated"),
    "a table of 4 GB": (START + item(b"", 2**32 - 4), "not one frame"),
    "no fragment": (START + TABLE + END, "offset table"),
    "no delimiter": (START + TABLE + item(b"ab"), "truncated"),
    "half a delimiter": (START + TABLE + item(b"ab") + END[:5], "truncated"),
    "a delimiter with a length": (START + TABLE + item(b"ab") + END[:4] + b"\2\0\0\0", "fragments"),
    "a fragment beyond the end": (START + TABLE + item(b"ab", 1000) + END, "truncated"),
    "a fragment without length": (START + TABLE + item(b"ab", 2**32 - 1) + END, "fragments"),
    "another tag": (START + TABLE + item(b"ab") + b"\x10\0\x20\0" + bytes(4) + END, "fragments"),
    "half a header": (START + TABLE + item(b"ab") + item(b"")[:6], "truncated"),
    "fragments without end": (START + TABLE + 20_000 * item(b"") + END, "fragments"),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_together(header: Header, data: bytes, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        find_frames(BytesIO(data), header, 1, b"", b"")


@pytest.mark.parametrize(
    "offsets", [[0, 18], [0, 18, 45, 60], [4, 18, 45], [0, 45, 18], [0, 17, 45]]
)
def test_tables_that_lead_elsewhere(header: Header, offsets: list[int]) -> None:
    table = item(b"".join(at.to_bytes(4, "little") for at in offsets))
    data = START + table + b"".join(map(item, FRAMES)) + END
    with pytest.raises(Refused, match="offset table"):
        find_frames(BytesIO(data), header, 3, b"", b"")
    good = item(b"".join(at.to_bytes(4, "little") for at in (0, 18, 45)))
    data = START + good + b"".join(map(item, FRAMES)) + END
    assert len(find_frames(BytesIO(data), header, 3, b"", b"")) == 3
