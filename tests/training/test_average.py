"""The weights a run ends with: the best epoch's, the last, or their moving average."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import log_of, parts, same, state_of, tiny

from ichfast import models
from ichfast.training import RunFolder, finish, loop, run
from ichfast.training.steps import MovingAverage

ADAM = ("training.strategy=supervised", "supervised.optimizer=adam", "adam.learning_rate=0.01")
CPU = torch.device("cpu")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(models.load(folder / "model.safetensors").state_dict())


def test_it_is_the_plain_mean_at_first_and_moves_then() -> None:
    source, average = (models.build("unet", (2, 3), seed) for seed in (0, 1))
    name = next(iter(average.state_dict()))
    moving = MovingAverage(average, source, 0.75)
    seen = [average.state_dict()[name].clone()]
    for update in range(1, 8):
        with torch.no_grad():
            for value in source.state_dict().values():
                value.add_(update)
        moving.update()
        seen.append(source.state_dict()[name].clone())
        if update < 4:  # 1 − 1/4 = 0.75
            torch.testing.assert_close(average.state_dict()[name], torch.stack(seen).mean(0))
            expected = torch.stack(seen).mean(0)
        else:
            expected = 0.75 * expected + 0.25 * seen[-1]
            torch.testing.assert_close(average.state_dict()[name], expected)
    counts = [key for key in average.state_dict() if key.endswith("num_batches_tracked")]
    assert all(average.state_dict()[key].equal(source.state_dict()[key]) for key in counts)
    statistics = average.state_dict()[counts[0].replace("num_batches_tracked", "running_mean")]
    # 1, 3, 6, …, 28, averaged as the weights are, from 0
    torch.testing.assert_close(statistics, torch.full_like(statistics, 14.892578125))


@pytest.mark.parametrize("select", ["last", "ema"])
@pytest.mark.parametrize("settings", [(), ADAM], ids=["curriculum lbfgs", "supervised adam"])
def test_what_is_selected_changes_the_result_and_not_the_training(
    select: str, settings: tuple[str, ...], start, tmp_path
) -> None:
    start(tmp_path / "best", *settings)
    metrics = start(tmp_path / select, *settings, f"training.select={select}", "training.ema=0.6")
    best, other = (state_of(tmp_path / name) for name in ("best", select))
    assert same(best["model"], other["model"])
    assert same(best["steps"], other["steps"])
    logs = [log_of(tmp_path / name) for name in ("best", select)]
    assert [line["loss"] for line in logs[0]] == [line["loss"] for line in logs[1]]
    assert metrics["best_epoch"] is None
    # Scores are those of the weights that the run would end with.
    last = logs[1][-1]["validation"]["dice"]
    assert metrics["validation"]["dice"]["pooled"] == last
    if select == "last":
        assert same(weights(tmp_path / "last"), dict(other["model"]))
        assert [line["validation"] for line in logs[0]] == [line["validation"] for line in logs[1]]
    else:
        assert same(weights(tmp_path / "ema"), other["progress"]["kept"])
        assert not same(weights(tmp_path / "ema"), dict(other["model"]))


def test_the_average_is_over_updates(start, tmp_path, monkeypatch) -> None:
    seen: list[torch.Tensor] = []
    update = MovingAverage.update

    def watched(self: MovingAverage) -> None:
        if not seen:
            seen.append(flat(self.average))
        seen.append(flat(self.source))
        update(self)

    def flat(model: torch.nn.Module) -> torch.Tensor:
        return torch.cat([p.detach().double().flatten() for p in model.parameters()])

    with monkeypatch.context() as patch:
        patch.setattr(MovingAverage, "update", watched)
        start(tmp_path / "run", *ADAM, "training.select=ema", "training.ema=0.9")
    assert len(seen) == 1 + 6 * 3  # the start, and 6 epochs of 7 slices in batches of up to 3
    expected = seen[0]
    for i, value in enumerate(seen[1:], start=1):
        keep = min(1 - 1 / (i + 1), 0.9)
        expected = keep * expected + (1 - keep) * value
    found = flat(models.load(tmp_path / "run" / "model.safetensors"))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert state_of(tmp_path / "run")["updates"] == 18


@pytest.mark.parametrize("settings", [(), ("training.turn=step", "supervised.optimizer=adam")])
def test_statistics_are_those_of_the_averaged_weights(settings, start, tmp_path) -> None:
    start(tmp_path / "run", *settings, "training.select=ema", "supervised.batch_size=7")
    model = models.load(tmp_path / "run" / "model.safetensors")
    first, norm = model.encoder.levels[0][:2]
    features = first(parts().train.batch(torch.arange(7))[0])
    torch.testing.assert_close(norm.running_mean, features.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, features.var((0, 2, 3)))


@pytest.mark.parametrize("select", ["last", "ema"])
def test_a_run_without_validation(select: str, start, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        "tiny_runs.parts", lambda: replace(parts(), validation=parts().validation.select([]))
    )
    settings = (f"training.select={select}", "data.validation=0", "data.train=0.4")
    metrics = start(tmp_path / "run", *settings)
    assert metrics["status"] == "finished"
    assert metrics["validation"] is None
    assert metrics["test"]["dice"]["pooled"] is not None
    assert all(line["validation"] is None for line in log_of(tmp_path / "run"))
    monkeypatch.undo()
    start(tmp_path / "with", f"training.select={select}")
    assert same(weights(tmp_path / "run"), weights(tmp_path / "with"))


@pytest.mark.parametrize("select", ["last", "ema"])
def test_a_stopped_run_is_finished_by_the_weights_it_would_end_with(
    select: str, start, tmp_path
) -> None:
    settings = (*ADAM, f"training.select={select}", "training.ema=0.6")
    start(tmp_path / "short", *settings, "training.epochs=2")
    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patch:
        real = loop.check_divergence

        def fail(model, progress, *rest) -> None:
            if progress.epochs == 2:
                raise KeyboardInterrupt
            real(model, progress, *rest)

        patch.setattr(loop, "check_divergence", fail)
        with (
            pytest.raises(KeyboardInterrupt),
            RunFolder(tmp_path / "long", resume=False) as held,
        ):
            run(tiny(*settings), held, CPU, parts())
    assert same(weights(tmp_path / "long"), weights(tmp_path / "short"))
    with RunFolder(tmp_path / "long", resume=True) as held:
        metrics = finish(tiny(*settings), held, CPU, parts())
    short = json.loads((tmp_path / "short" / "metrics.json").read_text())
    assert metrics["test"] == short["test"]
    assert same(weights(tmp_path / "long"), weights(tmp_path / "short"))


@pytest.mark.parametrize(
    "settings",
    [
        ("supervised.optimizer=adam",),
        ("augmentation.rotation=20",),
        ("training.strategy=cps", "supervised.optimizer=adam"),
    ],
    ids=["curriculum adam", "curriculum lbfgs", "cps"],
)
def test_whose_statistics_changes_no_weight(settings, start, tmp_path) -> None:
    for whose in ("labelled", "running"):
        start(tmp_path / whose, *settings, f"training.statistics={whose}")
    models_of = [state_of(tmp_path / whose)["model"] for whose in ("labelled", "running")]
    for name, value in models_of[0].items():
        if "running" not in name and "num_batches" not in name:
            assert value.equal(models_of[1][name]), name
    names = [name for name in models_of[0] if name.startswith("encoder") and "running" in name]
    assert any(not models_of[0][name].equal(models_of[1][name]) for name in names)
