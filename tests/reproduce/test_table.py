"""The whole command on a small table: numbers, page, and what it refuses."""

import json
from typing import Any

import pytest
from test_report import Page

from ichfast.report.table1 import render
from ichfast.reproduce.__main__ import main
from ichfast.reproduce.rows import ROWS

HALVES = ("--only", "scheme=50")


PIECES = [f"--only={text}" for text in ("scheme=50", "scheme=20,fold=0", "scheme=80,fold=4")]


def rows_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    (protocol,) = result["protocols"]
    rows: list[dict[str, Any]] = protocol["rows"]
    return rows


@pytest.mark.usefixtures("rows", "alone")
def test_a_table_from_runs_to_page(words, tmp_path, capsys) -> None:
    assert main(words(tmp_path, "--plan")) == 0
    planned = capsys.readouterr().out
    assert "46 cells to run, 0 are there already" in planned
    assert "In all about" in planned
    assert not (tmp_path / "scheme20").exists()

    assert main(words(tmp_path, *PIECES)) == 0
    assert "[14/14]" in capsys.readouterr().out
    result = json.loads((tmp_path / "table1.json").read_text())
    assert result["cells"] == {"planned": 46, "ended": 14}
    supervised, curriculum, exploding, floor = rows_of(result)
    for row in (supervised, curriculum):
        for scheme, entry in row["schemes"].items():
            assert entry["ended"] == entry["tested"] == {"20": 1, "50": 2, "80": 1}[scheme]
            for score in entry["scores"].values():
                assert score["reason"] or score["low"] <= score["estimate"] <= score["high"]
            assert entry["scores"]["specificity.slices"]["estimate"] is not None
    for scheme, entry in floor["schemes"].items():
        assert entry["tested"] == supervised["schemes"][scheme]["tested"]
        assert entry["scores"]["hd95.per_slice"]["estimate"] is None
        assert entry["scores"]["dice.pooled"]["estimate"] > 0
        assert 0 <= entry["scores"]["auc.slices"]["estimate"] <= 1
        less = floor["differences"][scheme]["supervised"]["scores"]["dice.pooled"]["estimate"]
        own, twin = (r["schemes"][scheme]["scores"]["dice.pooled"] for r in (floor, supervised))
        assert less == pytest.approx(own["estimate"] - twin["estimate"])
    assert exploding["schemes"]["50"]["diverged"] == 2
    assert exploding["schemes"]["50"]["scores"] is None
    pair = curriculum["differences"]["50"]["supervised"]
    assert pair["pairs"] == 2
    both = [
        row["schemes"]["50"]["scores"]["dice.pooled"]["estimate"]
        for row in (supervised, curriculum)
    ]
    difference = pair["scores"]["dice.pooled"]["estimate"]
    assert difference == pytest.approx(both[1] - both[0])
    assert [one["percent"] for one in result["unlabelled_curve"]] == [0, 10, 30, 100]
    assert all(one["ended"] == 1 for one in result["unlabelled_curve"])
    assert not list(tmp_path.rglob("checkpoint.pt"))

    html = (tmp_path / "table1.html").read_text()
    page = Page(html)
    assert "0.44 (0.28)" in page.text
    assert page.text.count("diverged") > 9
    assert "Explodes <fast>" in page.text
    assert "<fast>" not in html
    assert "nan" not in page.text.lower().split()
    shown = page.names().count("image")  # the same slices under both rows
    assert shown >= 4
    assert shown % 2 == 0
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))

    before = (tmp_path / "table1.json").read_bytes()
    assert main(words(tmp_path, *PIECES)) == 0
    assert "0 cells to run, 14 are there already" in capsys.readouterr().out
    assert (tmp_path / "table1.json").read_bytes() == before


@pytest.mark.usefixtures("rows", "alone")
def test_a_part_of_the_table(words, tmp_path, capsys) -> None:
    only = words(tmp_path, "--only", "scheme=50,row=supervised", "--only", "scheme=50,fold=1")
    assert main(only) == 0
    ended = {str(file.parent.relative_to(tmp_path)) for file in tmp_path.rglob("metrics.json")}
    assert ended == {
        "scheme50/fold0/supervised-seed0",
        "scheme50/fold1/supervised-seed0",
        "scheme50/fold1/curriculum-seed0",
        "scheme50/fold1/exploding-seed0",
    }
    result = json.loads((tmp_path / "table1.json").read_text())
    assert rows_of(result)[1]["differences"]["50"]["supervised"]["pairs"] == 1
    assert "1 of 2 runs" in Page((tmp_path / "table1.html").read_text()).text
    # Other settings in the same folder are refused before anything is run.
    assert main(words(tmp_path, *HALVES, "--set", "lbfgs.max_iter=3")) == 2
    assert "was run with another recipe: lbfgs.max_iter (2, now 3)" in capsys.readouterr().err


@pytest.mark.usefixtures("rows", "alone")
def test_nothing_of_a_patient_and_everything_escaped(words, phantom, tmp_path) -> None:
    assert main(words(tmp_path, "--only", "scheme=50,fold=0,row!=exploding")) == 0
    text = (tmp_path / "table1.json").read_text()
    html = (tmp_path / "table1.html").read_text()
    for name in phantom.glob("*/*/*"):
        assert name.stem not in text or len(name.stem) < 4
    result = json.loads(text)
    evil = "<script>alert(1)</script>"
    result["notes"] = [evil]
    for row in rows_of(result):
        row["about"] = row["label"] = evil
    result["runs"][0] |= {"status": "diverged", "reason": evil}
    page = render(result, None)
    assert evil not in page
    assert Page(page).text.count("alert(1)") >= 4
    assert "script" not in Page(html).names()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--only", "scheme=60"], "leaves no cell"),
        (["--only", "fold"], "write protocol=, scheme=, fold=, row="),
        (["--seeds", "0"], "must be at least 1"),
        (["--jobs", "0"], "must be at least 1"),
        (["--set", "training.epoch=1"], "did you mean training.epochs?"),
        (["--set", "data.unlabelled_limit=99"], "asks for 99 unlabelled slices"),
        (["--labelled", "nowhere"], "nowhere"),
    ],
)
def test_refusals(more, message, words, tmp_path, capsys) -> None:
    assert main(words(tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert len(error.splitlines()) == 1


def test_rows_that_the_data_cannot_fill(words, phantom, tmp_path, capsys) -> None:
    """No unlabelled set, then one without labels."""
    arguments = words(tmp_path, *HALVES)
    bare = [word for word in arguments if not word.startswith("--unlabelled")]
    assert main(bare) == 2
    assert "needs unlabelled slices: give --unlabelled DIR, or" in capsys.readouterr().err
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in phantom.glob("unlabelled/*/*.dcm"):
        (plain / file.name).symlink_to(file)
    assert main([*bare, "--unlabelled", str(plain), "--only", "row=pretrained"]) == 2
    error = capsys.readouterr().err
    assert "row pretrained: " in error
    assert "plain: no table says which of these slices have haemorrhage" in error
    assert "--only 'row!=pretrained'" in error
    assert any(row.name == "pretrained" for row in ROWS)
