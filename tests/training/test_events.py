"""TensorBoard's files say what the log says, also where a run was killed and resumed."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import log_of, tiny

from ichfast import train
from ichfast.training import RunFolder, run
from ichfast.training.parts import Parts


def start(folder: Path, parts: Parts, *settings: str) -> None:
    with RunFolder(folder, resume=folder.exists(), tensorboard=True) as held:
        run(tiny(*settings), held, torch.device("cpu"), parts)


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    events = EventAccumulator(str(folder / "events"))
    events.Reload()
    return {
        tag: {event.step: event.value for event in events.Scalars(tag)}
        for tag in events.Tags()["scalars"]
    }


def expected(log: list[dict[str, Any]]) -> dict[str, dict[int, float]]:
    values: dict[str, dict[int, float]] = {}
    for line in log:
        values.setdefault(f"loss/{line['step']}", {})[line["epoch"]] = line["loss"]
        if line["validation"]:
            dice = line["validation"]["dice"]
            values.setdefault("validation/dice", {})[line["epoch"]] = dice
    return values


def test_the_same_as_the_log(parts, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "run"
    settings = ("training.checkpoint_every=2", "training.validate_every=2")
    real = RunFolder.log

    def dies(self: RunFolder, record: dict[str, Any]) -> None:
        real(self, record)
        if record["epoch"] == 4:  # after the checkpoint of the fourth epoch
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log", dies)
        with pytest.raises(KeyboardInterrupt):
            start(folder, parts, *settings)
    start(folder, parts, *settings, "training.epochs=8")
    seen, log = scalars(folder), log_of(folder)
    assert len(log) == 8
    for tag, values in expected(log).items():
        assert seen[tag] == pytest.approx(values, rel=1e-6), tag
    assert set(seen["seconds"]) == set(range(8))


def test_without_tensorboard(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.delitem(sys.modules, "ichfast.training.events", raising=False)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert train.main(["--tensorboard", "--out", str(tmp_path / "run")]) == 2
    assert "pip install tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
