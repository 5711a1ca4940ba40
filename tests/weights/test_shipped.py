"""Weights that ship: a file and its card, whole or refused."""

import json
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import ichfast.weights
from ichfast import models
from ichfast.errors import CheckpointError, OutputError
from ichfast.weights import Card, CrossValidation, Data, Score, load, load_pretrained, save, shipped

FOLDER = Path(ichfast.weights.__file__).parent
SCORES = CrossValidation(
    about="five folds",
    differences=("training.epochs (30, now 100)",),
    scores={"dice.pooled": Score(label="Dice", estimate=0.6, low=0.5, high=None)},
)


def make_card(**changes: Any) -> Card:
    values: dict[str, Any] = {
        "name": "tiny",
        "data": Data(
            name="a set",
            version="1",
            layout="ct-ich",
            patients=2,
            slices=9,
            licence="CC BY 4.0",
            attribution="its authors",
        ),
        "fingerprint": "abc",
        "recipe": "[training]\n",
        "ichfast": "0.1.0",
        "commit": None,
        "size": 16,
        "window": (40.0, 120.0),
        "threshold": 0.5,
        "cross_validation": SCORES,
        "intended_use": "research",
        "not_for": "patients",
    }
    return Card(**values | changes)


def tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save(models.build("unet", (2, 3), 0), make_card(), path)
    return path


def change(path: Path, **changes: Any) -> None:
    """Other values in the file's card; ... removes one."""
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["ichfast"])
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    about["card"] = {k: v for k, v in (about["card"] | changes).items() if v is not ...}
    save_file(kept, path, metadata={"ichfast": json.dumps(about)})


def test_there_and_back(path: Path) -> None:
    model, card = load(path)
    assert card == make_card()
    assert not model.training
    ours = tensors(models.build("unet", (2, 3), 0))
    assert all(ours[name].equal(value) for name, value in tensors(model).items())
    assert models.load(path).channels == (2, 3)
    before = path.read_bytes()
    save(model, card, path)
    assert path.read_bytes() == before


def test_half_precision_where_it_would_be_too_large(path: Path, monkeypatch) -> None:
    whole = path.read_bytes()
    monkeypatch.setattr(shipped, "LARGEST", len(whole) - 1)
    model = models.build("unet", (2, 3), 0)
    save(model, make_card(), path)
    assert len(path.read_bytes()) < len(whole)
    for name, value in tensors(load(path).model).items():
        expected = tensors(model)[name]
        assert value.dtype == expected.dtype
        assert value.equal(expected.half().to(expected.dtype))
    monkeypatch.setattr(shipped, "LARGEST", 100)
    with pytest.raises(OutputError, match=r"may have 100: train with fewer model\.channels"):
        save(model, make_card(), path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": ...}, "name: Field required"),
        ({"threshold": 2}, "threshold: Input should be less than or equal to 1"),
        ({"threshold": "0.5"}, "threshold: Input should be a valid number"),
        ({"window": [40, 1]}, "width 1 must be above 1 HU"),
        ({"size": 17}, "size: 17 is no multiple of 2"),
        ({"not_for": ""}, "not_for: String should have at least 1 character"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
        ({"data": {"name": "a set"}}, "data.version: Field required"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_card_that_is_not_whole(path: Path, changes: dict[str, Any], says: str) -> None:
    change(path, **changes)
    with pytest.raises(CheckpointError) as refused:
        load(path)
    assert str(path) in str(refused.value)
    assert says in str(refused.value)
    assert models.load(path).channels == (2, 3)


def test_weights_without_a_card(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(models.to_bytes(models.build("unet", (2, 3), 0)))
    with pytest.raises(CheckpointError, match="weights without a card"):
        load(path)
    path.write_text("rubbish")
    with pytest.raises(CheckpointError, match="cannot be read as a safetensors file"):
        load(path)


def test_a_name_that_does_not_ship() -> None:
    with pytest.raises(CheckpointError, match=r"no weights 'ct-ihc' ship with ichfast: th"):
        load_pretrained("ct-ihc")


def test_one_call_loads_what_is_in_the_folder(path: Path, monkeypatch) -> None:
    monkeypatch.setattr(ichfast.weights, "__file__", str(path.parent / "__init__.py"))
    assert load_pretrained("tiny").card == make_card()
    with pytest.raises(CheckpointError, match="there are tiny"):
        load_pretrained("ct-ich")


def test_the_weights_are_packaged() -> None:
    project = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["ichfast.weights"]
    assert any(fnmatch("ct-ich.safetensors", pattern) for pattern in patterns)


@pytest.mark.skipif(
    not (FOLDER / "ct-ich.safetensors").exists(), reason="the weights have not been made yet"
)
def test_those_of_ct_ich() -> None:
    model, card = load_pretrained()
    assert (FOLDER / "ct-ich.safetensors").stat().st_size <= shipped.LARGEST
    assert (card.name, card.data.patients, card.data.slices) == ("ct-ich", 82, 2501)
    assert "CC BY 4.0" in card.data.licence
    assert "10.13026/w8q8-ky94" in card.data.attribution
    assert card.commit is not None
    assert not card.commit.endswith("+")
    assert card.cross_validation is not None
    assert {"dice.pooled", "dice.per_patient"} <= card.cross_validation.scores.keys()
    assert "/" not in card.recipe.partition("[data]")[2].partition("[")[0]
    with torch.no_grad():
        assert model.segment(torch.zeros(1, 1, card.size, card.size)).isfinite().all()
