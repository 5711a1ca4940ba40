"""Files that survive a kill at any moment, and who may write them."""

import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ichfast.errors import OutputError

PARTIAL = ".partial."
"""how the names of files begin that are not whole yet"""


class WriteError(OutputError):
    """The operating system refuses to write a file."""


class DiskFull(WriteError):
    """No room is left, or none that this user may take."""


@contextmanager
def report_errors(path: Path, fix: str = "") -> Iterator[None]:
    """WriteError that names the path and the fix, where the operating system refuses."""
    try:
        yield
    except OSError as error:
        kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else WriteError
        reason = f"{path} could not be written: {error.strerror or error}"
        raise kind(f"{reason}. {fix}" if fix else reason) from error


@contextmanager
def replace_whole(path: Path, *, lasting: bool) -> Iterator[Path]:
    """A name to write to, with the suffix of `path`, which becomes `path` at the end; an error
    leaves what was there before. With `lasting`, the file is complete on the disk before it has its
    name. Of two processes that write the same one, each has a name of its own that nobody can
    guess: on machines that share a folder, and in containers, processes have the same numbers.

    For libraries that open files themselves: errors of the operating system are raised as such.
    """
    unique = f"{os.getpid()}-{secrets.token_hex(8)}"
    partial = path.with_name(f"{PARTIAL}{unique}.{path.name}")
    try:
        yield partial
        if lasting:
            flush_path(partial)
        os.replace(partial, path)
    except (Exception, KeyboardInterrupt):
        partial.unlink(missing_ok=True)
        raise
    if lasting:
        flush_path(path.parent)


@contextmanager
def create_whole(path: Path, *, lasting: bool = True, fix: str = "") -> Iterator[BinaryIO]:
    """As `replace_whole`, a file to write to. WriteError, with the fix, where that fails."""
    with (
        report_errors(path, fix),
        replace_whole(path, lasting=lasting) as partial,
        open(partial, "xb") as file,
    ):
        yield file


def write_whole(path: Path, data: bytes, *, lasting: bool = True, fix: str = "") -> None:
    """As `create_whole`, with this content."""
    with create_whole(path, lasting=lasting, fix=fix) as file:
        file.write(data)


def find_partials(folder: Path) -> Iterator[tuple[Path, str]]:
    """What kills have left in a folder of files that were not whole yet, and the name that each was
    to have. A process that still writes has such files, too: remove only what no other writes.
    """
    for partial in folder.glob(f"{PARTIAL}*"):
        yield partial, partial.name.removeprefix(PARTIAL).partition(".")[2]


@contextmanager
def open_at(path: Path, offset: int) -> Iterator[BinaryIO]:
    """A file from this byte on, made if it is not there. What lies elsewhere in it stays."""
    with report_errors(path), open(open_own(path, os.O_WRONLY), "wb") as file:
        file.seek(offset)
        yield file


def append(path: Path, data: bytes) -> None:
    """Add to the end of a file, on the disk when this returns. A kill may leave half of `data`."""
    with report_errors(path), open(open_own(path, os.O_WRONLY | os.O_APPEND), "ab") as file:
        file.write(data)
        flush(file)


def open_own(path: Path, mode: int) -> int:
    """A handle of a file, made if it is not there. OSError where the name is a link: in a folder
    that others may write to, it would lead to any file that this user may write to.
    """
    try:
        return os.open(path, mode | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(error.errno, "it is a symbolic link; delete that", str(path)) from None
        raise


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
def lock(path: Path, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """This file locked by this process, whose number it holds. Where another has it, OutputError;
    or, with `say`, that is told who has it, and this waits. The kernel drops the lock with the
    process, however that ends: no lock is stale.
    """
    handle = _take(path, say)
    try:
        with report_errors(path):
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)


def _take(path: Path, say: Callable[[str], None] | None) -> int:
    """A handle of the file that this process alone has locked."""
    with report_errors(path):
        handle = open_own(path, os.O_RDWR)
    try:
        with report_errors(path):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                owner = os.read(handle, 32).decode(errors="replace").strip() or "?"
                if say is None:
                    raise OutputError(
                        f"{path.parent} is in use by process {owner}; wait or choose another --out."
                    ) from error
                say(owner)
                fcntl.flock(handle, fcntl.LOCK_EX)
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)  # whoever had it has deleted the file meanwhile, and another has made it anew
    return _take(path, say)
