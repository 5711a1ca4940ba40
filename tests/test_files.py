"""Files that are whole or not there, whoever is killed and whatever lies in the way."""

import multiprocessing
import os
import resource
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from ichfast.errors import OutputError
from ichfast.files import (
    DiskFull,
    WriteError,
    append,
    create_whole,
    find_partials,
    lock,
    open_at,
    report_errors,
    write_whole,
)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(b"former")
    with create_whole(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"former"
        assert [name for _, name in find_partials(tmp_path)] == ["page.html"]
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def _stop_half_way(path: Path, kind: type[BaseException]) -> None:
    with create_whole(path) as file:
        file.write(b"half")
        raise kind


def test_an_error_or_ctrl_c_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(b"former")
    for kind in (ValueError, KeyboardInterrupt):
        with pytest.raises(kind):
            _stop_half_way(path, kind)
        assert path.read_bytes() == b"former"
        assert list(tmp_path.iterdir()) == [path]


def test_a_torn_write_leaves_the_former_file(tmp_path: Path) -> None:
    """The kernel itself takes some of the bytes and refuses the rest."""
    path = tmp_path / "page.html"
    path.write_bytes(b"former")
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, former[1]))
    try:
        with pytest.raises(WriteError, match=r"page\.html could not be written: .*\. Make room\."):
            write_whole(path, bytes(10_000), fix="Make room.")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert path.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [path]


def _die_half_way(path: Path) -> None:
    with create_whole(path) as file:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_kill_leaves_the_former_file_and_what_can_be_found(tmp_path: Path) -> None:
    path = tmp_path / "a.b.html"
    path.write_bytes(b"former")
    child = multiprocessing.get_context("spawn").Process(target=_die_half_way, args=(path,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert path.read_bytes() == b"former"
    ((partial, name),) = find_partials(tmp_path)
    assert (partial.read_bytes(), name) == (b"half", "a.b.html")
    assert str(child.pid) in partial.name
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"


def test_no_link_leads_elsewhere(tmp_path: Path) -> None:
    victim = tmp_path / "thesis"
    victim.write_bytes(b"mine")
    link = tmp_path / "link"
    link.symlink_to(victim)
    write_whole(link, b"new")  # takes the link's place
    assert (link.read_bytes(), link.is_symlink()) == (b"new", False)
    for name in (".lock", "log", "pool"):
        (tmp_path / name).symlink_to(victim)
    refused = r"could not be written: it is a symbolic link; delete that"
    with pytest.raises(WriteError, match=refused), lock(tmp_path / ".lock"):
        pass
    with pytest.raises(WriteError, match=refused):
        append(tmp_path / "log", b"line")
    with pytest.raises(WriteError, match=refused), open_at(tmp_path / "pool", 0):
        pass
    assert victim.read_bytes() == b"mine"


def test_names_of_unfinished_files_are_nobody_else_s(tmp_path: Path) -> None:
    """Two processes of one number write the same file, as containers that share a folder do."""
    path = tmp_path / "page.html"
    with create_whole(path) as one:
        with create_whole(path) as other:
            other.write(b"other")
        one.write(b"one")
        assert path.read_bytes() == b"other"
    assert path.read_bytes() == b"one"


def test_a_full_disk_is_told_from_other_trouble(tmp_path: Path) -> None:
    with (
        pytest.raises(DiskFull, match=r"^out could not be written: full$"),
        report_errors(Path("out")),
    ):
        raise OSError(28, "full")
    with pytest.raises(WriteError) as caught:
        write_whole(tmp_path / "nowhere" / "page", b"")
    assert caught.type is WriteError


def test_a_lock_keeps_others_out_while_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.write_text("a longer text of somebody else's\n")
    with lock(path):
        assert path.read_text() == f"{os.getpid()}\n"
        busy = rf"{tmp_path} is in use by process {os.getpid()};"
        with pytest.raises(OutputError, match=busy), lock(path):
            pass
    with lock(path):
        pass


def test_a_lock_that_is_waited_for(tmp_path: Path) -> None:
    """Whoever has it deletes the file at the end, and the one that waited has a file with a name
    all the same."""
    path, told = tmp_path / ".lock", []
    with lock(path, told.append):
        pass
    held = ExitStack()
    held.enter_context(lock(path))

    def release(owner: str) -> None:
        told.append(owner)
        path.unlink()
        held.close()

    with lock(path, release):
        assert path.read_text() == f"{os.getpid()}\n"
        with pytest.raises(OutputError), lock(path):
            pass
    assert told == [str(os.getpid())]


def test_appending_and_writing_in_the_middle_keep_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for line in (b"one\n", b"two\n"):
        append(path, line)
    with open_at(path, 4) as file:
        file.write(b"2nd")
    assert path.read_bytes() == b"one\n2nd\n"
