"""The command that makes weights: all patients, one card, the same bytes again."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import ichfast
from ichfast import models
from ichfast.data.phantom import write_phantom
from ichfast.errors import DataError
from ichfast.reproduce.studies import STUDIES
from ichfast.training import recipe
from ichfast.training.recipe import merge, to_toml
from ichfast.weights import CrossValidation, Data, load, save
from ichfast.weights.__main__ import main
from ichfast.weights.make import CT_ICH, make_card, make_recipe, read_cross_validation

PHANTOM = Data(
    name="a phantom",
    version="1",
    layout="ct-ich",
    patients=5,
    slices=20,
    licence="none needed",
    attribution="ichfast",
)
TINY = (
    "training.epochs=2",
    "model.channels=[2, 3]",
    "supervised.batch_size=4",
    "supervised.draws=8",
    "data.size=16",
)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    size = {"patients": 5, "unlabelled_patients": 1, "slices": 4, "size": 64}
    write_phantom(root, **size, seed=0, progress=False, workers=1)
    return root / "labelled"


def arguments(labelled: Path, out: Path, *more: str) -> list[str]:
    given = ["make", "--labelled", str(labelled), "--out", str(out)]
    return [*given, *(word for key in TINY for word in ("--set", key)), *more]


def test_weights_of_all_patients_and_again(labelled, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments(labelled, tmp_path / "tiny.safetensors"), data=PHANTOM) == 0
    model, card = load(tmp_path / "tiny.safetensors")
    assert (card.name, card.data, card.size, card.threshold) == ("tiny", PHANTOM, 16, 0.5)
    assert card.cross_validation is None
    assert model.channels == (2, 3)
    own = recipe.parse(card.recipe, recipe.Recipe())
    assert own == merge(recipe.apply_settings(make_recipe(), TINY), {"data.labelled": ""})
    assert str(labelled) not in card.recipe
    metrics = json.loads((tmp_path / "runs/weights-tiny/metrics.json").read_text())
    sizes = {part: metrics["data"][part]["patients"] for part in ("train", "validation", "test")}
    assert sizes == {"train": 5, "validation": 0, "test": 0}
    assert (metrics["status"], metrics["test"]) == ("finished", None)

    again = tmp_path / "again" / "tiny.safetensors"
    again.parent.mkdir()
    run = ("--run", str(tmp_path / "again" / "run"))
    assert main(arguments(labelled, again, *run), data=PHANTOM) == 0
    assert again.read_bytes() == (tmp_path / "tiny.safetensors").read_bytes()
    again.unlink()
    assert main(arguments(labelled, again, *run), data=PHANTOM) == 0  # the run is there
    assert again.read_bytes() == (tmp_path / "tiny.safetensors").read_bytes()


def test_another_set_is_refused(labelled, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments(labelled, tmp_path / "w.safetensors")) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "is not CT-ICH 1.0.0: 20 slices of 5 patients in the layout ct-ich" in error
    assert not (tmp_path / "w.safetensors").exists()


def write_table(path: Path, **changes: Any) -> Path:
    study = STUDIES["ct-ich"]
    score = {"label": "Dice, pooled", "unit": "", "estimate": 0.6, "low": 0.5, "high": 0.7}
    column = {"planned": 15, "tested": 14, "scores": {"dice.pooled": score | {"reason": None}}}
    rows = [{"name": "supervised", "schemes": {"80": column}}, {"name": "curriculum"}]
    table = {
        "preset": study.name,
        "recipe": to_toml(study.recipe),
        "baseline": "supervised",
        "protocols": [{"name": "paper", "rows": rows}, {"name": "own", "rows": []}],
    }
    path.write_text(json.dumps(table | changes))
    return path


def test_cross_validated_scores_and_what_was_different(tmp_path) -> None:
    study = STUDIES["ct-ich"].recipe
    trained = merge(study, {"training.strategy": "supervised", "data.train": 1.0, "data.test": 0.0})
    found = read_cross_validation(write_table(tmp_path / "table.json"), trained)
    assert found.differences == ()
    assert found.scores["dice.pooled"].low == 0.5
    assert "(preset ct-ich): five folds by patient, 14 of 15 runs" in found.about
    longer = merge(trained, {"training.epochs": study.training.epochs + 1})
    (difference,) = read_cross_validation(tmp_path / "table.json", longer).differences
    assert difference.startswith("training.epochs (")


@pytest.mark.parametrize(
    "changes", [{"protocols": []}, {"preset": "none"}, {"baseline": "curriculum"}], ids=str
)
def test_a_table_without_these_scores(changes, tmp_path) -> None:
    path = write_table(tmp_path / "table.json", **changes)
    with pytest.raises(DataError, match=r"table\.json is not the JSON of a Table 1"):
        read_cross_validation(path, make_recipe())


def write_folds(runs: Path, *, size: int = 16, folds: int = 5) -> None:
    """Two patients a fold, of two slices: one bleeds, the more the later the fold."""
    for fold in range(folds):
        folder = runs / "scheme80" / f"fold{fold}" / "supervised-seed0"
        folder.mkdir(parents=True)
        columns = {
            "patient": [2 * fold, 2 * fold, 2 * fold + 1, 2 * fold + 1],
            "tp": [0, 0, 10 + fold, 0],
            "fp": [fold, 0, 0, 2],
            "fn": [0, 0, 3, 0],
            "subtypes": [[], [], ["subdural"], []],
        }
        (folder / "slices.json").write_text(json.dumps(columns))
        own = merge(make_recipe(), {"data.size": size, "model.channels": [2, 3]})
        (folder / "recipe.toml").write_text(to_toml(own))


def write_weights(path: Path, patients: int, scores: CrossValidation | None) -> None:
    data = PHANTOM.model_copy(update={"patients": patients})
    chosen = merge(make_recipe(), {"data.size": 16})
    save(models.build("unet", (2, 3), 0), make_card("tiny", data, chosen, "abc", scores), path)


SCORES = CrossValidation(about="five folds", differences=(), scores={})


def test_a_scan_score_from_the_folds(tmp_path, capsys) -> None:
    path, runs = tmp_path / "tiny.safetensors", tmp_path / "runs"
    write_folds(runs)
    write_weights(path, 10, SCORES)
    before = load(path)
    words = ["score", "--out", str(path), "--runs", str(runs)]
    assert main(words) == 0
    assert "sensitivity 1.00 of 5 scans, specificity 1.00 of 5" in capsys.readouterr().out
    model, card = load(path)
    assert card.cross_validation is not None
    scan = card.cross_validation.scan
    assert scan is not None
    assert (scan.unit, scan.positive, scan.negative) == ("pixels per slice", 5, 5)
    assert 2 < scan.threshold < 6
    assert card.cross_validation.model_copy(update={"scan": None}) == SCORES
    former = before.model.state_dict()
    assert all(former[name].equal(value) for name, value in model.state_dict().items())
    calibration = ichfast.load_model(path).calibration
    assert (calibration.scan, calibration.temperature, calibration.patients) == (scan, None, 10)
    once = path.read_bytes()
    assert main(words) == 0
    assert path.read_bytes() == once


@pytest.mark.parametrize(
    ("folds", "size", "scores", "says"),
    [
        (4, 16, SCORES, "4 folds .* test 8 patients, and the weights were trained on 10"),
        (0, 16, SCORES, "0 folds"),
        (5, 32, SCORES, "has size, window and threshold"),
        (5, 16, None, "has no cross-validated scores"),
    ],
)
def test_folds_that_say_nothing_of_these_weights(
    tmp_path, capsys, folds, size, scores, says
) -> None:
    path, runs = tmp_path / "tiny.safetensors", tmp_path / "runs"
    write_folds(runs, size=size, folds=folds)
    write_weights(path, 10, scores)
    before = path.read_bytes()
    assert main(["score", "--out", str(path), "--runs", str(runs)]) == 2
    assert re.search(says, capsys.readouterr().err)
    assert path.read_bytes() == before


def test_what_a_command_needs(tmp_path, capsys) -> None:
    path = str(tmp_path / "tiny.safetensors")
    assert main(["make", "--out", path]) == 2
    assert "make needs --labelled DIR" in capsys.readouterr().err
    assert main(["score", "--out", path]) == 2
    assert "score needs --runs DIR" in capsys.readouterr().err


def test_the_card_s_facts_of_ct_ich() -> None:
    root = Path(__file__).parents[3] / "shared" / "data" / "ct-ich"
    if not root.is_dir():
        pytest.skip("CT-ICH is not at hand")
    pictures = list(root.glob("Patients_CT/*/brain/*[0-9].jpg"))
    assert len(pictures) == CT_ICH.slices
    assert len({picture.parent for picture in pictures}) == CT_ICH.patients
