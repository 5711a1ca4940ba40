"""A pool that is killed or runs out of disk, and goes on: the same bytes, or a refusal."""

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from preparing import Killed, contents, make, start

from ichfast.errors import DataError, OutputError

# Killed and resumed


def test_killed_at_every_step_in_turn(
    some_set: Path, tmp_path: Path, small_parts: None, die_at: Callable[[int], None]
) -> None:
    expected = contents(make(some_set, tmp_path / "undisturbed").path)
    for n in range(1, 200):
        out = tmp_path / f"{n}"
        die_at(n)
        try:
            make(some_set, out)
        except Killed:
            assert not out.exists() or contents(out) == expected  # whole or not at all
        else:
            assert n > 10
            break
        die_at(0)
        assert contents(make(some_set, out).path) == expected
        assert not out.with_name(f"{n}.partial").exists()
    else:
        raise AssertionError("never finished")


def test_killed_again_and_again_while_it_goes_on(
    some_set: Path, tmp_path: Path, small_parts: None, die_at: Callable[[int], None]
) -> None:
    expected = contents(make(some_set, tmp_path / "undisturbed").path)
    random_steps, out, kills = random.Random(0), tmp_path / "out", 0
    while not out.exists():
        die_at(random_steps.randint(1, 12))
        try:
            make(some_set, out)
        except Killed:
            kills += 1
    die_at(0)
    assert kills > 1
    assert contents(make(some_set, out).path) == expected


def kill_at_random_moments(root: Path, tmp_path: Path, kills: int) -> None:
    options = ("--size", "32", "--workers", "2")
    undisturbed = start(root, tmp_path / "undisturbed", *options)
    assert undisturbed.wait() == 1, undisturbed.stderr
    expected = contents(tmp_path / "undisturbed")
    choice, out, landed = random.Random(1), tmp_path / "out", []
    for _ in range(kills):
        process = start(root, out, *options)
        parts, work = tmp_path / "out.partial" / "parts", tmp_path / "out.partial"
        before = len(list(parts.glob("[0-9]*.json"))) if parts.exists() else 0
        # Until one more part, two more, ... is there, or the pool is being put together; and then
        # a little longer.
        wanted = before + choice.choice([0, 0, 1, 1, 2, 99])
        while process.poll() is None and not out.exists():
            there = len(list(parts.glob("[0-9]*.json"))) if parts.exists() else 0
            if (work.exists() and there >= wanted) or (work / "pool" / "index.jsonl").exists():
                break
            time.sleep(0.001)
        time.sleep(choice.uniform(0, 0.1))
        landed.append(process.poll() is None)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if out.exists():
            assert contents(out) == expected
            shutil.rmtree(out)
    assert sum(landed) >= 0.7 * kills  # it was alive when the signal came
    final = start(root, out, *options)
    text, _ = final.communicate()
    assert final.returncode == 1
    assert "800 slices" in text
    assert "1 not read" in text
    assert contents(out) == expected
    assert not (tmp_path / "out.partial").exists()


def test_killed_ten_times_by_signal(larger_set: Path, tmp_path: Path) -> None:
    kill_at_random_moments(larger_set, tmp_path, 10)


@pytest.mark.large
def test_killed_a_hundred_times_by_signal(larger_set: Path, tmp_path: Path) -> None:
    kill_at_random_moments(larger_set, tmp_path, 100)


def test_workers_end_with_a_parent_that_is_killed(larger_set: Path, tmp_path: Path) -> None:
    process = start(larger_set, tmp_path / "out", "--size", "32", "--workers", "2")
    while not list(tmp_path.glob("out.partial/parts/[0-9]*.json")):
        time.sleep(0.01)
        assert process.poll() is None
    process.kill()
    process.communicate()
    begin = time.monotonic()
    while running(process.pid):
        time.sleep(0.01)
        assert time.monotonic() < begin + 30


def running(group: int) -> list[str]:
    """Processes of the group, without those that are dead but not buried."""
    states = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            states.append(path.read_text().rpartition(")")[2].split())
    return [state for state, _, own, *_ in states if own == str(group) and state not in "ZX"]


# Going on is refused where it would not be the same work


def stop_half_way(root: Path, out: Path, die_at: Callable[[int], None]) -> None:
    die_at(5)  # three steps for the plan, one for the first part
    with pytest.raises(Killed):
        make(root, out)
    die_at(0)


def test_other_arguments_are_refused(
    some_set: Path, tmp_path: Path, small_parts: None, die_at: Callable[[int], None]
) -> None:
    out = tmp_path / "pool"
    stop_half_way(some_set, out, die_at)
    for name, value in (("size", 8), ("limit", 2), ("seed", 1)):
        with pytest.raises(OutputError, match=rf"pool\.partial was made with {name} "):
            make(some_set, out, **{name: value})
    make(some_set, out)
    with pytest.raises(OutputError, match=r"pool was made with size 16, not 8"):
        make(some_set, out, size=8)


def test_changed_files_are_refused(
    some_set: Path, tmp_path: Path, small_parts: None, die_at: Callable[[int], None]
) -> None:
    out = tmp_path / "pool"
    stop_half_way(some_set, out, die_at)
    victim = next(
        path
        for path in sorted(some_set.rglob("*"))
        if path.suffix in (".nii", ".gz", ".jpg", ".dcm")
    )
    status = victim.stat()
    os.utime(victim, ns=(0, 0))
    with pytest.raises(DataError, match=rf"{victim.name} has changed since"):
        make(some_set, out)
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    new = victim.with_name("0new" + victim.suffix)
    shutil.copy(victim, new)
    with pytest.raises(DataError, match=r"0new.* has appeared since"):
        make(some_set, out)
    new.unlink()
    victim.rename(tmp_path / "away")
    with pytest.raises(DataError, match=rf"{victim.name} has disappeared since"):
        make(some_set, out)
    (tmp_path / "away").rename(victim)
    make(some_set, out)
    shutil.copy(victim, new)
    with pytest.raises(OutputError, match="from other files than"):
        make(some_set, out)


def test_another_version_and_damage_are_refused_or_mended(
    some_set: Path, tmp_path: Path, small_parts: None, die_at: Callable[[int], None]
) -> None:
    out, work = tmp_path / "pool", tmp_path / "pool.partial"
    expected = contents(make(some_set, tmp_path / "undisturbed").path)
    stop_half_way(some_set, out, die_at)
    assert len(list((work / "parts").glob("[0-9]*.json"))) == 1
    first = next((work / "parts").glob("*.slices"), work / "pool" / "pool.npy")
    with first.open("r+b") as file:  # a part that the disk lost some of is made again
        file.seek(300)
        file.write(bytes(100))
    text = (work / "plan.jsonl").read_text()
    for changed in (text.replace('"ichfast": "', '"ichfast": "9'), text[:-30], "", "{}\n"):
        (work / "plan.jsonl").write_text(changed)
        with pytest.raises(OutputError, match=r"plan\.jsonl .*; delete .* and start again"):
            make(some_set, out)
    (work / "plan.jsonl").write_text(text)
    assert contents(make(some_set, out).path) == expected


# A disk that fills


def test_a_full_disk_keeps_what_is_done(
    some_set: Path, tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = contents(make(some_set, tmp_path / "undisturbed").path)
    out, left = tmp_path / "pool", [0]

    def until_full(original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*arguments)

        return step

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, until_full(getattr(os, name)))
    for n in (1, 3, 1, 1, 1):  # at the plan, in a part, in another, in the assembly
        left[0] = n
        with pytest.raises(OutputError, match="No space left on device"):
            make(some_set, out)
        assert not out.exists()
    assert list((tmp_path / "pool.partial" / "parts").glob("[0-9]*.json"))
    with pytest.raises(OutputError, match=r"About .* MiB are needed there.*finished work is kept"):
        make(some_set, out)
    left[0] = 1000
    assert contents(make(some_set, out).path) == expected


@pytest.fixture
def tiny_disk() -> Iterator[Path]:
    """256 KiB, where this user may mount."""
    folder = Path(tempfile.mkdtemp())
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        folder.rmdir()
        pytest.skip("may not mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


def test_a_real_full_disk(larger_set: Path, tiny_disk: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"About [1-9] MiB are needed there and 0 MiB are free"):
        make(larger_set, tiny_disk / "pool", size=32)
    subprocess.run(["mount", "-o", "remount,size=16m", str(tiny_disk)], check=True)
    done = {path.name: path.stat().st_mtime_ns for path in tiny_disk.glob("*/parts/[0-9]*.json")}
    assert done
    pool = make(larger_set, tiny_disk / "pool", size=32)
    assert contents(pool.path) == contents(make(larger_set, tmp_path / "pool", size=32).path)
