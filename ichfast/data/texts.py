"""Texts that users supply (lists, tables, JSON, TOML), as editors and programs save them: UTF-8 or
UTF-16, with a byte order mark or without, and whole numbers as pandas writes them.
"""

import codecs
import io
import json
from pathlib import Path
from typing import Any, TextIO

from ichfast.data.limits import check_lines
from ichfast.errors import DataError

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
HEAD = 4096  # bytes by which the encoding is told
LARGEST = 64 << 20  # bytes of a text that is read at once


def open_text(path: Path) -> TextIO:
    """The file with its line ends as they are. What its encoding does not know is replaced.
    DataError where it cannot be opened, is no text, or has a line that nobody wrote."""
    try:
        file = path.open("rb")
        head = file.read(HEAD)
        file.seek(0)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from None
    encoding = find_encoding(head)
    if encoding is None:
        file.close()
        raise DataError(f"{path}: not a text file; save it as text in UTF-8")
    try:
        check_lines(file, path)
    except DataError:
        file.close()
        raise
    return io.TextIOWrapper(file, encoding=encoding, errors="replace", newline="")


def find_encoding(head: bytes) -> str | None:
    """Of a text that begins so; None where it is none. Without a mark, zeros at every other byte
    tell UTF-16, since lists and tables are mostly of ASCII; other texts have no zeros."""
    for mark, encoding in MARKS.items():
        if head.startswith(mark):
            return encoding
    if b"\0" not in head:
        return "utf-8"
    pairs = len(head) // 2
    low, high = head[0 : 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    if min(low, high) <= pairs // 10 and max(low, high) >= pairs // 2:
        return "utf-16-le" if high > low else "utf-16-be"
    return None


def read_text(path: Path) -> str:
    """All of it, with plain line ends. DataError where it cannot be read, or is no text."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if size > LARGEST:
        raise DataError(f"{path} cannot be read: {size:,} bytes are too many for a text")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    encoding = find_encoding(data[:HEAD])
    if encoding is None:
        raise DataError(f"{path} cannot be read: not a text file; save it as text in UTF-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        if encoding != "utf-8":
            raise DataError(f"{path} cannot be read: damaged; save it as UTF-8") from None
        text = data.decode("cp1252", "replace")  # of an old Windows editor
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path) -> Any:
    """ValueError where it is no JSON; DataError as `read_text`."""
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_whole(text: str) -> int:
    """A whole number, also one as "49.0": pandas writes it so as soon as a cell of its column is
    empty. ValueError where it is none."""
    text = text.strip()
    head, point, tail = text.partition(".")
    return int(head if point and head and not tail.strip("0") else text)
