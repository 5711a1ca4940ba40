"""Cells in worker processes: killed, stopped, out of room, and gone on with."""

import json
import signal
import subprocess
import sys
import time
from functools import cache
from multiprocessing import Pipe
from pathlib import Path

import pytest
from small_study import ADAM

from ichfast.data import load_slices
from ichfast.reproduce import cells, worker
from ichfast.reproduce.__main__ import main
from ichfast.reproduce.cells import Worker, run_cells
from ichfast.reproduce.plan import has_ended, make_plan
from ichfast.reproduce.studies import BASELINE, STUDIES
from ichfast.training.recipe import apply_settings, merge

TWO_ROWS = ("--only=scheme=50,row=supervised", "--only=scheme=50,row=curriculum")

STUDY = STUDIES["ct-ich"]
STUDY_ROWS = (
    "--preset=ct-ich",
    *(f"--set={setting}" for setting in ADAM),
    f"--only=protocol=own,scheme=20,fold=[01],seed=0,row={BASELINE}",
    f"--only=protocol=own,scheme=20,fold=[01],seed=0,row={STUDY.method}",
)


@pytest.fixture
def plan(phantom, small):
    folders = {
        "data.labelled": f"{phantom}/labelled",
        "data.unlabelled": f"{phantom}/unlabelled",
    }
    base = apply_settings(merge(STUDIES["demo"].recipe, folders | {"data.scheme": 80}), small)
    return make_plan(STUDIES["demo"], base, seeds=1)


def test_a_worker_that_dies_takes_one_cell_with_it(plan, tmp_path, monkeypatch) -> None:
    class Mortal(Worker):
        def give(self, cell) -> None:
            super().give(cell)
            if cell is chosen[0]:
                self.process.kill()

    monkeypatch.setattr(cells, "Worker", Mortal)
    chosen = plan.select("supervised", 50)
    reported: list[tuple[str, str]] = []
    outcome = run_cells(
        chosen, tmp_path, 1, lambda cell, *rest: reported.append((cell.path, rest[0]))
    )
    assert reported == [(chosen[0].path, "died"), (chosen[1].path, "finished")]
    assert outcome.ended == [chosen[1]]
    assert list(outcome.failed) == [chosen[0].path]
    assert "killed by signal 9" in outcome.failed[chosen[0].path]
    assert not outcome.interrupted
    assert has_ended(chosen[1], tmp_path)
    assert not has_ended(chosen[0], tmp_path)


class Answering:
    """A worker that only answers."""

    answers: dict[str, tuple[str, str]]

    def __init__(self, out: Path) -> None:
        self.pipe, self.theirs = Pipe()
        self.cell, self.since = None, 0.0

    def give(self, cell) -> None:
        self.cell = cell
        self.theirs.send(self.answers.get(cell.path, ("finished", "")))

    def await_answer(self):
        return self.pipe.recv()

    def end(self) -> None:
        self.pipe.close()


def test_a_failed_cell_leaves_the_others_and_a_full_disk_none(plan, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cells, "Worker", Answering)
    chosen = plan.select("supervised", 80)
    Answering.answers = {chosen[1].path: ("failed", "the test slices are not those")}
    outcome = run_cells(chosen, tmp_path, 2, lambda *_: None)
    assert (len(outcome.ended), list(outcome.failed)) == (4, [chosen[1].path])
    Answering.answers = {chosen[1].path: ("no output", "No space left on device")}
    outcome = run_cells(chosen, tmp_path, 1, lambda *_: None)
    assert (outcome.ended, list(outcome.failed)) == ([chosen[0]], [chosen[1].path])


def test_a_full_disk_in_words(plan, tmp_path, monkeypatch) -> None:
    load = cache(load_slices)
    one, other = plan.select("supervised", 50)
    assert worker.answer(one, tmp_path, load)[0] == "finished"
    kept = {file: file.read_bytes() for file in (tmp_path / one.path).iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        status, text = worker.answer(other, tmp_path, load)
    assert status == "no output"
    assert "recipe.toml could not be written: No space left on device. Make room" in text
    assert kept == {file: file.read_bytes() for file in (tmp_path / one.path).iterdir()}
    assert worker.answer(other, tmp_path, load)[0] == "finished"


def test_a_cell_whose_data_have_changed(plan, tmp_path) -> None:
    cell = plan.select("supervised", 50)[0]
    status, text = worker.answer(cell, tmp_path, lambda *_, **__: 1 / 0)
    assert status == "failed"
    assert "ZeroDivisionError" in text


@pytest.mark.parametrize("rows", [TWO_ROWS, STUDY_ROWS], ids=["demo", "ct-ich"])
@pytest.mark.usefixtures("alone")
def test_killed_stopped_and_gone_on_with(rows, words, tmp_path) -> None:
    """SIGKILL, then Ctrl-C, then to the end: the same files as of a table left alone."""
    more = [*rows, "--set=training.epochs=8", "--jobs=1"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = [sys.executable, "-m", "ichfast.reproduce", *words(broken, *more)]
    for sign, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        lines = epochs(broken)
        child = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        wait_for(lambda lines=lines: epochs(broken) > lines + 3 or child.poll() is not None)  # noqa: B023
        child.send_signal(sign)
        assert child.wait(300) == status
        wait_for(lambda: not in_use(broken))
    assert sum(ended(broken)) < 4
    assert main(words(broken, *more)) == 0
    assert main(words(whole, *more)) == 0
    assert sum(ended(broken)) == sum(ended(whole)) == 4
    for name in ("table1.json", "table1.md", "table1.html"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()


def epochs(out: Path) -> int:
    return sum(len(file.read_bytes().splitlines()) for file in out.rglob("log.jsonl"))


def ended(out: Path) -> list[bool]:
    files = [folder / "metrics.json" for folder in out.rglob("fold*/*-seed?")]
    return [
        file.exists() and json.loads(file.read_text())["status"] == "finished" for file in files
    ]


def in_use(out: Path) -> bool:
    """Whether a worker still holds a cell."""
    owners = [lock.read_text().strip() for lock in out.rglob("fold*/*/.lock")]
    return any(owner and Path(f"/proc/{owner}").exists() for owner in owners)


def wait_for(condition, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
