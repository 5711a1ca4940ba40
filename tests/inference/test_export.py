"""A run's model as one file."""

from pathlib import Path

import numpy as np
import pytest
from test_model import make_hu, write_run

import ichfast
from ichfast.__main__ import main


@pytest.mark.parametrize("old", [False, True])
def test_the_file_stands_alone(tmp_path, monkeypatch, capsys, old) -> None:
    run = write_run(tmp_path / "fold3", old=old)
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run)]) == 0
    assert capsys.readouterr().out.startswith("fold3.safetensors: ")
    alone, of_run = ichfast.load_model("fold3.safetensors"), ichfast.load_model(run)
    assert np.array_equal(alone.segment(make_hu()), of_run.segment(make_hu()))
    assert alone.about == of_run.about
    assert alone.calibration == of_run.calibration


def test_name_and_licence(tmp_path) -> None:
    run, out = write_run(tmp_path / "run"), tmp_path / "a.safetensors"
    words = ["export", str(run), "--out", str(out), "--name", "mine", "--licence", "CC BY 4.0"]
    assert main(words) == 0
    model = ichfast.load_model(out)
    assert (model.name, model.about["licence"]) == ("mine", "CC BY 4.0")
    before = out.read_bytes()
    out.unlink()
    assert main(words) == 0
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("run", "out", "says"),
    [
        ("run", "there.safetensors", "is there already; delete it, or choose another --out"),
        ("run", "model.pt", "name it model.pt.safetensors"),
        ("run", "no/such.safetensors", "could not be written"),
        ("nothing", "new.safetensors", "does not exist; give a run folder"),
    ],
)
def test_refusals(tmp_path: Path, monkeypatch, capsys, run, out, says) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run")
    Path("there.safetensors").touch()
    assert main(["export", run, "--out", out]) == 2
    assert says in capsys.readouterr().err
    assert Path("there.safetensors").read_bytes() == b""


@pytest.mark.parametrize("name", ["../mine", "mine\n", "a\\b"])
def test_a_name_that_files_and_dicom_cannot_have(tmp_path: Path, capsys, name) -> None:
    run, out = write_run(tmp_path / "run"), tmp_path / "new.safetensors"
    assert main(["export", str(run), "--out", str(out), "--name", name]) == 2
    assert "is no name of a model" in capsys.readouterr().err
    assert not out.exists()
