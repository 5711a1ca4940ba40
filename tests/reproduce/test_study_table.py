"""The study on real CT, run on a phantom in its layout: protocols, floor, oracle, verdicts."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_study import ADAM
from test_report import Page

from ichfast.report.table1 import render
from ichfast.reproduce.__main__ import main
from ichfast.reproduce.studies import BASELINE, STUDIES, Column, Part
from ichfast.training.folder import LOG, METRICS, RECIPE, SLICES

STUDY = STUDIES["ct-ich"]
PRIMARY = STUDY.primary
assert PRIMARY is not None
OWN = f"protocol=own,scheme={PRIMARY.column.scheme}"


@pytest.fixture
def tiny(words: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """The command's words for the study in a folder, in a few updates."""

    def tiny(out: Path, *more: str) -> list[str]:
        settings = [word for setting in ADAM for word in ("--set", setting)]
        return words(out, "--preset=ct-ich", *settings, *more)

    return tiny


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison, the oracle and a pair on slices."""
    rows = (PRIMARY.row, BASELINE)
    parts = (
        Part((PRIMARY.column,), rows),
        Part((STUDY.oracle,), (BASELINE,)),
        Part((Column("slices", 80),), rows),
    )
    kept = tuple(row for row in STUDY.rows if row.name in rows)
    primary = replace(PRIMARY, seeds=1)
    secondary = tuple(replace(primary, column=Column("slices", scheme)) for scheme in (80, 20))
    monkeypatch.setitem(
        STUDIES,
        "ct-ich",
        replace(STUDY, rows=kept, parts=parts, seeds=1, primary=primary, secondary=secondary),
    )


def read(out: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((out / "table1.json").read_text())
    return result


def test_it_is_for_its_own_data(tmp_path, capsys) -> None:
    assert main(["table1", "--preset=ct-ich", "--out", str(tmp_path)]) == 2
    assert "preset ct-ich is for its own data: give --labelled and" in capsys.readouterr().err


@pytest.mark.usefixtures("short", "alone")
def test_from_plan_to_page_and_from_four_files_again(tiny, tmp_path, capsys) -> None:
    out, moved = tmp_path / "out", tmp_path / "moved"
    assert main(tiny(out, "--plan")) == 0
    planned = capsys.readouterr().out
    assert "25 cells to run" in planned
    assert f"{PRIMARY.row} less {BASELINE}, protocol own, 20 % labels" in planned
    assert "known after 10 of the cells" in planned
    assert "One hospital, few of its patients labelled:" in planned

    some = ("--only", OWN, "--only", "protocol=paper,fold=0")
    assert main(tiny(out, *some)) == 0
    result = read(out)
    own, paper, _ = (protocol["rows"] for protocol in sorted_by_name(result, "own paper slices"))
    rows = {row["name"]: row for row in own}
    assert list(rows) == [BASELINE, PRIMARY.row, "oracle", "floor"]
    assert [row["name"] for row in paper] == [BASELINE, "floor"]
    supervised = rows[BASELINE]["schemes"]["20"]["scores"]
    for name in ("dice.pooled", "dice.volume", "dice.all", "auc.slices", "auc.scans"):
        assert 0 <= supervised[name]["low"] <= supervised[name]["estimate"] <= 1
    # The oracle is the paper's 80 %: one fold of it has been run.
    entry = rows["oracle"]["schemes"]["20"]
    assert entry == paper[0]["schemes"]["80"]
    assert (entry["planned"], entry["ended"]) == (5, 1)
    assert rows["oracle"]["differences"]["20"][BASELINE]["pairs"] == 1
    assert rows["floor"]["differences"]["20"][BASELINE]["pairs"] == 5

    primary, (slices, missing) = result["primary"], result["secondary"]
    assert (primary["pairs"], primary["planned"], primary["holm"]) == (5, 5, None)
    between = rows[PRIMARY.row]["differences"]["20"][BASELINE]["scores"][PRIMARY.score]
    assert primary["difference"] == between
    assert primary["by_seed"] == [between["estimate"]]
    assert len(primary["by_fold"]) == 5
    assert min(primary["by_fold"]) <= between["estimate"] <= max(primary["by_fold"])
    assert (slices["pairs"], slices["difference"], slices["holm"]) == (0, None, None)
    assert (missing["pairs"], missing["planned"]) == (0, 5)
    page = Page((out / "table1.html").read_text())
    assert "What was to be shown" in page.text
    assert "0 of 5" in page.text
    assert "not there yet" not in page.text
    assert "Supervised, all labels" in page.text

    assert str(tiny(out)[3].rpartition("/")[0]).removeprefix("--labelled=") not in str(result)
    text = (out / "table1.md").read_text()
    dice = supervised["dice.all"]
    cells = f"| {dice['estimate']:.3f} [{dice['low']:.3f} to {dice['high']:.3f}] |"
    line = next(line for line in text.splitlines() if line.startswith(f"| {BASELINE} | 5 of 5"))
    assert cells in line
    assert f"| **{PRIMARY.row} less {BASELINE}, own, 20 %** | 5 of 5 |" in text
    assert {"nan", "None"}.isdisjoint(text.split())
    assert "0 of 0" not in text

    # What a finished cell needs elsewhere.
    for file in out.rglob("*"):
        if file.name in (RECIPE, METRICS, LOG, SLICES):
            target = moved / file.relative_to(out)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    capsys.readouterr()
    assert main(tiny(moved, *some)) == 0
    assert "0 cells to run, 11 are there already" in capsys.readouterr().out
    assert (moved / "table1.json").read_bytes() == (out / "table1.json").read_bytes()


def sorted_by_name(result: dict[str, Any], names: str) -> list[dict[str, Any]]:
    protocols = {protocol["name"]: protocol for protocol in result["protocols"]}
    return [protocols[name] for name in names.split()]


@pytest.mark.usefixtures("short", "alone")
def test_an_unfinished_study_claims_nothing(tiny, tmp_path) -> None:
    pieces = [f"--only={OWN},fold=[01]", f"--only={OWN},row={BASELINE}"]
    assert main(tiny(tmp_path, *pieces)) == 0
    result = read(tmp_path)
    assert (result["primary"]["pairs"], result["primary"]["planned"]) == (2, 5)
    assert result["primary"]["difference"] is not None
    assert [one is None for one in result["primary"]["by_fold"]] == [False] * 2 + [True] * 3
    text = Page((tmp_path / "table1.html").read_text()).text
    assert "not there yet: 2 of 5 pairs" in text
    # The verdicts of a whole one, whatever the interval.
    result["primary"]["pairs"] = 5
    for low, high, verdict in (
        (0.01, 0.09, "The interval lies above zero"),
        (-0.09, -0.01, "the row is worse"),
        (-0.01, 0.09, "no gain has been shown"),
    ):
        result["primary"]["difference"] |= {"low": low, "high": high, "estimate": (low + high) / 2}
        assert verdict in Page(render(result, None)).text


@pytest.mark.usefixtures("short", "alone")
def test_holm_counts_what_was_planned(tiny, tmp_path) -> None:
    assert main(tiny(tmp_path, "--only", "protocol=slices")) == 0
    one, other = read(tmp_path)["secondary"]
    assert one["pairs"] == 5
    assert one["holm"] == pytest.approx(min(1, 2 * one["difference"]["p"]))
    assert other["holm"] is None
