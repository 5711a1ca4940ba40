"""The command: from a phantom to a report, and how it refuses."""

import json
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY, log_of

from ichfast import models, train
from ichfast.data.phantom import write_phantom
from ichfast.errors import IchfastError, RecipeError
from ichfast.models import compute
from ichfast.team import ALONE
from ichfast.training import PRESETS, parts, pipeline, recipe

PHANTOM = (
    "phantom.patients=9",
    "phantom.unlabelled=3",
    "phantom.slices=4",
    "phantom.size=64",
    "data.train=0.4",
    "data.validation=0.3",
    "data.test=0.3",
    "training.validate_every=1",
    "adam.decay=none",  # so that a run may be given more epochs
)
RUN_FILES = {
    "recipe.toml",
    "log.jsonl",
    "metrics.json",
    "slices.json",
    "model.safetensors",
    "examples.safetensors",
    "examples.html",
    "checkpoint.pt",
    "report.html",
}


def settings(*more: str) -> list[str]:
    return [word for setting in (*TINY, *PHANTOM, *more) for word in ("--set", setting)]


@pytest.fixture(autouse=True)
def phantom_in_this_process(monkeypatch) -> None:
    """No worker processes for a handful of slices."""

    def alone(out: Path, **parameters) -> None:
        write_phantom(out, **parameters, progress=False, workers=1)

    monkeypatch.setattr("ichfast.data.phantom.write_phantom", alone)


def test_from_phantom_to_report_and_on(tmp_path, capsys) -> None:
    out = tmp_path / "run"
    assert train.main(["--out", str(out), *settings("training.epochs=2")]) == 0
    printed = capsys.readouterr().out
    assert "test: " in printed
    assert "report: " in printed
    assert {file.name for file in out.iterdir()} - {".lock"} == RUN_FILES
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["status"], metrics["strategy"], metrics["epochs"]) == (
        "finished",
        "curriculum",
        2,
    )
    assert sum(metrics["steps"].values()) == 2
    assert metrics["data"]["test"]["slices"] == metrics["test"]["n_slices"]
    assert models.load(out / "model.safetensors").kind == "multitask"
    assert len(list(tmp_path.glob("phantom-*"))) == 1

    again = ["--resume", str(out), "--set", "training.epochs=3"]
    assert train.main(again) == 0
    assert [line["epoch"] for line in log_of(out)] == [0, 1, 2]
    assert "epochs = 3" in (out / "recipe.toml").read_text()

    assert train.main(["--out", str(out), *settings()]) == 2
    assert "--resume" in capsys.readouterr().err


def test_unlabelled_alone_stands_beside_the_phantom(tmp_path) -> None:
    real = Path(__file__).parents[3] / "shared" / "data" / "head-ct-ge"
    if not real.is_dir():
        pytest.skip("no real head CT at hand")
    out = tmp_path / "run"
    arguments = ["--unlabelled", str(real), "--out", str(out), *settings("training.epochs=1")]
    assert train.main(arguments) == 0
    data = json.loads((out / "metrics.json").read_text())["data"]
    assert data["unlabelled"] == {"patients": 1, "slices": 28}
    assert str(real.resolve()) in (out / "recipe.toml").read_text()


def test_no_report_without_its_extra(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "ichfast.report.page", None)
    train.write_report(tmp_path)
    assert "pip install" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "training.epoch=1"], "did you mean training.epochs?"),
        (["--recipe", "nowhere.toml"], "nowhere.toml cannot be read"),
        (["--resume", "nowhere"], "holds no recipe.toml"),
        (["--device", "toaster"], "use --device cpu or"),
        (["--threads", "0"], "must be at least 1"),
        (["--labelled", "nowhere", "--set", "training.strategy=joint"], "give --unlabelled DIR"),
        (["--labelled", "nowhere"], "nowhere"),
    ],
)
def test_refusals(arguments, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("--epochs 5", "did you mean --set training.epochs=5?"),
        ("--epochs=5", "did you mean --set training.epochs=5?"),
        ("--epochs --tensorboard", "did you mean --set training.epochs=VALUE?"),
        ("--max-iter 3", "did you mean --set lbfgs.max_iter=3?"),
        ("--seed 1", "did you mean --set training.seed=1?"),
        ("--stratgy cps", "did you mean --set training.strategy=cps?"),
        ("--labeled CT", "did you mean --labelled?"),
        ("--unlabeled CT", "did you mean --unlabelled?"),
        ("--zzz", "unrecognized arguments: --zzz\n"),
        ("CT", "unrecognized arguments: CT\n"),
    ],
)
def test_what_was_meant(arguments, hint, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(arguments.split())
    assert stopped.value.code == 2
    assert hint in capsys.readouterr().err


def choose(*arguments: str) -> tuple[recipe.Recipe, Path]:
    options = train.make_parser().parse_args(arguments)
    return train.choose_recipe(options), train.choose_folder(options, ALONE)


def test_data_of_one_s_own_get_their_own_preset(tmp_path, capsys) -> None:
    (tmp_path / "on-mine.toml").write_text('[data]\nlabelled = "mine"\n')
    for arguments, reason in (
        (["--labelled", "mine"], "--labelled is given"),
        (["--set", "data.labelled=mine"], "data.labelled is given"),
        (["--recipe", str(tmp_path / "on-mine.toml")], "data.labelled is given"),
    ):
        chosen, folder = choose(*arguments)
        assert capsys.readouterr().err == f"preset: own, since {reason}\n"
        assert Path(chosen.data.labelled).name == "mine"
        mine = {"data.labelled": chosen.data.labelled}
        assert chosen == recipe.merge(PRESETS["own"], mine)
        assert fnmatch(str(folder), "runs/on-mine-*" if "--recipe" in arguments else "runs/own-*")


def test_what_is_named_is_what_is_taken(capsys) -> None:
    for arguments, preset in (
        ([], "demo"),
        (["--unlabelled", "mine"], "demo"),
        (["--labelled", "mine", "--preset", "demo"], "demo"),
        (["--labelled", "mine", "--preset", "paper"], "paper"),
    ):
        chosen, folder = choose(*arguments)
        assert chosen.training == PRESETS[preset].training
        assert fnmatch(str(folder), f"runs/{preset}-*")
        said = capsys.readouterr().err
        assert said == (f"{train.DEMO}\n" if not arguments else "")


def test_own_unlabelled_scans_are_learned_from_unless_the_strategy_is_named(capsys) -> None:
    both = ["--labelled", "mine", "--unlabelled", "others"]
    assert choose(*both)[0].training.strategy == "curriculum"
    assert "left alone" not in capsys.readouterr().err
    assert choose(*both, "--set", "training.strategy=joint")[0].training.strategy == "joint"
    supervised, _ = choose(*both, "--set", "training.strategy=supervised")
    assert supervised.training.strategy == "supervised"
    assert "others is left alone: strategy supervised looks at labelled" in capsys.readouterr().err


def test_resume_has_its_own_recipe(tmp_path, capsys) -> None:
    (tmp_path / "recipe.toml").write_text(recipe.to_toml(PRESETS["demo"]))
    assert train.main(["--resume", str(tmp_path), "--preset", "paper"]) == 2
    assert "--preset does not go with --resume" in capsys.readouterr().err


def test_interrupted_and_diverged_are_told(tmp_path, capsys) -> None:
    metrics = {"status": "interrupted", "epochs": 3, "test": None, "reason": None}
    assert train.conclude(tmp_path, metrics) == 130
    assert "start it again" in capsys.readouterr().err
    (tmp_path / "checkpoint.pt").touch()
    assert train.conclude(tmp_path, metrics) == 130
    error = capsys.readouterr().err
    assert f"python -m ichfast.train --resume {tmp_path}" in error
    assert f"python -m ichfast.train --finish {tmp_path}" in error
    unfinished = {"status": "unfinished", "reason": "finished early after 3 of 6 epochs"}
    assert train.conclude(tmp_path, metrics | unfinished) == 0
    assert "finished early after 3 of 6 epochs; resume with" in capsys.readouterr().err
    metrics |= {"status": "diverged", "reason": "the supervised loss is nan"}
    assert train.conclude(tmp_path, metrics) == 3
    assert "diverged in epoch 3: the supervised loss is nan" in capsys.readouterr().err


def test_finish_evaluates_a_stopped_run_which_then_goes_on(tmp_path, capsys) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train.main(["--out", str(whole), *settings("training.epochs=3")]) == 0
    assert train.main(["--out", str(stopped), *settings("training.epochs=2")]) == 0
    for name in RUN_FILES - {"recipe.toml", "log.jsonl", "checkpoint.pt", "model.safetensors"}:
        (stopped / name).unlink()
    text = (stopped / "recipe.toml").read_text()  # as if it had been killed after two of three
    (stopped / "recipe.toml").write_text(text.replace("epochs = 2", "epochs = 3", 1))
    with (stopped / "log.jsonl").open("a") as log:
        log.write('{"epoch": 2, "st')
    capsys.readouterr()

    assert train.main(["--finish", str(stopped)]) == 0
    assert "finished early after 2 of 3 epochs" in capsys.readouterr().err
    assert {file.name for file in stopped.iterdir()} - {".lock"} == RUN_FILES
    metrics = json.loads((stopped / "metrics.json").read_text())
    assert (metrics["status"], metrics["epochs"]) == ("unfinished", 2)
    assert metrics["test"]["n_slices"] == metrics["data"]["test"]["slices"]
    assert "finished early after 2 of 3 epochs" in (stopped / "report.html").read_text()

    assert train.main(["--resume", str(stopped)]) == 0
    for name in ("model.safetensors", "slices.json", "examples.safetensors"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes(), name
    assert json.loads((stopped / "metrics.json").read_text())["status"] == "finished"

    capsys.readouterr()
    assert train.main(["--finish", str(stopped)]) == 2
    assert "has ended by itself (finished)" in capsys.readouterr().err


def test_finish_refuses(tmp_path, capsys) -> None:
    (tmp_path / "recipe.toml").write_text(recipe.to_toml(PRESETS["demo"]))
    run = ["--finish", str(tmp_path)]
    for more, message in (
        (["--preset", "paper"], "--preset does not go with --finish"),
        (["--resume", str(tmp_path)], "give one"),
        (["--set", "training.epochs=9"], "--set does not go with --finish"),
        ([], "has no checkpoint yet"),
    ):
        assert train.main([*run, *more]) == 2
        assert message in capsys.readouterr().err


def test_ctrl_c_before_training(tmp_path, monkeypatch, capsys) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "load_parts", interrupt)
    assert train.main(["--out", str(tmp_path / "run")]) == 130
    assert "nothing was trained yet" in capsys.readouterr().err


def test_help_names_every_key(capsys) -> None:
    with pytest.raises(SystemExit):
        train.main(["--help"])
    printed = capsys.readouterr().out
    assert all(name in printed for name, _, _ in recipe.keys(PRESETS["demo"]))
    assert max(map(len, printed.splitlines())) <= 100


def test_a_labelled_folder_needs_an_unlabelled_one(tmp_path) -> None:
    real = recipe.merge(PRESETS["demo"], {"data.labelled": "somewhere"})
    with pytest.raises(RecipeError, match="--unlabelled DIR"):
        parts.load_parts(real, tmp_path)


def test_devices(monkeypatch) -> None:
    assert compute.resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(IchfastError, match=r"needs a GPU, and torch .* finds none"):
        compute.resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(IchfastError, match="finds 2 GPUs"):
        compute.resolve_device("cuda:2")
    monkeypatch.setattr(compute, "NO_CUDA", "this build has CPU kernels only")
    with pytest.raises(IchfastError, match="CPU kernels only"):
        compute.resolve_device("cuda:1")
    monkeypatch.setattr(compute, "NO_CUDA", None)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert compute.resolve_device("cuda") == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("device", "asked", "got"),
    [("cpu", False, True), ("cuda", False, False), ("cuda", True, True)],
)
def test_deterministic_is_the_cpu_s_default_and_a_gpu_s_option(
    device, asked, got, monkeypatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    benchmark = torch.backends.cudnn.benchmark
    with pipeline.compute_exactly(torch.device(device), deterministic=asked):
        assert torch.are_deterministic_algorithms_enabled() == got
        assert torch.backends.cudnn.benchmark != got
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark == benchmark
