"""The page of a run: complete, self-contained, honest about what is missing, and safe to open."""

import json
import math
import re
import tomllib
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import ichfast.report
from ichfast.errors import DataError, IchfastError, OutputError
from ichfast.files import PARTIAL
from ichfast.report import write_report
from ichfast.report.__main__ import main
from ichfast.report.figures import encode_picture, trace_outline
from ichfast.report.page import format_duration, format_score
from ichfast.report.page_template import format_count
from ichfast.report.run import read_run

VOID = {"meta", "img", "link", "br", "line"}


class Page(HTMLParser):
    """Checks that tags balance, and keeps tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += f" {data}"

    def names(self) -> list[str]:
        return [tag for tag, _ in self.tags]


def overlap(dice: Any, jaccard: Any) -> dict[str, Any]:
    ways = ("pooled", "per_slice", "per_patient")
    return {"dice": dict.fromkeys(ways, dice), "jaccard": dict.fromkeys(ways, jaccard)}


def scores(dice: float | None) -> dict[str, Any]:
    """Of slices with blood; those of all slices are half of that."""
    jaccard = None if dice is None else dice / (2 - dice)
    every = overlap(dice and dice / 2, jaccard and jaccard / 2)
    rates = {"slices": 0.85, "scans": None}
    return every | {
        "positive": overlap(dice, jaccard),
        "intervals": overlap([0.125, 0.875], None)
        | {"positive": overlap([0.25, 0.75], None)}
        | {rate: {"slices": [0.5, 0.9], "scans": None} for rate in ("sensitivity", "specificity")},
        "sensitivity": rates,
        "specificity": rates,
        "n_slices": 1234,
        "n_patients": 9,
        "empty_rule": "nan",
        "empty_slices": 17,
        "detection": {"positive": 40, "missed": 6, "negative": 1194, "false_alarms": 21},
        "threshold": 0.5,
    }


def epoch(i: int, step: str = "supervised", **changes: Any) -> dict[str, Any]:
    validation = {"loss": 0.5, "dice": 0.4 + i / 100, "jaccard": 0.3}
    record = {"epoch": i, "step": step, "probability": 0.9, "loss": 1 / (i + 1)}
    return record | {"evaluations": 1, "seconds": 1.0, "validation": validation} | changes


def write_log(run: Path, records: list[dict[str, Any]]) -> None:
    (run / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def change_metrics(run: Path, **changes: Any) -> None:
    path = run / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished curriculum run of twelve epochs."""
    run = tmp_path / "a run"
    run.mkdir()
    (run / "recipe.toml").write_text('[training]\nstrategy = "curriculum"\n\n[data]\nsize = 16\n')
    write_log(run, [epoch(i, "unsupervised" if i % 3 == 2 else "supervised") for i in range(12)])
    metrics = {
        "status": "finished",
        "reason": None,
        "strategy": "curriculum",
        "seed": 3,
        "epochs": 12,
        "best_epoch": 10,
        "steps": {"supervised": 8, "unsupervised": 4},
        "validation": scores(0.6),
        "test": scores(0.5),
        "data": {"train": {"patients": 5, "slices": 70}, "problems": 2},
        "versions": {"torch": "2.13.0"},
        "threads": 2,
        "seconds": {"data": 1.0, "training": 75.0, "evaluation": None},
    }
    (run / "metrics.json").write_text(json.dumps(metrics))
    random = np.random.default_rng(0)
    maps = {"image": 1, "mask": 1, "attention": 2, "reconstruction": 2}
    tensors = {
        name: random.random((3, channels, 16, 16), np.float32) for name, channels in maps.items()
    }
    tensors["target"] = np.zeros((3, 1, 16, 16), np.uint8)
    tensors["target"][:, :, 4:8, 4:8] = 1
    tensors["dice"] = np.array([0.0, 0.25, math.nan])
    save_file(tensors, run / "examples.safetensors")
    return run


def page(run: Path) -> Page:
    path = write_report(run)
    assert path == run / "report.html"
    assert not list(run.glob(f"{PARTIAL}*"))
    return Page(path.read_text(encoding="utf-8"))


def test_a_finished_run_has_everything(run):
    html = page(run)
    for expected in (
        "a run",
        "Finished",
        "strategy curriculum",
        "seed 3",
        "12 epochs: 8 supervised, 4 unsupervised",
        "Test Dice 0.500 [0.250, 0.750] pooled, slices with blood",
        "Of all slices 0.250 [0.125, 0.875] Dice, pooled",
        "Per patient 0.500 [0.250, 0.750]",
        "Test Dice, with blood 0.500 [0.250, 0.750] 0.500 [0.250, 0.750] 0.500 [0.250, 0.750]",
        "Jaccard, with blood 0.333 0.333 0.333",
        "Dice, all slices 0.250 [0.125, 0.875]",
        "Validation Dice, with blood 0.600",
        "Test 0.850 [0.500, 0.900] – 0.850 [0.500, 0.900] –",
        "6 of 40",
        "21 of 1 194",
        "Epoch kept 10",
        "1 min 15 s",
        "left out of the means: 17 in test, 17 in validation",
        "Supervised loss",
        "Unsupervised loss",
        "Schedule",
        "Dice 0.000 worst",
        "Dice – best",
        'strategy = "curriculum"',
        "problems 2",
        "torch 2.13.0 threads 2",
    ):
        assert expected in html.text
    assert html.names().count("img") == 3 * 4
    assert html.names().count("image") == 3


def test_outlines_and_detection(run):
    assert "HD95" not in page(run).text
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["test"] |= {
        "hd95": {"per_slice": 17.25, "per_patient": 16.5},
        "nsd": {"1 mm": {"per_slice": 0.25, "per_patient": None}},
        "surface": {"n_slices": 41, "missed": 6, "false_alarms": 5, "no_spacing": 0},
        "sensitivity": {"slices": 0.85, "scans": 1.0},
        "specificity": {"slices": 0.75, "scans": None},
        "detection": {"positive": 41, "missed": 6, "negative": 0, "false_alarms": 0},
    }
    del metrics["validation"]
    (run / "metrics.json").write_text(json.dumps(metrics))
    text = page(run).text
    assert "HD95 (mm) – 17.250 16.500" in text
    assert "NSD, 1 mm – 0.250 –" in text
    assert "6 missed and 5 false alarms of 41 in test" in text
    assert "Test 0.850 [0.500, 0.900] 1.000 0.750 [0.500, 0.900] –" in text
    assert "all slices" not in text.partition("Pooled:")[0], "where none is without blood"


def test_nothing_is_fetched_and_nothing_runs(run):
    html = page(run)
    assert not {"script", "link", "iframe", "object", "base"} & set(html.names())
    for _, attributes in html.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/png;base64,")) or value == "examples.html"
    text = (run / "report.html").read_text()
    assert not re.search(r"@import|url\((?!#)", text)
    assert set(re.findall(r"https?://[^\s\"<]*", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }  # names, never fetched


def test_ids_are_unique_and_references_hold(run):
    html = page(run)
    ids = [attributes["id"] for _, attributes in html.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = {
        reference
        for _, attributes in html.tags
        for value in attributes.values()
        for reference in re.findall(r"^#(\w+)$|url\(#(\w+)\)", value or "")
    }
    assert {a or b for a, b in used if (a or b) and len(a or b) > 6} <= set(ids)


def test_text_from_files_is_escaped(run):
    attack = "<script>alert(1)</script>"
    (run / "recipe.toml").write_text(f'[data]\nlabelled = "{attack}"\n')
    change_metrics(
        run, strategy=attack, reason=attack, status="diverged", versions={attack: attack}
    )
    html = page(run)
    assert "script" not in html.names()
    assert html.text.count(attack) == 5


def test_same_files_same_page(run):
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_supervised_run(run):
    write_log(run, [epoch(i) for i in range(12)])
    html = page(run)
    assert "No epoch was unsupervised" in html.text
    assert "this run never trained that path" in html.text
    assert "Unsupervised loss" not in html.text
    assert "Schedule" not in html.text


def test_losses_of_steps_with_parts(run):
    parts = {"supervised": 0.4, "unsupervised": 0.1}
    write_log(
        run, [epoch(i, "classification" if i < 3 else "joint", parts=parts) for i in range(9)]
    )
    html = page(run)
    assert "9 epochs: 3 classification, 6 joint" in html.text
    for panel in ("Supervised loss", "Unsupervised loss"):
        assert panel in html.text
    assert "Schedule" not in html.text
    assert "this run never trained that path" not in html.text
    write_log(run, [epoch(i, "classification") for i in range(3)])
    assert "Classification loss" in page(run).text


def test_the_loss_of_any_step_has_a_panel(run):
    write_log(run, [epoch(i, "some_new_step" if i % 2 else "supervised") for i in range(9)])
    text = page(run).text
    assert text.index("Supervised loss") < text.index("Some new step loss")


@pytest.mark.parametrize("status", ["interrupted", "diverged", "unfinished"])
@pytest.mark.parametrize("evaluated", [True, False])
def test_runs_that_did_not_finish_say_so(run, status, evaluated):
    changes = {} if evaluated else {"test": None, "validation": None, "best_epoch": None}
    change_metrics(run, status=status, reason="the loss is nan", **changes)
    html = page(run)
    assert status.capitalize() in html.text
    assert "the loss is nan" in html.text
    assert ("weights it had kept by then" in html.text) == evaluated
    assert ("It was not evaluated" in html.text) != evaluated
    assert ("Test Dice" in html.text) == evaluated


def test_who_chose_the_weights(run):
    assert "The validation part chose the epoch" in page(run).text
    change_metrics(run, best_epoch=None)
    text = page(run).text
    assert "no score chose them" in text
    assert "chose the epoch" not in text
    assert "Epoch kept" not in text


def test_run_that_went_on_after_its_metrics(run):
    change_metrics(run, epochs=7)
    assert "the scores are of 7 epochs, the curves of 12" in page(run).text


@pytest.mark.parametrize("log", ["", "\n", None])
def test_run_that_has_just_begun(run, log):
    for name in ("metrics.json", "examples.safetensors", "log.jsonl"):
        (run / name).unlink()
    if log is not None:
        (run / "log.jsonl").write_text(log)
    html = page(run)
    assert "Unfinished" in html.text
    assert "The log has no epoch to draw yet." in html.text
    assert "None yet" in html.text


def test_numbers_that_do_not_exist_are_dashes_and_crosses(run):
    bad = [epoch(0, loss=math.nan), epoch(1, loss=math.inf), epoch(2, loss=None, validation=None)]
    write_log(run, [*bad, epoch(3, "unsupervised", probability=None), epoch(4, loss=1e30)])
    change_metrics(run, test=scores(None))
    html = page(run)
    assert "Test Dice –" in html.text
    assert "training: not finite" in html.text
    assert not re.search(r"\bnan\b", html.text, re.IGNORECASE)


def test_examples_without_reconstruction_or_with_none_at_all(run):
    tensors = load_file(run / "examples.safetensors")
    del tensors["reconstruction"]
    save_file(tensors, run / "examples.safetensors")
    html = page(run)
    assert html.names().count("img") == 3 * 2
    assert "rebuild" not in html.text
    (run / "examples.safetensors").unlink()
    assert "image" not in page(run).names()


def test_a_line_cut_off_by_a_kill_is_left_out_and_a_repeated_epoch_counts_once(run):
    with (run / "log.jsonl").open("a") as file:
        file.write(json.dumps(epoch(11, loss=0.125)) + "\n")
        file.write('{"epoch": 12, "st')
    log = read_run(run).log
    assert [entry.epoch for entry in log] == list(range(12))
    assert log[-1].losses == {"supervised": 0.125}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("log.jsonl", "{}\n", "log.jsonl, line 1"),
        ("log.jsonl", "[1]\n", "log.jsonl, line 1"),
        ("log.jsonl", "\n{oops\n", "log.jsonl, line 2"),
        ("metrics.json", "{", "metrics.json is not valid JSON"),
        ("metrics.json", "[]", "metrics.json is not the metrics file"),
        ("examples.safetensors", "rubbish", "examples.safetensors cannot be read"),
        ("recipe.toml", b"\xff\xfe\xff", "recipe.toml cannot be read"),
        ("recipe.toml", "data = 3", "recipe.toml is no recipe with data.window"),
        ("recipe.toml", "[data]\nwindow = [40]", "recipe.toml is no recipe with data.window"),
    ],
)
def test_a_broken_file_is_named(run, capsys, name, content, says):
    (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=re.escape(says)):
        write_report(run)
    assert main([str(run)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_examples_in_the_viewer(run):
    (run / "recipe.toml").write_text("[data]\nwindow = [30.0, 100.0]\n")
    assert ("a", {"href": "examples.html"}) in page(run).tags
    text = (run / "examples.html").read_text(encoding="utf-8")
    described = json.loads(re.search(r'id="study">(.*?)</script>', text)[1])
    pictures = load_file(run / "examples.safetensors")
    assert described["window"] == [30, 100]
    assert described["labels"] == ["Dice 0.000, the worst", "Dice 0.250", "Dice –, the best"]
    assert not described["oneScan"]
    above = np.array(described["histograms"])[:, described["step"] + 1 :].sum(1)
    assert np.array_equal(above, (pictures["mask"] > 0.5).sum((1, 2, 3)))
    assert described["target"] == [16, 16, 16]


def test_examples_of_former_weights_go(run):
    write_report(run)
    change_metrics(run, test=None)
    assert "a" not in page(run).names()
    assert not (run / "examples.html").exists()


def test_examples_that_lack_a_tensor_are_named(run):
    save_file({"image": np.zeros((1, 1, 4, 4), np.float32)}, run / "examples.safetensors")
    with pytest.raises(DataError, match="lacks dice, mask, target"):
        write_report(run)


def test_metrics_of_another_shape_are_named(run):
    change_metrics(run, test={"dice": {}})
    with pytest.raises(DataError, match=r"metrics\.json lacks what the page shows"):
        write_report(run)


def test_a_folder_that_is_no_run(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(OutputError, match="is not a run folder"):
            write_report(folder)


def test_a_failed_write_keeps_the_former_page(run, monkeypatch):
    former = write_report(run).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match=r"\.html could not be written: No space left"):
        write_report(run)
    assert (run / "report.html").read_bytes() == former
    assert not list(run.glob(f"{PARTIAL}*"))


def test_command(run, capsys):
    assert main([str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert issubclass(OutputError, IchfastError)


def test_outline_runs_along_the_edge_of_the_pixels():
    mask = np.zeros((6, 8))
    mask[2:4, 5:8] = 1  # touches the right border
    points = np.array(re.findall(r"([-\d.]+) ([-\d.]+)", trace_outline(mask, 0.5)), float)
    assert points.min(0).tolist() == [5, 2]
    assert points.max(0).tolist() == [8, 4]
    assert trace_outline(np.zeros((6, 8)), 0.5) == ""
    assert trace_outline(np.full((6, 8), math.nan), 0.5) == ""


def test_picture_is_a_grey_png():
    assert encode_picture([[0, 0.5], [1, math.nan]]).startswith("data:image/png;base64,iVBOR")


def test_formats():
    assert [format_score(x) for x in (0.12349, None, math.inf)] == ["0.123", "–", "–"]
    assert [format_count(n) for n in (1234567, 0, None)] == ["1\u2009234\u2009567", "0", "–"]
    assert [format_duration(s) for s in (1.26, 59.96, 60, 3599.9, 7384, None)] == [
        "1.3 s",
        "1 min 00 s",
        "1 min 00 s",
        "1 h 00 min",
        "2 h 03 min",
        "–",
    ]


def test_what_the_pages_need_is_packaged(run: Path) -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["ichfast.report"]
    folder = Path(ichfast.report.__file__).parent
    files = [p.name for p in folder.iterdir() if p.is_file() and p.suffix != ".py"]
    assert {"audit.html", "common.css", "template.html"} <= set(files)
    assert all(any(fnmatch(name, pattern) for pattern in patterns) for name in files)
    page(run)
    html = (run / "report.html").read_text()
    assert (folder / "common.css").read_text().strip() in html, "the page is one file"
