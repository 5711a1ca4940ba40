"""Exactness: a run that is stopped in whatever way and resumed ends where one left alone ends."""

import io
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from team_runs import signals
from tiny_runs import log_of, same, state_of, tiny

from ichfast import files, models
from ichfast.errors import CheckpointError, OutputError
from ichfast.files import PARTIAL
from ichfast.team import Team
from ichfast.training import RunFolder, checkpoint, loop, run
from ichfast.training.checkpoint import Progress, find_spanned
from ichfast.training.strategy import make_strategy

ADAM = ("supervised.optimizer=adam",)
STRONG = (
    "strong.level=20",
    "strong.width=1.2",
    "strong.gamma=1.3",
    "strong.blur=1",
    "strong.cutmix=0.7",
)
VIEWS = (
    "augmentation.flip=0.5",
    "augmentation.gamma=1.3",
    "augmentation.blur=1",
    "augmentation.noise=20",
    "augmentation.paste=0.5",
    "augmentation.paste_shift=0.1",
)
KINDS = {
    "supervised lbfgs": ("training.strategy=supervised",),
    "supervised adam": ("training.strategy=supervised", *ADAM),
    "views lbfgs": ("training.strategy=supervised", *VIEWS),
    "views adam": ("training.strategy=supervised", *VIEWS, *ADAM),
    "curriculum lbfgs": (),
    "curriculum adam": ADAM,
    "curriculum, by step": ("training.turn=step", "curriculum.floor=0.2", *ADAM),
    "alternating lbfgs": ("training.strategy=alternating",),
    "alternating, by step": ("training.strategy=alternating", "training.turn=step", *ADAM),
    "pretrained": ("training.strategy=pretrained", "pretraining.epochs=4"),
    "joint": ("training.strategy=joint", *ADAM),
    "mean teacher": ("training.strategy=mean_teacher", "together.ramp=0", *ADAM),
    "cps": ("training.strategy=cps", "together.confidence=0.5", *STRONG, *ADAM),
    "pseudo label": ("training.strategy=pseudo_label", "together.confidence=0.5", *ADAM),
    "unimatch": (
        "training.strategy=unimatch",
        "together.confidence=0.5",
        "together.slice_labels=use",
        *STRONG,
        *ADAM,
    ),
    "paste negatives": ("training.strategy=paste_negatives", *VIEWS, *ADAM),
    "classic": ("training.strategy=supervised", "model.convolutions=2"),
    "tversky": ("training.strategy=supervised", "supervised.alpha=0.3", "supervised.beta=0.7"),
    "averaged lbfgs": ("training.select=ema", "training.ema=0.5"),
    "averaged, by step": ("training.turn=step", "training.select=ema", "training.ema=0.9", *ADAM),
    "drawn, decaying, averaged": (
        "training.strategy=supervised",
        "supervised.draws=5",
        "supervised.positive=1",
        "supervised.cross_entropy=1",
        "adam.decay=cosine",
        "training.select=ema",
        "training.ema=0.9",
        *ADAM,
    ),
    "last, running, unequal": (
        "training.select=last",
        "training.statistics=running",
        "supervised.batch_size=4",
        "unsupervised.batch_size=2",
        "unsupervised.ratio=1.5",
        "unsupervised.learning_rate=0.01",
        *ADAM,
    ),
}


# Forks a process that has imported what takes long, and done nothing else.
FROM_IMPORTS = multiprocessing.get_context("forkserver")
FROM_IMPORTS.set_forkserver_preload(["ichfast.training", "torch._dynamo"])


def assert_same_end(one: Path, other: Path) -> None:
    assert same(state_of(one), state_of(other))
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    logs = [[line | {"seconds": 0} for line in log_of(folder)] for folder in (one, other)]
    assert logs[0] == logs[1]
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (one, other)]
    assert metrics[0]["test"] == metrics[1]["test"]


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_train_6_equals_train_3_and_resume_3(settings, start, tmp_path) -> None:
    start(tmp_path / "whole", *settings)
    if find_spanned(tiny(*settings)):
        with signals([signal.SIGINT], epoch=3):
            start(tmp_path / "halves", *settings)
    else:
        start(tmp_path / "halves", *settings, "training.epochs=3")
    assert state_of(tmp_path / "halves")["progress"]["epochs"] == 3
    torch.manual_seed(99)  # the global generator must not matter
    start(tmp_path / "halves", *settings)
    assert_same_end(tmp_path / "whole", tmp_path / "halves")
    strategy = make_strategy(tiny(*settings))
    assert {line["step"] for line in log_of(tmp_path / "whole")} == set(strategy.steps)


def test_every_optimizer_s_state_is_in_the_checkpoint(start, tmp_path) -> None:
    start(tmp_path / "run")
    steps = state_of(tmp_path / "run")["steps"]
    assert len(steps["supervised"]["optimizer"]["state"][0]["old_dirs"]) > 0
    assert steps["unsupervised"]["optimizer"]["state"][0]["step"] > 0


def test_the_same_seed_gives_the_same_bits_and_another_does_not(start, tmp_path) -> None:
    start(tmp_path / "one")
    start(tmp_path / "two")
    start(tmp_path / "other", "training.seed=1")
    assert_same_end(tmp_path / "one", tmp_path / "two")
    assert not same(state_of(tmp_path / "one")["model"], state_of(tmp_path / "other")["model"])


def test_global_settings_are_left_as_they_were(start, tmp_path) -> None:
    def settings() -> list[object]:
        return [
            torch.get_rng_state(),
            torch.are_deterministic_algorithms_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
        ]

    before = settings()
    start(tmp_path / "run", "training.epochs=1")
    assert same(before, settings())


def killed_after(folder: Path, settings: Sequence[str], epochs: int, chance: random.Random) -> bool:
    """Whether a process that trained in the folder was still at it when, a moment after so many
    epochs were logged, it got SIGKILL. Not forked from this one: that forbids autograd, once
    threads use it."""
    child = FROM_IMPORTS.Process(target=tiny_runs.start, args=(folder, *settings))
    child.start()
    log = folder / "log.jsonl"
    while child.is_alive() and (not log.exists() or log.read_bytes().count(b"\n") < epochs):
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.01))
    child.kill()
    child.join()
    return child.exitcode == -signal.SIGKILL


def test_killed_at_random_moments_and_resumed(start, tmp_path) -> None:
    settings = ["training.epochs=30", "training.checkpoint_every=2"]
    start(tmp_path / "whole", *settings)
    killed = tmp_path / "killed"
    chance = random.Random(0)
    kills = 0
    for goal in (1, 9, 18):
        kills += killed_after(killed, settings, goal + chance.randrange(5), chance)
    assert kills >= 2
    start(killed, *settings)
    assert_same_end(tmp_path / "whole", killed)
    assert not list(killed.glob(f"{PARTIAL}*"))


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_every_strategy_killed_and_resumed(settings, start, tmp_path) -> None:
    settings = (*settings, "training.epochs=12")
    start(tmp_path / "whole", *settings)
    killed = tmp_path / "killed"
    chance = random.Random(str(settings))
    assert killed_after(killed, settings, chance.randrange(1, 6), chance)
    start(killed, *settings)
    assert_same_end(tmp_path / "whole", killed)


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_former_checkpoint(failing, start, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "run"
    start(folder, "training.epochs=2")
    former = (folder / "checkpoint.pt").read_bytes()
    full = OSError(28, "No space left on device")

    def fail(*_: object) -> None:
        raise full

    class Torn(io.BufferedWriter):
        def write(self, data) -> int:
            super().write(data[:100])
            fail()

    def open_torn(path: Path | int, mode: str):  # a number: the log, opened already
        torn = isinstance(path, Path) and "checkpoint" in path.name
        return Torn(io.FileIO(path, mode)) if torn else open(path, mode)

    with monkeypatch.context() as patch:
        if failing == "write":
            patch.setattr(files, "open", open_torn, raising=False)
        else:
            real = getattr(os, failing)

            def only_checkpoints(*arguments) -> None:
                if list(folder.glob(f"{PARTIAL}*.checkpoint.pt")):
                    fail()
                real(*arguments)

            patch.setattr(os, failing, only_checkpoints)
        with pytest.raises(OutputError, match=r"checkpoint\.pt could not be written: No space"):
            start(folder)
    assert (folder / "checkpoint.pt").read_bytes() == former
    assert not list(folder.glob(f"{PARTIAL}*"))
    start(folder)
    start(tmp_path / "whole")
    assert_same_end(tmp_path / "whole", folder)


def test_what_a_kill_left_half_written_goes(start, tmp_path) -> None:
    folder = tmp_path / "run"
    start(folder, "training.epochs=1")
    for name in ("checkpoint.pt", "report.html"):  # the report may be another process's work
        (folder / f"{PARTIAL}1.{name}").touch()
    neighbour = folder / "another-run" / f"{PARTIAL}1.checkpoint.pt"  # it may be training
    neighbour.parent.mkdir()
    neighbour.touch()
    with RunFolder(folder, resume=True):
        assert [path.name for path in folder.glob(f"{PARTIAL}*")] == [f"{PARTIAL}1.report.html"]
    assert neighbour.exists()


def test_resume_with_another_recipe(start, tmp_path) -> None:
    folder = tmp_path / "run"
    start(folder, "training.epochs=2")
    with pytest.raises(CheckpointError, match=r"curriculum\.k \(1\.0, now 2\.0\)"):
        start(folder, "training.epochs=2", "curriculum.k=2")
    with pytest.raises(CheckpointError, match=r"training\.epochs \(2, now 1\)"):
        start(folder, "training.epochs=1")
    assert "k = 1.0" in (folder / "recipe.toml").read_text()


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (("training.strategy=supervised", "adam.decay=cosine"), r"adam\.decay = cosine"),
        (("training.strategy=joint", "together.ramp=0.5"), r"together\.ramp = 0\.5"),
    ],
)
def test_more_epochs_where_a_key_spans_them(settings, key, start, tmp_path) -> None:
    start(tmp_path / "run", *settings, *ADAM, "training.epochs=2")
    with pytest.raises(CheckpointError, match=rf"cannot go on to 3 epochs: {key} follows"):
        start(tmp_path / "run", *settings, *ADAM, "training.epochs=3")
    start(tmp_path / "run", *settings, *ADAM, "training.epochs=2")


def test_resume_on_other_data(start, parts, tmp_path) -> None:
    folder = tmp_path / "run"
    start(folder, "training.epochs=1")
    other = replace(parts, test=parts.test.select([0, 1, 2]))
    with (
        pytest.raises(CheckpointError, match="the test slices are not those"),
        RunFolder(folder, resume=True) as held,
    ):
        run(tiny("training.epochs=1", "data.labelled=moved"), held, torch.device("cpu"), other)
    assert "moved" not in (folder / "recipe.toml").read_text()  # it can still be resumed


@pytest.mark.parametrize("damage", ["half", "foreign", "text", "empty", "no recipe"])
def test_a_checkpoint_that_is_not_ours(damage, start, tmp_path) -> None:
    folder = tmp_path / "run"
    start(folder, "training.epochs=1")
    path = folder / "checkpoint.pt"
    if damage == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "foreign":
        torch.save({"weights": torch.zeros(3)}, path)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "no recipe":
        content = torch.load(path, weights_only=True)
        torch.save({key: value for key, value in content.items() if key != "recipe"}, path)
    else:
        path.write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
        start(folder, "training.epochs=1")


def test_one_process_at_a_time(tmp_path) -> None:
    with (
        RunFolder(tmp_path / "run", resume=False),
        pytest.raises(OutputError, match=f"in use by process {os.getpid()}"),
        RunFolder(tmp_path / "run", resume=False),
    ):
        pass
    with RunFolder(tmp_path / "run", resume=False) as held:
        held.claim()
        (tmp_path / "run" / "model.safetensors").touch()
        with pytest.raises(OutputError, match="not empty"):  # somebody's weights
            held.claim()
        for name in ("recipe.toml", "log.jsonl"):  # killed before its first checkpoint
            (tmp_path / "run" / name).touch()
        held.claim()


def test_folders_that_are_not_free(start, tmp_path) -> None:
    start(tmp_path / "run", "training.epochs=1")
    with (
        RunFolder(tmp_path / "run", resume=False) as held,
        pytest.raises(OutputError, match="--resume"),
    ):
        held.claim()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.doc").touch()
    with (
        RunFolder(tmp_path / "other", resume=False) as held,
        pytest.raises(OutputError, match="not empty"),
    ):
        held.claim()
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match="could not be written"),
        RunFolder(tmp_path / "file", resume=False),
    ):
        pass
    with pytest.raises(CheckpointError, match=r"no recipe\.toml"):
        RunFolder(tmp_path / "nowhere", resume=True)


@contextmanager
def interrupted_in_epoch(epoch: int, update: int) -> Iterator[list[int]]:
    """Ctrl-C before this update of the epoch, or where L-BFGS adds up the gradients of a pass; the
    updates that come to pass in that epoch."""
    running, seen = 0, []
    sum_gradients, advance = Team.sum_gradients, Progress.advance

    def watch(team: Team, optimizer: torch.optim.Optimizer) -> None:
        if running == epoch:
            seen.append(len(seen))
            if len(seen) == update:
                os.kill(os.getpid(), signal.SIGINT)
        sum_gradients(team, optimizer)

    def count(progress: Progress, *rest: Any) -> None:
        nonlocal running
        advance(progress, *rest)
        running = progress.epochs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Team, "sum_gradients", watch)
        patch.setattr(Progress, "advance", count)
        yield seen


HALTED = (
    "curriculum lbfgs",
    "curriculum, by step",
    "pretrained",
    "mean teacher",
    "averaged lbfgs",
    "last, running, unequal",
)


@pytest.mark.parametrize("name", HALTED)
def test_ctrl_c_ends_with_the_update_and_saves_the_epoch_before(name, start, tmp_path) -> None:
    """Though nothing of it was on the disk."""
    settings = [*KINDS[name], "training.checkpoint_every=100"]
    with interrupted_in_epoch(3, update=1) as seen:
        metrics = start(tmp_path / "run", *settings)
    assert len(seen) == 1
    assert (metrics["status"], metrics["epochs"], metrics["test"]) == ("interrupted", 3, None)
    state = state_of(tmp_path / "run")
    assert state["progress"]["epochs"] == len(log_of(tmp_path / "run")) == 3
    kept = models.load(tmp_path / "run" / "model.safetensors")
    assert same(dict(kept.state_dict()), dict(state["progress"]["kept"] or state["model"]))
    start(tmp_path / "run", *settings)
    start(tmp_path / "whole", *settings)
    assert_same_end(tmp_path / "whole", tmp_path / "run")


def test_ctrl_c_before_the_first_epoch_is_over(start, tmp_path) -> None:
    with interrupted_in_epoch(0, update=2), pytest.raises(KeyboardInterrupt):
        start(tmp_path / "run", *ADAM)
    assert {file.name for file in (tmp_path / "run").iterdir()} == {".lock", "recipe.toml"}
    with RunFolder(tmp_path / "run", resume=False) as held:
        held.claim()
    start(tmp_path / "run", *ADAM)
    start(tmp_path / "whole", *ADAM)
    assert_same_end(tmp_path / "whole", tmp_path / "run")


def test_ctrl_c_while_it_is_validated(start, tmp_path) -> None:
    with signals([signal.SIGINT], epoch=2):
        metrics = start(tmp_path / "run", "training.checkpoint_every=2")
    assert metrics["epochs"] == state_of(tmp_path / "run")["progress"]["epochs"] == 2


def test_a_second_ctrl_c_stops_at_once() -> None:
    former = signal.getsignal(signal.SIGINT)
    with loop.catch_interrupts() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is former


def test_the_best_weights_are_those_of_the_best_validation(start, parts, tmp_path) -> None:
    metrics = start(tmp_path / "run", "training.epochs=8", "supervised.optimizer=adam")
    dice = [line["validation"]["dice"] for line in log_of(tmp_path / "run")]
    assert metrics["best_epoch"] == dice.index(max(dice))
    assert metrics["validation"]["dice"]["pooled"] == max(dice)
    model = models.load(tmp_path / "run" / "model.safetensors")
    assert same(dict(model.state_dict()), state_of(tmp_path / "run")["progress"]["kept"])


def test_checkpoints_load_without_pickled_code(start, tmp_path) -> None:
    start(tmp_path / "run", "training.epochs=1")
    with RunFolder(tmp_path / "run", resume=True) as held:
        content = checkpoint.read(held)
    assert content is not None
    assert content["format"] == checkpoint.FORMAT
