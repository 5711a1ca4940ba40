"""An external test: scores at the network's size and on the scans' grid, mL, subtypes, files."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from preparing import prepare_pool
from test_model import SIZE, load, make_hu, make_series, write, write_run
from torch import Tensor, nn

from ichfast.__main__ import main
from ichfast.data import Problems, read_series
from ichfast.data.series import SUBTYPES
from ichfast.evaluation.calibration import Calibration, ScanScore, VolumeInterval
from ichfast.inference.external import describe_native, describe_volumes, score_subtypes
from ichfast.inference.native import ScanVolume, measure_native, measure_scan

CALIBRATION = Calibration(
    temperature=2.0,
    volume=VolumeInterval(level=0.9, thresholds=(0.9, 0.1), margin=0.3, scans=9),
    scan=ScanScore(
        unit="mL",
        threshold=0.2,
        sensitivity=0.9,
        specificity=0.8,
        positive=9,
        negative=9,
        intercept=-1.0,
        slope=2.0,
    ),
    patients=18,
    reasons={},
)


class Bright(nn.Module):
    """Blood is what is bright; the model's own number of pixels, so that nothing else counts."""

    width = 1

    def segment(self, image: Tensor) -> Tensor:
        return 20 * image - 10

    def segment_fast(self, image: Tensor) -> Tensor:
        return self.segment(image)


def make_set(root: Path, *, named: bool = True, cases: int = 3) -> Path:
    """Scans of 32×32×4 voxels of 2 × 2 × 5 mm with two bleeds, of which one is too dark to be
    found; the last scan has none."""
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    for i in range(cases):
        random = np.random.default_rng(i)
        hu = random.integers(0, 30, (32, 32, 4)).astype(np.int16)
        hu[0], hu[1] = -1000, 800
        mask = np.zeros(hu.shape, np.uint8)
        if i < cases - 1:
            hu[8:16, 8:20, 1:3], mask[8:16, 8:20, 1:3] = 90, 1
            hu[20:26, 8:16, 2], mask[20:26, 8:16, 2] = 25, 2
        nib.save(nib.Nifti1Image(hu, affine), root / "imagesTr" / f"c{i}_0000.nii.gz")
        nib.save(nib.Nifti1Image(mask, affine), root / "labelsTr" / f"c{i}.nii.gz")
    if named:
        table = {"labels": {"background": 0, "EDH": 1, "SDH": 2}, "numTraining": cases}
        (root / "dataset.json").write_text(json.dumps(table))
    return root


@pytest.fixture
def bright(tmp_path: Path) -> Any:
    model = load(tmp_path, calibration=CALIBRATION.model_dump(mode="json"), threshold=0.5)
    model.network = Bright()
    return model


def test_counts_are_those_of_the_scans_own_voxels(bright, tmp_path) -> None:
    root = make_set(tmp_path / "set")
    native = measure_native(bright, root, Problems(), progress=False)
    scans = list(read_series(root, Problems()))
    counts = []
    for series in scans:
        predicted = bright.segment(series.stored, series.spacing) > bright.threshold
        both = (predicted & series.mask).sum((1, 2))
        counts.append(np.stack([both, predicted.sum((1, 2)) - both], 1))
    found = native.evaluate(bright.threshold)
    assert found.counts[:, :2].tolist() == np.concatenate(counts).tolist()
    assert found.counts.sum(1).max() > 90
    assert found.metrics["n_slices"] == 12
    part = describe_native(native, bright)
    assert part["subtypes"].keys() == {"epidural", "subdural"}
    epidural, subdural = part["subtypes"]["epidural"], part["subtypes"]["subdural"]
    assert (epidural["n_slices"], epidural["n_patients"], epidural["missed"]) == (4, 2, 0)
    assert epidural["voxels_found"]["estimate"] > 0.9
    assert subdural["voxels_found"]["estimate"] < 0.1
    assert part["intervals"]["positive"]["dice"]["pooled"] is not None
    first = native.scans[0]
    assert first.true_ml == pytest.approx((8 * 12 * 2 + 6 * 8) * 2 * 2 * 5 / 1000)
    assert first.ml == pytest.approx(8 * 12 * 2 * 20 / 1000, rel=0.15)
    assert first.interval is not None
    assert first.interval[0] < first.ml < first.interval[1]
    assert (first.blood, native.scans[-1].blood) == (True, False)


def test_labels_without_names_are_one_class(bright, tmp_path) -> None:
    native = measure_native(
        bright, make_set(tmp_path / "set", named=False), Problems(), progress=False
    )
    part = describe_native(native, bright)
    assert part["subtypes"] == {}
    assert part["n_slices"] == 12


def test_subtypes_of_slices_and_of_voxels_are_apart() -> None:
    counts = np.array([[5, 1, 2], [0, 0, 9], [0, 0, 0]])
    kinds = [("epidural", "subdural"), ("subdural",), None]
    found = score_subtypes(counts, ["a", "b", "b"], kinds)
    assert list(found) == ["epidural", "subdural"]
    assert found["subdural"]["missed"] == 1
    assert found["subdural"]["dice"]["estimate"] == pytest.approx(10 / 22)
    assert found["epidural"]["dice"]["low"] is None


def test_volumes_where_mm_are_not_known(bright) -> None:
    series = make_series(make_hu(3), spacing=(float("nan"),) * 2)
    counts = np.array([[4, 6, 2, 9]] * 3)
    found = measure_scan(bright, series, counts)
    assert (found.ml, found.true_ml, found.interval, found.score) == (None, None, None, None)
    scan = CALIBRATION.scan
    assert scan is not None
    bright.calibration = CALIBRATION.model_copy(
        update={"scan": scan.model_copy(update={"unit": "pixels per slice"})}
    )
    assert measure_scan(bright, series, counts).score == 6
    large = make_series(make_hu(3, 2 * SIZE, 2 * SIZE), spacing=(float("nan"),) * 2)
    assert measure_scan(bright, large, counts).score == 6 / 4


def test_volumes_in_numbers(bright) -> None:
    scans = [
        ScanVolume("a", "a", True, 10.0, 12.0, (8.0, 13.0), 10.0),
        ScanVolume("b", "b", True, 0.1, 2.1, (0.0, 1.0), 0.1),
        ScanVolume("c", "c", False, 0.0, 0.0, (0.0, 0.5), 0.0),
        ScanVolume("d", "d", True, None, None, None, None),
    ]
    found = describe_volumes(scans, bright)
    assert (found["n_scans"], found["n_measured"]) == (4, 3)
    assert found["mean_error_ml"] == pytest.approx(-4 / 3)
    assert found["mean_absolute_error_ml"] == pytest.approx(4 / 3)
    assert found["interval"] == {"n_scans": 3, "inside": pytest.approx(2 / 3)}
    assert found["scan_score"] == {"sensitivity": 0.5, "specificity": 1.0, "n_scans": 3}


def test_the_command(tmp_path, monkeypatch, capsys) -> None:
    root, monkey = make_set(tmp_path / "my set"), write_run(tmp_path / "fold0")
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(monkey), "--labelled", str(root)]) == 0
    out = tmp_path / "runs" / "fold0-on-myset"
    assert "test: 12 slices of 3 patients" in capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["test"]["n_slices"] == metrics["native"]["n_slices"] == 12
    assert metrics["test"].keys() == metrics["native"].keys()
    assert metrics["model"]["name"] == "fold0"
    assert metrics["volumes"]["n_measured"] == 3
    columns = json.loads((out / "scans.json").read_text())
    assert {len(column) for column in columns.values()} == {3}
    assert len(json.loads((out / "slices.json").read_text())["tp"]) == 12
    page = (out / "report.html").read_text()
    assert "external test" in page
    assert "The log has no epoch" not in page
    assert "c0" not in (out / "scans.json").read_text() + (out / "slices.json").read_text()
    assert main(["evaluate", str(monkey), "--labelled", str(root), "--out", str(out)]) == 2
    assert "is not empty; choose another --out" in capsys.readouterr().err


def test_a_pool_has_no_scores_on_the_scans_own_grid(tmp_path) -> None:
    root, pool = make_set(tmp_path / "set"), tmp_path / "pool"
    prepare_pool(root, pool, size=SIZE, workers=1, progress=False)
    model, out = write(tmp_path / "a.safetensors"), tmp_path / "out"
    assert main(["evaluate", str(model), "--labelled", str(pool), "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["native"], metrics["volumes"]) == (None, None)
    assert "a pool holds slices at one size" in metrics["notes"][0]
    assert "a pool holds slices at one size" in (out / "report.html").read_text()
    assert metrics["test"]["n_slices"] == 12


def test_refusals(tmp_path, capsys) -> None:
    model = str(write(tmp_path / "a.safetensors"))
    root = make_set(tmp_path / "set")
    for folder in (root / "labelsTr").iterdir():
        folder.unlink()
    out = ["--out", str(tmp_path / "out")]
    assert main(["evaluate", model, "--labelled", str(root), *out]) == 2
    assert "no .nii files; put the masks" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "no"), "--labelled", str(root), *out]) == 2
    assert "does not exist; give a run folder" in capsys.readouterr().err
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_subtypes_of_voxels_survive_the_reader(tmp_path) -> None:
    series = next(iter(read_series(make_set(tmp_path / "set"), Problems())))
    assert series.kinds is not None
    assert np.array_equal(series.kinds > 0, series.mask)
    names = {SUBTYPES[kind - 1] for kind in np.unique(series.kinds).tolist() if kind}
    assert names == {"epidural", "subdural"}
    unnamed = next(iter(read_series(make_set(tmp_path / "b", named=False), Problems())))
    assert unnamed.kinds is None
    assert torch.equal(torch.from_numpy(unnamed.mask), torch.from_numpy(series.mask))
