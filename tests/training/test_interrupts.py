"""Real processes that get signals, lose their terminal, or their parent."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_command import settings
from tiny_runs import log_of, state_of

from ichfast.training.parts import ensure_phantom
from ichfast.training.presets import PRESETS
from ichfast.training.recipe import apply_settings

ENDLESS = settings(
    "training.epochs=1000000",
    "training.checkpoint_every=1000000",
    "training.grace=1000000",  # it learns nothing, and may go on for long on a busy machine
    "data.slices=all",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the phantom of the runs."""
    root = tmp_path_factory.mktemp("runs")
    recipe = apply_settings(PRESETS["demo"], ENDLESS[1::2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ichfast.data.phantom.cohort.available_cores", lambda: 1)
        ensure_phantom(recipe.phantom, root)
    return root


def command(out: Path, *words: str, launcher: tuple[str, ...] = ()) -> list[str]:
    python = [sys.executable, *(launcher or ("-m",))]
    return [*python, "ichfast.train", "--out", str(out), "--threads", "1", *(words or ENDLESS)]


TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")


@contextmanager
def training(words: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """The process, once its run has come to the third epoch."""
    out = Path(words[words.index("--out") + 1])
    child = subprocess.Popen(words, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, **options)
    try:
        wait_for(lambda: count_epochs(out) > 2 or child.poll() is not None)
        yield child
    finally:
        child.kill()
        child.wait()


def count_epochs(out: Path) -> int:
    return len(log_of(out)) if (out / "log.jsonl").exists() else 0


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def assert_saved(out: Path) -> None:
    """Every epoch that was logged is in the checkpoint."""
    assert state_of(out)["progress"]["epochs"] == count_epochs(out) > 2
    assert json.loads((out / "metrics.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_saves_and_says_how_to_go_on(number: signal.Signals, runs: Path) -> None:
    out = runs / number.name
    with training(command(out), stderr=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.send_signal(number)
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 128 + number, errors
    assert f"resume with: python -m ichfast.train --resume {out}" in errors
    assert_saved(out)


def test_torchrun_passes_a_signal_on(runs: Path) -> None:
    out = runs / "torchrun"
    words = command(out, launcher=TWO)
    with training(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=60)
    resume = "resume with: torchrun (as before, 2 processes) -m ichfast.train --resume"
    assert errors.count(f"{resume} {out}") == 1
    assert_saved(out)


def test_a_signal_to_one_process_of_two_ends_both(runs: Path) -> None:
    """As a batch system sends it to the first of a job: they agree on the update."""
    out = runs / "one-of-two"
    words = command(out, launcher=TWO)
    with training(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        workers = list_children(child.pid)
        assert len(workers) == 2
        os.kill(workers[1], signal.SIGUSR1)
        _, errors = child.communicate(timeout=120)
    assert child.returncode != 0
    assert errors.count(f"-m ichfast.train --resume {out}") == 1
    assert_saved(out)


def list_children(pid: int) -> list[int]:
    """Those of a process that train."""
    names = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(name) for name in names if b"ichfast.train" in read_command(name)]


def read_command(pid: str) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGKILL])
def test_torchrun_itself_is_ended(number: signal.Signals, runs: Path) -> None:
    """It dies by these without a word to its processes."""
    out = runs / f"launcher-{number.name}"
    words = command(out, launcher=TWO)
    with training(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as child:
        child.send_signal(number)
        child.wait(60)
        wait_for(lambda: (out / "metrics.json").exists())
    assert_saved(out)


def test_a_closed_pipe_and_no_standard_error(runs: Path) -> None:
    """As ``train 2>&- | head -1``: nobody reads, and the next file must not take number 2."""
    out = runs / "closed"
    few = settings("training.epochs=3")
    reader, writer = os.pipe()
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command(out, *few)]
    child = subprocess.Popen(shell, stdout=writer)
    os.close(writer)
    os.close(reader)
    assert child.wait(120) == 0
    assert count_epochs(out) == 3
    assert json.loads((out / "metrics.json").read_text())["status"] == "finished"


@pytest.mark.parametrize("ignored", [True, False])
def test_a_closed_terminal(ignored: bool, runs: Path) -> None:
    """Where SIGHUP is ignored, as nohup does, the run goes on; else it ends as by any signal."""
    out = runs / f"terminal-{ignored}"
    master, slave = pty.openpty()
    trap = 'trap "" HUP; ' if ignored else ""
    words = ["setsid", "--ctty", "sh", "-c", f'{trap}exec "$@"', "sh", *command(out)]
    with training(words, stdin=slave, stdout=slave, stderr=slave) as child:
        os.close(slave)
        os.close(master)
        if ignored:
            seen = count_epochs(out)
            wait_for(lambda: count_epochs(out) > seen + 3)
            child.terminate()
        assert child.wait(60) == 128 + (signal.SIGTERM if ignored else signal.SIGHUP)
    assert_saved(out)


def test_ctrl_c_while_modules_are_imported(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "ichfast.train"], stderr=subprocess.PIPE, cwd=tmp_path, text=True
    )
    maps = Path(f"/proc/{child.pid}/maps")
    wait_for(lambda: "libtorch" in maps.read_text())
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGINT
    assert errors == ""
