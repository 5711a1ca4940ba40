"""From a set to a pool: right, the same however often it is killed, and honest about bad files."""

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ichfast import prepare
from ichfast.data import Pool, Problems, load_slices, read_series
from ichfast.data.prepare import durable, job, plan, prepare_pool
from ichfast.data.prepare.units import Unit, choose
from ichfast.data.resize import resize_hu
from ichfast.data.series import Series
from ichfast.errors import DataError, OutputError

WINDOW = (40.0, 80.0)


def make(root: Path, out: Path, **options: Any) -> Pool:
    pool = prepare_pool(root, out, **{"size": 16, "workers": 1, "progress": False, **options})
    assert pool is not None
    return pool


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part for every series or two of the fixtures."""
    monkeypatch.setattr(plan, "FILES", 4)


@pytest.fixture(params=["ct-ich", "rsna", "dicom"])
def some_set(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    head: Any,
    write_ct_ich: Callable[..., Path],
    write_rsna: Callable[..., Path],
    write_dicom: Callable[..., Path],
) -> Path:
    root = tmp_path / "set"
    if request.param == "ct-ich":
        return write_ct_ich(root, patients=3)
    if request.param == "rsna":
        return write_rsna(root)
    for k in range(9):  # three series, their files mixed
        uid = f"1.2.{k % 3}"
        pixels = head(32).astype(np.int16) + k
        write_dicom(root / f"{k}.dcm", pixels, z=2.0 * k, SeriesInstanceUID=uid)
    return root


# What is in it


def test_slices_and_order_are_those_of_the_set(
    some_set: Path, tmp_path: Path, small_parts: None
) -> None:
    pool = make(some_set, tmp_path / "pool")
    scans = list(read_series(some_set, Problems()))
    sources = [source for scan in scans for source in scan.sources]
    assert [row.source for row in pool.index] == sources
    assert [row.position for row in pool.index] == [float(z) for s in scans for z in s.positions]
    hu = np.concatenate([scan.hu() for scan in scans]).astype(np.float64)
    average = hu.clip(-1024, 3071).reshape(len(hu), 16, 2, 16, 2).mean((2, 4))
    assert np.array_equal(pool.images, np.rint(average).astype(np.int16))
    known = [scan.subtypes is not None for scan in scans for _ in scan.sources]
    assert [row.subtypes is not None for row in pool.index] == known


def test_agrees_with_the_training_path(some_set: Path, tmp_path: Path) -> None:
    """Windowed from the pool as from the files, to the half unit that rounding takes."""
    labelled = (some_set / "masks").exists()
    pool = make(some_set, tmp_path / "pool", size=12)  # 32 / 12: fractions of pixels
    slices, _ = load_slices(some_set, size=12, window=WINDOW, labelled=labelled, progress=False)
    level, width = WINDOW
    hu = pool.tensor().double()
    windowed = ((hu - (level - 0.5)) / (width - 1) + 0.5).clamp(0, 1)
    assert torch.allclose(windowed, slices.images[:, 0].double(), atol=0.501 / (width - 1), rtol=0)
    if labelled:
        assert slices.masks is not None
        assert torch.equal(pool.mask_tensor(), slices.masks[:, 0])


@given(
    st.lists(st.integers(-3000, 5000), min_size=16, max_size=16),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.integers(-1024, 0),
)
def test_hu_are_rounded_to_the_nearest(values: list[int], slope: float, intercept: int) -> None:
    stored = np.array(values, np.int16).reshape(1, 4, 4)
    scan = Series(
        stored, np.array([slope]), np.array([float(intercept)]), values[0], None, "", "", "",
        np.zeros(1), (1.0, 1.0), 0.0, ("",),
    )  # fmt: skip
    hu = np.where(stored == values[0], -1000.0, stored * slope + intercept).clip(-1024, 3071)
    expected = np.rint(hu.reshape(1, 2, 2, 2, 2).mean((2, 4)))
    assert np.array_equal(resize_hu(scan, np.array([0]), 2), expected)


def test_positive_only(
    tmp_path: Path, write_ct_ich: Any, write_rsna: Any, write_dicom: Any
) -> None:
    pool = make(write_ct_ich(tmp_path / "ct"), tmp_path / "a", positive=True)
    assert [row.source[-1] for row in pool.index] == ["3", "3"]
    assert pool.masks is not None
    assert pool.masks.any((1, 2)).all()
    pool = make(write_rsna(tmp_path / "rsna"), tmp_path / "b", positive=True)
    assert [row.subtypes for row in pool.index] == [("subdural",)] * 2
    write_dicom(tmp_path / "dicom" / "1.dcm", np.zeros((4, 4), np.int16))
    with pytest.raises(DataError, match="plain DICOM has no labels"):
        make(tmp_path / "dicom", tmp_path / "c", positive=True)


def test_limit_is_seeded_and_keeps_the_order(some_set: Path, tmp_path: Path) -> None:
    everything = [row.source for row in make(some_set, tmp_path / "all").index]
    chosen = {}
    # Of RSNA only the headers of what is chosen are read: its series come as those do.
    ordered = not (some_set / "stage_2_train.csv").exists()
    for seed in range(4):
        rows = make(some_set, tmp_path / f"{seed}", limit=3, seed=seed).index
        chosen[seed] = [row.source for row in rows]
        assert set(chosen[seed]) <= set(everything)
        assert len(set(chosen[seed])) == 3
        assert not ordered or chosen[seed] == [s for s in everything if s in chosen[seed]]
    assert len({tuple(sources) for sources in chosen.values()}) > 1
    again = make(some_set, tmp_path / "again", limit=3, seed=2)
    assert [row.source for row in again.index] == chosen[2]


@given(st.lists(st.text(max_size=4), unique=True), st.integers(1, 9), st.integers(0, 9))
def test_a_choice_of_a_choice_is_the_choice(names: list[str], limit: int, seed: int) -> None:
    once = choose(names, limit, seed)
    assert len(once) == min(limit, len(names))
    assert choose(once, limit, seed) == once
    assert sorted(choose(names[::-1], limit, seed)) == sorted(once)


@given(st.lists(st.integers(0, 200), min_size=1))
def test_parts_hold_every_unit_once_in_order(sizes: list[int]) -> None:
    units = [Unit(f"{i}", ("x",) * n) for i, n in enumerate(sizes)]
    parts = plan.Plan("dicom", {}, [], units, [], 0).parts()
    assert [unit for part in parts for unit in part] == units
    assert all(parts)
    assert all(len(p) == 1 or sum(len(u.files) or 64 for u in p) <= plan.FILES for p in parts)


def test_too_many_bad_files_stop_the_work(
    tmp_path: Path, head: Any, write_dicom: Callable[..., Path]
) -> None:
    """In the headers, and in the pixels where the headers were good."""
    for k in range(40):
        write_dicom(tmp_path / "set" / f"{k:02}.dcm", head(8).astype(np.int16), z=float(k))
    paths = sorted((tmp_path / "set").iterdir())
    for cut in (-1, -900):
        for path in paths[10:31]:
            path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(DataError, match=r"too many unreadable files.* 21 not read"):
            make(tmp_path / "set", tmp_path / f"{-cut}", size=4)


# Killed and resumed


class Killed(BaseException):
    """Passes by every handler, as a SIGKILL would."""


@pytest.fixture
def die_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Arms the n-th step that reaches the disk, counted from now."""
    left = [0]

    def before(name: str) -> None:
        original = getattr(os, name)

        def step(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return original(*arguments, **options)

        monkeypatch.setattr(os, name, step)

    for name in ("fsync", "replace", "rename", "rmdir"):
        before(name)

    def arm(n: int) -> None:
        left[0] = n

    yield arm
    left[0] = 0


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


@pytest.fixture(scope="module")
def larger_set(tmp_path_factory: pytest.TempPathFactory, make_dicom: Callable[..., Any]) -> Path:
    """40 series of 20 slices, and one bad file."""
    root = tmp_path_factory.mktemp("larger")
    pixels = np.random.default_rng(0).integers(-1000, 2000, (64, 64)).astype(np.int16)
    for series in range(40):
        for k in range(20):
            uid, z = f"1.2.{series}", 5.0 * k
            dataset = make_dicom(np.roll(pixels, 20 * series + k), z, SeriesInstanceUID=uid)
            dataset.save_as(root / f"{series:02}-{k:02}.dcm", enforce_file_format=True)
    (root / "zz.dcm").write_bytes(b"\0" * 200)
    return root


def start(root: Path, out: Path, *more: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ichfast.prepare", str(root), "--out", str(out), *more],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def kill_at_random_moments(root: Path, tmp_path: Path, kills: int) -> None:
    options = ("--size", "32", "--workers", "2")
    undisturbed = start(root, tmp_path / "undisturbed", *options)
    assert undisturbed.wait() == 1, undisturbed.stderr
    expected = contents(tmp_path / "undisturbed")
    choice, out, landed = random.Random(1), tmp_path / "out", []
    for _ in range(kills):
        process = start(root, out, *options)
        parts, work = tmp_path / "out.partial" / "parts", tmp_path / "out.partial"
        before = len(list(parts.glob("*.json"))) if parts.exists() else 0
        # Until one more part, two more, ... is there, or the pool is being put together; and then
        # a little longer.
        wanted = before + choice.choice([0, 0, 1, 1, 2, 99])
        while process.poll() is None and not out.exists():
            there = len(list(parts.glob("*.json"))) if parts.exists() else 0
            if (work.exists() and there >= wanted) or (work / "pool").exists():
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


# Going on is refused where it would not be the same work


def stop_half_way(root: Path, out: Path, die_at: Callable[[int], None]) -> None:
    die_at(13)  # three steps for the plan, nine for the first part
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
    victim = next(path for path in sorted(some_set.rglob("*")) if path.suffix in (".nii", ".dcm"))
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
    with pytest.raises(OutputError, match="of other files than"):
        make(some_set, out)


def test_another_version_and_damage_are_refused_or_mended(
    some_set: Path, tmp_path: Path, small_parts: None, die_at: Callable[[int], None]
) -> None:
    out, work = tmp_path / "pool", tmp_path / "pool.partial"
    expected = contents(make(some_set, tmp_path / "undisturbed").path)
    stop_half_way(some_set, out, die_at)
    first = next((work / "parts").glob("*.images"))
    first.write_bytes(first.read_bytes()[:-1])  # a part that the disk lost some of is made again
    text = (work / "plan.jsonl").read_text()
    for changed in (text.replace('"ichfast": "', '"ichfast": "9'), text[:-30], "", "{}\n"):
        (work / "plan.jsonl").write_text(changed)
        with pytest.raises(OutputError, match=r"plan\.jsonl .*; delete .* and start again"):
            make(some_set, out)
    (work / "plan.jsonl").write_text(text)
    assert contents(make(some_set, out).path) == expected


# Bad input


def test_bad_files_are_listed_and_the_others_are_unharmed(
    tmp_path: Path, larger_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "set"
    shutil.copytree(larger_set, root, ignore=shutil.ignore_patterns("[1-3]*"))
    (root / "00-03.dcm").write_bytes((root / "00-03.dcm").read_bytes()[:-100])
    arguments = [str(root), "--out", str(tmp_path / "pool"), "--size", "16", "--workers", "1"]
    assert prepare.main(arguments) == 1
    assert "2 not read" in capsys.readouterr().out
    pool = Pool(tmp_path / "pool")
    assert len(pool) == 199
    assert {p.source: p.skip for p in pool.problems.items} == {"00-03.dcm": False, "zz.dcm": False}
    reasons = {p.source: p.reason for p in pool.problems.items}
    assert "truncated" in reasons["00-03.dcm"]
    assert prepare.main(arguments) == 1  # there already: the same is said again


def test_scans_without_masks_are_bad_and_masks_without_scans_are_told_once(
    tmp_path: Path, write_ct_ich: Callable[..., Path]
) -> None:
    root = write_ct_ich(tmp_path / "set", patients=4)
    (root / "masks" / "049.nii").unlink()
    (root / "ct_scans" / "050.nii").unlink()
    pool = make(root, tmp_path / "pool")
    assert [p.source for p in pool.problems.items] == ["masks/050.nii", "ct_scans/049.nii"]
    assert pool.patients == 2


def test_scans_that_are_not_square_or_not_finite_are_left_out(
    tmp_path: Path, write_dicom: Callable[..., Path]
) -> None:
    root = tmp_path / "set"
    pixels = np.tile(np.array([0, 2], np.int16), (8, 4))  # one value all over is no picture
    write_dicom(root / "a.dcm", pixels[:, :4], SeriesInstanceUID="1.1")
    write_dicom(root / "b.dcm", pixels, SeriesInstanceUID="1.2", RescaleSlope="1e300")
    write_dicom(root / "c.dcm", pixels, SeriesInstanceUID="1.3")
    pool = make(root, tmp_path / "pool", size=4)
    assert [row.source for row in pool.index] == ["c.dcm"]
    assert (pool.images == 1).all()
    assert [p.source for p in pool.problems.items if not p.skip] == ["a.dcm", "b.dcm"]


def test_a_set_of_bad_files_is_refused(tmp_path: Path, some_set: Path) -> None:
    for path in some_set.rglob("*.*"):
        if path.suffix in (".dcm", ".nii"):
            path.write_bytes(b"")
    with pytest.raises(DataError, match=r"nothing could be read|not one slice|no data set"):
        make(some_set, tmp_path / "pool")
    assert not (tmp_path / "pool").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size is 0; it must be at least 1"),
        ({"size": 5000}, "size is 5000; it must be at most 4096"),
        ({"limit": 0}, "limit is 0"),
        ({"workers": 0}, "workers is 0"),
        ({"rank": 2, "world": 2}, "rank is 2; of 2 processes"),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(tmp_path, tmp_path / "pool", **options)


def test_folders_in_the_way(tmp_path: Path, some_set: Path) -> None:
    with pytest.raises(OutputError, match="lies inside the set"):
        make(some_set, some_set / "pool")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").touch()
    with pytest.raises(OutputError, match="in the way and no pool"):
        make(some_set, tmp_path / "full")
    (tmp_path / "pool.partial").mkdir()
    (tmp_path / "pool.partial" / "notes").touch()
    with pytest.raises(OutputError, match=r"holds other things \(notes\)"):
        make(some_set, tmp_path / "pool")
    (tmp_path / "empty").mkdir()
    make(some_set, tmp_path / "empty")
    with pytest.raises(DataError, match="no such folder"):
        make(tmp_path / "nowhere", tmp_path / "else")


def test_one_at_a_time(some_set: Path, tmp_path: Path) -> None:
    work = tmp_path / "pool.partial"
    work.mkdir()
    with durable.held(work / ".lock-0"), pytest.raises(OutputError, match="in use by another"):
        make(some_set, tmp_path / "pool")


def test_the_command_says_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(tmp_path / "nowhere"), "--out", str(tmp_path / "pool")]
    assert prepare.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setenv("RANK", "first")
    assert prepare.main(arguments) == 2
    assert "RANK is 'first'" in capsys.readouterr().err


# A disk that fills


def test_a_full_disk_keeps_what_is_done(
    some_set: Path, tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = contents(make(some_set, tmp_path / "undisturbed").path)
    out, original = tmp_path / "pool", os.fsync
    for n in (1, 3, 8, 8, 2):  # at the plan, in a part, in another, in the assembly
        left = [n]

        def full(handle: int, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            original(handle)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left on device"):
            make(some_set, out)
        assert not out.exists()
    assert list((tmp_path / "pool.partial" / "parts").glob("*.json"))
    with pytest.raises(OutputError, match=r"About .* MiB are needed there.*what is done is kept"):
        make(some_set, out)
    monkeypatch.setattr(os, "fsync", original)
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
    done = {path.name: path.stat().st_mtime_ns for path in tiny_disk.glob("*/parts/*.json")}
    assert done
    pool = make(larger_set, tiny_disk / "pool", size=32)
    assert contents(pool.path) == contents(make(larger_set, tmp_path / "pool", size=32).path)


# Several processes


def test_two_processes_share_the_work(larger_set: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "pool", ("--size", "16", "--workers", "1")
    processes = [
        start(larger_set, out, *options, RANK=str(rank), WORLD_SIZE="2") for rank in (1, 0)
    ]
    texts = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 1], texts
    assert "800 slices" in texts[1][0]
    assert contents(out) == contents(make(larger_set, tmp_path / "alone").path)


def test_ranks_wait_and_say_for_whom(
    some_set: Path, tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "POLL", 0.01)
    out = tmp_path / "pool"
    with pytest.raises(OutputError, match="does rank 0 run"):
        make(some_set, out, rank=1, world=2, timeout=0.05)
    with pytest.raises(OutputError, match=r"parts are missing.* processes with RANK 1 run"):
        make(some_set, out, rank=0, world=2, timeout=0.05)
    assert prepare_pool(some_set, out, size=16, workers=1, rank=1, world=2) is None
    assert len(make(some_set, out, rank=0, world=2)) > 0
    assert prepare_pool(some_set, out, size=16, workers=1, rank=1, world=2) is None


def test_pool_json_names_what_defines_the_pool(some_set: Path, tmp_path: Path) -> None:
    make(some_set, tmp_path / "pool", limit=2, seed=3)
    content = json.loads((tmp_path / "pool" / "pool.json").read_text())
    assert content["arguments"] == {"size": 16, "positive_only": False, "limit": 2, "seed": 3}
    assert str(tmp_path) not in json.dumps(content)
