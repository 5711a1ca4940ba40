"""What a run's weights say about themselves, from the first that are written to the calibrated."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_runs import parts, synthetic, tiny

import ichfast
from ichfast.data import SliceSet
from ichfast.evaluation.calibration import Calibration
from ichfast.models.weights import read
from ichfast.training import loop
from ichfast.training.about import choose_scans, describe_weights


def metrics_of(folder) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def test_a_run_s_weights_stand_alone(start, tmp_path, monkeypatch) -> None:
    seen = []

    def keep(model, about):
        seen.append(about)
        return to_bytes(model, about)

    to_bytes = loop.to_bytes
    monkeypatch.setattr(loop, "to_bytes", keep)
    start(tmp_path / "run", "data.slices=all", "evaluation.threshold=0.4")
    assert seen
    assert all("has not come to its end" in str(about["calibration"]) for about in seen)
    _, about = read(tmp_path / "run" / "model.safetensors")
    assert (about["size"], about["threshold"], about["strategy"]) == (16, 0.4, "curriculum")
    assert about["ichfast"] == ichfast.__version__
    assert about["data"]["train"] == {"name": "phantom", "patients": 4, "slices": 7}
    assert about["data"].keys() == {"train", "validation", "unlabelled"}
    assert "2 validation patients have a scan" in about["calibration"]["reasons"]["volume"]
    assert metrics_of(tmp_path / "run")["calibration"] == about["calibration"]
    model = ichfast.load_model(tmp_path / "run")
    assert model.name == "run"
    assert model.calibration == Calibration.model_validate(about["calibration"])


def test_names_of_data_have_no_paths() -> None:
    recipe = tiny("data.labelled=/home/a/ct-ich", "data.unlabelled=rsna/")
    data = describe_weights(recipe, parts())["data"]
    assert {name: one["name"] for name, one in data.items()} == {
        "train": "ct-ich",
        "validation": "ct-ich",
        "unlabelled": "rsna",
    }


def test_without_validation_there_is_no_calibration(start, tmp_path) -> None:
    nobody = replace(parts(), validation=parts().validation.select([]))
    found = choose_scans(nobody, tiny())
    assert "data.validation = 0" in str(found)


@pytest.mark.parametrize(
    ("settings", "split_by", "says"),
    [
        ((), "patient", "data.slices = all or data.test_slices = all"),
        (("data.slices=all",), "slice", "were trained on, too"),
    ],
)
def test_scans_that_are_not_whole_or_were_seen(settings, split_by, says) -> None:
    assert says in str(choose_scans(replace(parts(), split_by=split_by), tiny(*settings)))


def test_whole_scans_of_validation_patients_and_of_healthy_ones() -> None:
    """Patients of two slices each: trained on, validated, tested, healthy, healthy and tested."""
    whole = synthetic("p", 10)
    assert whole.masks is not None
    masks = whole.masks.clone()
    masks[1::2] = 0
    masks[6:] = 0
    whole = replace(whole, masks=masks)
    some = replace(
        parts(),
        train=whole.select([0]),
        validation=whole.select([2]),
        test=whole.select([4, 5, 8, 9]),
        unlabelled=None,
        labelled=whole,
    )
    chosen = choose_scans(some, tiny("data.test_slices=all"))
    assert isinstance(chosen, SliceSet)
    assert chosen.rows.tolist() == [2, 3, 6, 7]
    taken = replace(some, unlabelled=whole.select([6, 7]))
    chosen = choose_scans(taken, tiny("data.test_slices=all"))
    assert isinstance(chosen, SliceSet)
    assert chosen.rows.tolist() == [2, 3]
    assert torch.equal(choose_scans(some, tiny("data.slices=all")).rows, some.validation.rows)
