"""slices.json: what a run says of each slice of its test, and that metrics.json sums it up."""

import json

import numpy as np
import pytest
import torch
from tiny_runs import synthetic, tiny

from ichfast.evaluation.intervals import Rows, average, score_overlap
from ichfast.training import RunFolder, run
from ichfast.training.parts import Parts


def test_metrics_follow_from_it(start, tmp_path, parts) -> None:
    metrics = start(tmp_path / "run", "training.epochs=2")
    text = (tmp_path / "run" / "slices.json").read_text()
    columns = json.loads(text)
    assert columns["patient"] == [0, 0, 1, 1, 2, 2]
    assert columns["slice"] == list(range(6))
    assert not any(name in text for name in parts.test.patients)
    rows = Rows.from_patients(columns["patient"])
    counts = np.array([columns[name] for name in ("tp", "fp", "fn")]).T
    test = metrics["test"]
    for score in ("dice", "jaccard"):
        for how, value in test[score].items():
            assert score_overlap(rows, counts, score, how).estimate == pytest.approx(value)
    for how in ("per_slice", "per_patient"):
        found = [columns["hd95"], *columns["nsd"].values()]
        expected = [test["hd95"], *test["nsd"].values()]
        for values, scores in zip(found, expected, strict=True):
            known = np.array(values, float)
            assert average(rows, known, how).estimate == pytest.approx(scores[how])
    assert metrics["validation"]["hd95"].keys() == {"per_slice", "per_patient"}


def test_numbers_are_those_of_the_whole_set(tmp_path) -> None:
    whole = synthetic("head", 14)
    parts = Parts(
        train=whole.select(range(4, 10)),
        validation=whole.select([10, 11]),
        test=whole.select([13, 2, 3]),
        labelled=whole,
    )
    recipe = tiny("training.epochs=1", "training.strategy=supervised")
    with RunFolder(tmp_path / "run", resume=False) as folder:
        run(recipe, folder, torch.device("cpu"), parts)
    columns = json.loads((tmp_path / "run" / "slices.json").read_text())
    assert columns["patient"] == columns["series"] == [6, 1, 1]
    assert columns["slice"] == [13, 2, 3]
