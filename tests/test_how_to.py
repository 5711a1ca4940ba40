"""The how-to pages' commands, word for word, on small trees of the shapes that they speak of."""

import contextlib
import importlib
import io
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from dicom_series import write_ct_series

import ichfast
from ichfast.data.nnunet import export
from ichfast.data.phantom import write_phantom
from ichfast.data.problems import Problems

PAGES = Path(ichfast.__file__).parents[1] / "docs" / "how-to"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that the pages' reader works in, with a `python` that notes what it is asked."""
    monkeypatch.chdir(tmp_path)
    write_phantom(
        tmp_path / "phantom",
        patients=6,
        unlabelled_patients=2,
        size=128,
        slices=4,
        seed=1,
        progress=False,
        workers=1,
    )
    (tmp_path / "phantom" / "labelled").rename(tmp_path / "ct-ich")
    (tmp_path / "phantom" / "unlabelled").rename(tmp_path / "rsna")
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f"#!/bin/sh\n{{ printf '%s\\t' \"$@\"; echo; }} >> {tmp_path}/asked\n")
    python.chmod(0o755)
    return tmp_path


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (PAGES / page).read_text(), re.M | re.S)


def follow(page: str, folder: Path) -> str:
    """Run the page's Python, in one go, and its commands as the shell hands them over, with the
    page's own recipe; what they print. In this process, since importing torch takes most of the
    time of so short a run."""
    for recipe in blocks(page, "toml"):
        (folder / "first.toml").write_text(recipe)
    environment = os.environ | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    for block in blocks(page, "sh"):
        subprocess.run(["sh", "-ec", block], cwd=folder, env=environment, check=True)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec("\n".join(blocks(page, "python")), {})
        for line in (folder / "asked").read_text().splitlines():
            option, module, *words = line.rstrip("\t").split("\t")
            assert option == "-m"
            assert importlib.import_module(module).main(words) == 0
    return printed.getvalue()


def metrics(run: Path):
    return json.loads((run / "metrics.json").read_text())


def test_ct_ich_and_rsna(folder):
    printed = follow("ct-ich-rsna.md", folder)
    assert "6 scans, 6 with haemorrhage" in printed
    assert "no problems" in printed
    assert "6 scans in nnUNet_raw/Dataset501_CTICH" in printed
    for run in ("first", "supervised", "pooled", "fold-0", "fold-1"):
        found = metrics(folder / "runs" / run)
        strategy = "supervised" if run == "supervised" else "curriculum"
        assert (found["status"], found["strategy"]) == ("finished", strategy)
    of_folds = [metrics(folder / "runs" / f"fold-{fold}")["data"] for fold in (0, 1)]
    parts = ("train", "validation", "test")
    assert [sum(data[part]["patients"] for part in parts) for data in of_folds] == [6, 6]
    assert sum(data["test"]["patients"] for data in of_folds) == 6
    description = json.loads((folder / "nnUNet_raw/Dataset501_CTICH/dataset.json").read_text())
    assert description["numTraining"] == 6


def test_own_dicom(folder):
    export(folder / "ct-ich", folder / "my-masks", Problems())
    (folder / "rsna" / "stage_2_train").rename(folder / "my-ct")
    printed = follow("own-dicom.md", folder)
    assert "no problems" in printed
    for run, strategy in (("first", "supervised"), ("first-with-my-ct", "curriculum")):
        found = metrics(folder / "runs" / run)
        assert (found["status"], found["strategy"]) == ("finished", strategy)


def test_ct_ich(folder):
    printed = follow("ct-ich.md", folder)
    slices, patients, positive = map(int, printed.splitlines()[0].split())
    assert (slices, patients) == (24, 6)
    assert 0 < positive < slices
    assert "no problems" in printed
    for run, strategy in (("first", "supervised"), ("few", "paste_negatives")):
        found = metrics(folder / "runs" / run)
        assert (found["status"], found["strategy"]) == ("finished", strategy)


def test_segment(folder):
    write_ct_series(folder / "my-ct")
    (folder / "ct-ich").rename(folder / "other-masks")
    words = ["training.epochs=1", "supervised.draws=16", "model.channels=[4,8]", "data.size=64"]
    settings = [word for text in words for word in ("--set", text)]
    run = ["--labelled", "other-masks", "--out", "runs/mine", *settings]
    assert importlib.import_module("ichfast.train").main(run) == 0
    printed = follow("segment.md", folder)
    assert printed.count("1 segmented, 0 left out, 0 failed") == 2
    for out in ("segmented", "segmented-mine"):
        assert len(list((folder / out).glob("*/report.html"))) == 1
    assert list(folder.rglob("mine.safetensors"))
    assert (folder / "evaluated" / "report.html").exists()
