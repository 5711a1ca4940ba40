"""The comparison of strategies, on a recipe that is too small to say anything."""

import json

import pytest
from test_command import phantom_in_this_process, settings  # noqa: F401

from benchmarks import compare_strategies


@pytest.mark.usefixtures("phantom_in_this_process")
def test_pairs_and_table(tmp_path, capsys) -> None:
    arguments = ["--seeds", "2", "--out", str(tmp_path / "runs"), "--results", str(tmp_path)]
    more = settings("supervised.optimizer=adam", "training.epochs=5")
    assert compare_strategies.main([*arguments, *more]) == 0
    result = json.loads((tmp_path / "compare_strategies.json").read_text())
    assert [row["seed"] for row in result["seeds"]] == [0, 1]
    for row, difference in zip(result["seeds"], result["difference"]["each"], strict=True):
        semi, twin = row["curriculum"], row["supervised"]
        assert semi["supervised_epochs"] == twin["supervised_epochs"]
        assert semi["supervised_epochs"] + semi["unsupervised_epochs"] == 5
        assert difference == semi["test_dice"] - twin["test_dice"]
    assert 0 <= result["baselines"]["threshold"]["dice"] <= result["baselines"]["band"]["dice"] <= 1
    printed = capsys.readouterr().out
    assert printed.strip() == (tmp_path / "compare_strategies.md").read_text().strip()
    assert "Paired difference" in printed
