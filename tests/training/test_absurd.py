"""Values that nobody means, in recipes and checkpoints: a sentence, or a run that ends."""

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from tiny_runs import tiny

from ichfast.errors import CheckpointError, IchfastError, RecipeError
from ichfast.training import Recipe, RunFolder, pipeline, recipe, run

REFUSED = {
    "model.channels=[100000, 100000]": "must be at most 4096",
    "model.channels=[1,1,1,1,1,1,1,1,1,1,1,1,1,1]": "must be a list of numbers, of 13 at most",
    "model.convolutions=1000000000": "must be at most 16",
    "data.size=4294967296": "must be at most 4096",
    "training.seed=18446744073709551616": "must be at most",
    "adam.learning_rate=1e300": "must be at most 1e+12",
    "unsupervised.ratio=1e12": "must be at most 1000",
    "supervised.draws=9223372036854775807": "must be at most",
    "augmentation.scale=1e12": "must be at most 100",
    "strong.width=1e6": "strong.width = 1000000.0: the window's width would fall",
    "data.window=[1e300, 80]": "must be at most 1e+06",
    "training.ema=1": "must be below 1",
    'data.labelled="a\\u0000b"': "must be text",
    "training.epochs=2020-01-01": "must be a whole number",
    f"training.epochs={'9' * 5000}": "training.epochs",
    f"training.epochs={'[' * 5000}": "training.epochs",
}


@pytest.mark.parametrize("setting", REFUSED, ids=lambda text: text[:40])
def test_absurd_values_are_refused(setting: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe.apply_settings(Recipe(), [setting])
    assert REFUSED[setting] in str(caught.value)
    assert len(str(caught.value)) < 400


def list_extremes() -> list[str]:
    """Each key at the ends of its range, but for those that only cost time."""
    settings = []
    for name, field, value in recipe.keys(Recipe()):
        limits = {
            bound: getattr(rule, bound)
            for rule in field.metadata
            for bound in ("ge", "gt", "le", "lt")
            if hasattr(rule, bound)
        }
        if type(value) not in (int, float) or name in SLOW:
            continue
        low = limits.get("ge", limits.get("gt", 0) or 1e-300)
        high = limits.get("le", limits.get("lt"))
        settings += [f"{name}={type(value)(low)!r}", f"{name}={type(value)(high)!r}"]
    return settings


SLOW = {"training.epochs", "lbfgs.max_iter", "supervised.draws", "unsupervised.ratio", "data.size"}
SLOW |= {f"phantom.{name}" for name in ("patients", "unlabelled", "slices", "size", "seed")}
SLOW |= {"model.convolutions", "pretraining.epochs", "lbfgs.history"}
SLOW |= {f"{name}.batch_size" for name in ("supervised", "unsupervised", "evaluation")}


@pytest.mark.parametrize("strategy", ["curriculum", "unimatch"])
def test_the_ends_of_every_range_end_a_run_well(strategy: str, tmp_path: Path) -> None:
    """Or as diverged, or with a sentence: never with another exception."""
    base = [f"training.strategy={strategy}", "training.epochs=2", "supervised.optimizer=adam"]
    for number, setting in enumerate(list_extremes()):
        with contextlib.suppress(IchfastError):
            chosen = tiny(*base, setting)
            with RunFolder(tmp_path / str(number), resume=False) as held:
                metrics = run(chosen, held, torch.device("cpu"), tiny_runs.parts())
            assert metrics["status"] in ("finished", "diverged"), setting


def test_more_weights_than_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pipeline, "measure_free_memory", lambda: 1000)
    with pytest.raises(RecipeError, match=r"need 0\.0 GiB.*lower model\.channels"):
        tiny_runs.start(tmp_path / "run")


def test_batch_normalisation_with_one_value(tmp_path: Path) -> None:
    deep = ("model.channels=[2,2,2,2,2]", "supervised.optimizer=adam", "supervised.batch_size=1")
    with pytest.raises(RecipeError, match=r"one value per channel.*raise data\.size"):
        tiny_runs.start(tmp_path / "run", *deep)


HOSTILE: tuple[Any, ...] = (
    None,
    -1,
    [],
    {"a": "b"},
    float("nan"),
    10**400,
    torch.full((2, 3), float("nan")),
    torch.zeros(3, dtype=torch.complex64),
)


def list_places(content: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Keys on the way to some values of every kind in a checkpoint."""
    places: list[tuple[Any, ...]] = [(key,) for key in content]
    places += [("progress", key) for key in content["progress"]]
    places += [("model", next(iter(content["model"]))), ("steps", "supervised", "optimizer")]
    for step in ("supervised", "unsupervised"):
        state = content["steps"][step]["optimizer"]["state"]
        places += [("steps", step, "optimizer", "state", 0, key) for key in state[0]]
    return places


def test_hostile_checkpoints_end_in_a_sentence(tmp_path: Path) -> None:
    folder, settings = tmp_path / "run", ("training.validate_every=9", "lbfgs.max_iter=1")
    tiny_runs.start(folder, *settings, "training.epochs=3")
    path = folder / "checkpoint.pt"
    whole, kept = path.read_bytes(), torch.load(path, weights_only=True)
    for place in list_places(kept):
        for value in HOSTILE:
            content = copy.deepcopy(kept)
            inner = content
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = value
            torch.save(content, path)
            with contextlib.suppress(CheckpointError):
                metrics = tiny_runs.start(folder, *settings, "training.epochs=4")
                assert json.dumps(metrics, allow_nan=False), (place, value)
    for damaged in (b"", whole[:-100], whole[:100], b"x" * 100, whole[:500] + whole[600:]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            tiny_runs.start(folder, *settings, "training.epochs=4")
