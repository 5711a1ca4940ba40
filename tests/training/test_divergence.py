"""A run that is ruined stops, says why, and keeps what was good."""

import json
import math

import pytest
import torch
from tiny_runs import log_of, parts, same, state_of, tiny

from ichfast import models
from ichfast.errors import CheckpointError, DivergedError
from ichfast.training import RunFolder, finish
from ichfast.training.checkpoint import Progress
from ichfast.training.loop import check_divergence
from ichfast.training.steps import EpochResult, supervised


def checked(
    loss: float, *settings: str, scale: float = 1.0, epochs: int = 9, lowest: float = 0.5
) -> None:
    model = models.build("unet", (2, 3), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    step = supervised.SupervisedAdam
    progress = Progress(start_norm=2.0, steps={"supervised": epochs}, lowest={"supervised": lowest})
    check_divergence(model, progress, tiny("training.divergence=100", *settings), step, loss)


def test_sound_epochs_pass() -> None:
    checked(0.5)
    checked(49.0)
    checked(1e9, epochs=4)  # within the grace
    checked(0.9, lowest=0.001)  # a bad epoch of a bounded loss
    checked(1.6, "supervised.cross_entropy=1", lowest=0.001)  # 1 + ln 2 is to know nothing


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_non_finite_loss(loss: float) -> None:
    with pytest.raises(DivergedError, match="the supervised loss is"):
        checked(loss)


def test_cross_entropy_has_no_bound() -> None:
    with pytest.raises(DivergedError, match="over 100"):
        checked(1.8, "supervised.cross_entropy=1", lowest=0.001)
    with pytest.raises(DivergedError, match="over 100"):
        checked(1.6, lowest=0.001)


def test_exploding_loss() -> None:
    with pytest.raises(DivergedError, match=r"loss 51 is over 100 × its best 0\.5"):
        checked(51.0)


@pytest.mark.parametrize("scale", [math.nan, math.inf])
def test_weights_that_are_not_finite_behind_a_bounded_loss(scale: float) -> None:
    with pytest.raises(DivergedError, match="no longer finite"):
        checked(0.9, scale=scale)


def test_exploding_weights_behind_a_bounded_loss() -> None:
    with pytest.raises(DivergedError, match="weights' norm"):
        checked(0.9, scale=1e5)


def test_a_diverged_run_keeps_its_last_good_checkpoint(start, tmp_path, monkeypatch) -> None:
    def run(self, epoch: int, *, moved: bool) -> EpochResult:
        outcome = sound(self, epoch, moved=moved)
        return EpochResult(math.nan, 1) if epoch == 3 else outcome

    sound = supervised.SupervisedAdam.run
    settings = ["training.strategy=supervised", "supervised.optimizer=adam"]
    start(tmp_path / "good", *settings, "training.epochs=3")
    with monkeypatch.context() as patch:
        patch.setattr(supervised.SupervisedAdam, "run", run)
        metrics = start(tmp_path / "bad", *settings)
    assert (metrics["status"], metrics["epochs"]) == ("diverged", 3)
    assert metrics["reason"] == "the supervised loss is nan"
    assert json.loads((tmp_path / "bad" / "metrics.json").read_text()) == metrics
    assert len(log_of(tmp_path / "bad")) == 3
    assert same(state_of(tmp_path / "bad")["model"], state_of(tmp_path / "good")["model"])
    good = json.loads((tmp_path / "good" / "metrics.json").read_text())
    assert metrics["test"] == good["test"]  # the best weights are still worth something


def test_a_diverged_run_is_not_finished_over_that(start, tmp_path, monkeypatch) -> None:
    start(tmp_path / "run", "training.strategy=supervised", "training.epochs=1")
    with monkeypatch.context() as patch:
        patch.setattr(supervised.SupervisedLBFGS, "run", lambda *_, **__: EpochResult(math.nan, 1))
        assert start(tmp_path / "run", "training.strategy=supervised")["status"] == "diverged"
    with (
        RunFolder(tmp_path / "run", resume=True) as held,
        pytest.raises(CheckpointError, match=r"has ended by itself \(diverged\)"),
    ):
        finish(tiny("training.strategy=supervised"), held, torch.device("cpu"), parts())


def test_finish_evaluates_a_diverged_run_that_was_not(start, tmp_path, monkeypatch) -> None:
    settings = ("training.strategy=supervised", "training.select=last")
    good = start(tmp_path / "good", *settings, "training.epochs=2")
    start(tmp_path / "run", *settings, "training.epochs=2")
    with monkeypatch.context() as patch:
        patch.setattr(supervised.SupervisedLBFGS, "run", lambda *_, **__: EpochResult(math.nan, 1))
        assert start(tmp_path / "run", *settings)["test"] is None
    with RunFolder(tmp_path / "run", resume=True) as held:
        metrics = finish(tiny(*settings), held, torch.device("cpu"), parts())
    assert (metrics["status"], metrics["reason"]) == ("diverged", "the supervised loss is nan")
    assert metrics["test"] == good["test"]


def test_a_run_that_diverges_before_any_validation(start, tmp_path, monkeypatch) -> None:
    def run(self, epoch: int, *, moved: bool) -> EpochResult:
        return EpochResult(math.inf, 1)

    monkeypatch.setattr(supervised.SupervisedLBFGS, "run", run)
    metrics = start(tmp_path / "run", "training.strategy=supervised")
    assert (metrics["status"], metrics["epochs"], metrics["test"]) == ("diverged", 0, None)
    assert not (tmp_path / "run" / "model.safetensors").exists()
