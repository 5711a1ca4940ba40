"""Files that survive a kill at any moment, and who may write them."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ichfast.errors import OutputError

PARTIAL = ".partial"


class DiskFull(OutputError):
    """No room is left, or none that this user may take."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """OutputError that names the path, where the operating system refuses."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = f"{path}: cannot be written ({error.strerror or error})"
        raise (DiskFull if full else OutputError)(reason) from error


@contextmanager
def whole(path: Path, *, lasting: bool = True) -> Iterator[BinaryIO]:
    """A file that is under its name when it is complete, and not before; with `lasting`, complete
    on the disk. Of two processes that write the same one, each has a temporary file of its own.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    with writing(path):
        try:
            with partial.open("wb") as file:
                yield file
                if lasting:
                    flush(file)
        except Exception:
            partial.unlink(missing_ok=True)
            raise
        os.replace(partial, path)
        if lasting:
            flush_path(path.parent)


@contextmanager
def placed(path: Path, at: int) -> Iterator[BinaryIO]:
    """A file from this byte on, made if it is not there. What lies elsewhere in it stays."""
    with writing(path):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        with open(handle, "wb") as file:
            file.seek(at)
            yield file


def flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def flush_path(path: Path) -> None:
    """A file, or of a folder the names in it, such as a rename has made them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """This file locked by this process; OutputError where another has it. The kernel drops the lock
    with the process, however that ends.
    """
    with writing(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"{path.parent} is in use by another process; wait for it, or take another --out"
            ) from error
        yield
    finally:
        os.close(handle)
