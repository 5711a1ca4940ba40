"""From a set to a pool: what is in it, bad input, several processes."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from preparing import contents, make, start
from published import ct_ich_100

from ichfast import prepare
from ichfast.data import Pool, Problems, load_slices, read_series
from ichfast.data.layouts.base import Unit
from ichfast.data.prepare import assemble, job, plan, prepare_pool
from ichfast.data.resize import resize_hu
from ichfast.data.sampling import choose
from ichfast.data.series import Series
from ichfast.errors import DataError, OutputError
from ichfast.files import lock

WINDOW = (40.0, 80.0)


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
    k = hu.shape[1] // 16
    average = hu.clip(-1024, 3071).reshape(len(hu), 16, k, 16, k).mean((2, 4))
    assert np.abs(pool.images - average).max() <= 0.5 + 1e-3  # pictures have no whole HU
    known = [scan.subtypes is not None for scan in scans for _ in scan.sources]
    assert [row.subtypes is not None for row in pool.index] == known


def test_agrees_with_the_training_path(some_set: Path, tmp_path: Path) -> None:
    """The same pixels, masks and batches from the pool as from the files."""
    pool = make(some_set, tmp_path / "pool", size=12)  # 32 / 12: fractions of pixels
    labelled = pool.masks is not None
    slices, _ = load_slices(some_set, size=12, window=WINDOW, labelled=labelled, progress=False)
    mapped, _ = load_slices(pool.path, size=12, window=WINDOW, labelled=labelled, progress=False)
    assert torch.equal(pool.tensor(), slices.hu[slices.rows])
    assert mapped.sources == slices.sources
    assert mapped.subtypes == slices.subtypes
    every = torch.arange(len(slices))
    for one, other in zip(mapped.batch(every), slices.batch(every), strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


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


def test_what_pictures_have_lost_is_said(tmp_path: Path, write_ct_ich: Any) -> None:
    pool = make(ct_ich_100(tmp_path / "pictures"), tmp_path / "a")
    assert pool.hu_range == (-20, 100)
    assert all(row.spacing is None for row in pool.index)
    assert make(write_ct_ich(tmp_path / "scans"), tmp_path / "b").hu_range is None


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
    with pytest.raises(DataError, match="'dicom' has no labels"):
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
    units = [Unit(f"{i}", ("x",) * n, (), n) for i, n in enumerate(sizes)]
    parts = plan.PoolPlan("dicom", {}, [], units, [], 0).parts()
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


def test_slices_of_dicom_are_written_once(
    tmp_path: Path, write_rsna: Any, larger_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where files are cut short, which is known beforehand."""
    monkeypatch.setattr(assemble, "_move", None)
    assert len(make(write_rsna(tmp_path / "rsna"), tmp_path / "a")) > 0
    whole, root = make(larger_set, tmp_path / "b"), tmp_path / "set"
    shutil.copytree(larger_set, root)
    cut = ("05-00.dcm", "20-07.dcm")
    for name in cut:
        (root / name).write_bytes((root / name).read_bytes()[:-100])
    kept = [i for i, row in enumerate(whole.index) if row.source not in cut]
    pool = make(root, tmp_path / "c")
    assert len(pool) == 798
    assert np.array_equal(pool.images, whole.images[kept])


@pytest.mark.parametrize("twice", [["05-01", "20-07", "39-19"], ["39-19"]])
def test_where_slices_drop_out_the_others_close_up(
    tmp_path: Path, larger_set: Path, twice: list[str]
) -> None:
    """Within parts, and at the very end."""
    root = tmp_path / "set"
    shutil.copytree(larger_set, root)
    for name in twice:
        shutil.copy(root / f"{name[:3]}{int(name[3:]) - 1:02}.dcm", root / f"{name}.dcm")
    pools = [make(root, tmp_path / f"{workers}", workers=workers) for workers in (1, 2)]
    assert contents(pools[0].path) == contents(pools[1].path)
    pools[0].verify()
    whole = make(larger_set, tmp_path / "whole")
    kept = [i for i, row in enumerate(whole.index) if row.source[:5] not in twice]
    assert len(kept) == 800 - len(twice)
    assert np.array_equal(pools[0].images, whole.images[kept])


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


def test_scans_without_masks_and_masks_without_scans_are_told_once(
    tmp_path: Path, write_ct_ich: Callable[..., Path]
) -> None:
    root = write_ct_ich(tmp_path / "set", patients=4)
    (root / "masks" / "049.nii").unlink()
    (root / "ct_scans" / "050.nii").unlink()
    pool = make(root, tmp_path / "pool")
    assert [p.source for p in pool.problems.items] == ["masks/050.nii", "ct_scans/049.nii"]
    assert [p.skip for p in pool.problems.items] == [False, True]
    assert pool.patients == 3
    # By the table, the first scan's third slice is the one with haemorrhage.
    assert [row.has_mask for row in pool.index] == [True, True, False, True] + [True] * 8
    pool.verify()


def test_scans_that_are_not_square_or_not_finite_are_left_out(
    tmp_path: Path, head: Any, write_dicom: Callable[..., Path]
) -> None:
    root, pixels = tmp_path / "set", head(8).astype(np.int16)
    write_dicom(root / "a.dcm", pixels[:, :4], SeriesInstanceUID="1.1")
    write_dicom(root / "b.dcm", pixels, SeriesInstanceUID="1.2", RescaleSlope="1e300")
    write_dicom(root / "c.dcm", pixels, SeriesInstanceUID="1.3")
    pool = make(root, tmp_path / "pool", size=8)
    assert [row.source for row in pool.index] == ["c.dcm"]
    assert np.array_equal(pool.images[0], pixels)
    assert sorted(p.source for p in pool.problems.items if not p.skip) == ["a.dcm", "b.dcm"]


def test_hu_beyond_float32_are_refused() -> None:
    scan = Series(
        np.ones((1, 4, 4), np.int16), np.array([1e300]), np.array([-1e300]), None, None, "", "", "",
        np.zeros(1), (1.0, 1.0), 0.0, ("",),
    )  # fmt: skip
    with pytest.raises(DataError, match="not finite"):
        resize_hu(scan, np.array([0]), 2)


def test_a_set_of_bad_files_is_refused(tmp_path: Path, some_set: Path) -> None:
    for path in some_set.rglob("*.*"):
        if path.suffix in (".dcm", ".nii", ".gz", ".jpg"):
            path.write_bytes(b"")
    with pytest.raises(DataError, match=r"nothing could be read|no slice for the pool|no data set"):
        make(some_set, tmp_path / "pool")
    assert not (tmp_path / "pool").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size is 0; it must be at least 1"),
        ({"size": 5000}, "size is 5000; it must be at most 4096"),
        ({"limit": 0}, "limit is 0"),
        ({"workers": 0}, "workers is 0"),
        ({"rank": 2, "world": 2}, "rank is 2; with 2 processes"),
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
    with pytest.raises(OutputError, match="exists and is not a pool"):
        make(some_set, tmp_path / "full")
    (tmp_path / "pool.partial").mkdir()
    (tmp_path / "pool.partial" / "notes").touch()
    with pytest.raises(OutputError, match=r"holds other files \(notes\)"):
        make(some_set, tmp_path / "pool")
    (tmp_path / "empty").mkdir()
    make(some_set, tmp_path / "empty")
    with pytest.raises(DataError, match="no such folder"):
        make(tmp_path / "nowhere", tmp_path / "else")


def test_one_at_a_time(some_set: Path, tmp_path: Path) -> None:
    work = tmp_path / "pool.partial"
    work.mkdir()
    with (
        lock(work / ".lock-0"),
        pytest.raises(OutputError, match=f"in use by process {os.getpid()}"),
    ):
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
    with pytest.raises(OutputError, match="is rank 0 running"):
        make(some_set, out, rank=1, world=2, timeout=0.05)
    with pytest.raises(OutputError, match=r"parts are missing.* processes with RANK 1 running"):
        make(some_set, out, rank=0, world=2, timeout=0.05)
    assert prepare_pool(some_set, out, size=16, workers=1, rank=1, world=2) is None
    assert len(make(some_set, out, rank=0, world=2)) > 0
    assert prepare_pool(some_set, out, size=16, workers=1, rank=1, world=2) is None


def test_pool_json_names_what_defines_the_pool(some_set: Path, tmp_path: Path) -> None:
    make(some_set, tmp_path / "pool", limit=2, seed=3)
    content = json.loads((tmp_path / "pool" / "pool.json").read_text())
    assert content["arguments"] == {"size": 16, "positive_only": False, "limit": 2, "seed": 3}
    assert str(tmp_path) not in json.dumps(content)
