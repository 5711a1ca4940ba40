"""An external test: every score of a run, of a model on a set that it was not trained with."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from numpy.typing import NDArray
from safetensors.torch import save as to_safetensors

from ichfast.data import SUBTYPES, Problems, load_slices
from ichfast.data.pool import MANIFEST
from ichfast.errors import OutputError
from ichfast.evaluation import Evaluation, evaluate, find_intervals, pick_examples, tabulate
from ichfast.evaluation.evaluate import Owned
from ichfast.evaluation.intervals import Ratio, Rows, bootstrap, score_overlap
from ichfast.files import report_errors, write_whole
from ichfast.inference.model import Model
from ichfast.inference.native import Native, ScanVolume, measure_native
from ichfast.metrics import number_names
from ichfast.versions import list_versions

MODEL, METRICS, SLICES, SCANS = "model.toml", "metrics.json", "slices.json", "scans.json"
EXAMPLES = "examples.safetensors"
BATCH_SIZE = 16
POOL = "no scores on the scans' own grid: a pool holds slices at one size alone"


def run_test(
    model: Model, root: Path, out: Path, *, progress: bool = True
) -> tuple[dict[str, Any], Problems]:
    """Test ``model`` on the labelled set below ``root``, and write the files of the test into
    ``out``: the content of its metrics.json, and what could not be read."""
    claim(out)
    start = time.perf_counter()
    slices, problems = load_slices(
        root, size=model.size, window=model.window, labelled=True, progress=progress
    )
    slices = slices.to(model.device)
    found = evaluate(
        model.network,
        slices,
        batch_size=BATCH_SIZE,
        threshold=model.threshold,
        device=model.device,
        surfaces=True,
    )
    native = None
    if not (root / MANIFEST).is_file():
        native = measure_native(model, root, Problems(), progress=progress)
    metrics: dict[str, Any] = {
        "status": "finished",
        "reason": None,
        "model": model.about | {"calibration": model.calibration.model_dump(mode="json")},
        "test": describe_part(found, slices, slices.subtypes),
        "native": None if native is None else describe_native(native, model),
        "volumes": None if native is None else describe_volumes(native.scans, model),
        "notes": [POOL] if native is None else [],
        "data": {
            "test": {"patients": len(set(slices.patients)), "slices": len(slices)},
            "problems": problems.failed,
        },
        "versions": list_versions(),
        "threads": torch.get_num_threads(),
    }
    examples = pick_examples(model.network, slices, found, device=model.device)
    metrics["seconds"] = {"evaluation": time.perf_counter() - start}
    write(out, MODEL, tomli_w.dumps(describe_model(model, root)).encode())
    write(out, SLICES, to_json(tabulate(slices, found, slices)))
    if native is not None:
        write(out, SCANS, to_json(tabulate_scans(native.scans)))
    write(out, EXAMPLES, to_safetensors(examples))
    write(out, METRICS, json.dumps(metrics, indent=1, allow_nan=False).encode())
    return metrics, problems


def claim(out: Path) -> None:
    with report_errors(out, "Choose another --out."):
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise OutputError(f"{out} is not empty; choose another --out.")


def write(out: Path, name: str, data: bytes) -> None:
    write_whole(out / name, data, fix="Make room or choose another --out.")


def to_json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, allow_nan=False).encode()


def describe_model(model: Model, root: Path) -> dict[str, Any]:
    """What was tested on what, ready for TOML, which has no null."""
    about = {key: value for key, value in model.about.items() if isinstance(value, str | int)}
    return {
        "model": about | {"threshold": model.threshold},
        "data": {"labelled": root.resolve().name, "size": model.size, "window": model.window},
    }


def describe_part(
    found: Evaluation, slices: Owned, subtypes: Sequence[tuple[str, ...] | None]
) -> dict[str, Any]:
    """Scores, intervals, and the same of the slices with each subtype, where the set names any."""
    return found.metrics | {
        "intervals": find_intervals(found, slices),
        "subtypes": score_subtypes(found.counts.numpy(), slices.patients, subtypes),
    }


def describe_native(native: Native, model: Model) -> dict[str, Any]:
    """The same on the scans' own grid, and of each subtype the share of its voxels that was found;
    None where masks do not tell the subtypes apart."""
    found = native.evaluate(model.threshold)
    part = describe_part(found, native, native.subtypes)
    kinds = np.concatenate(native.kinds)
    rows = Rows.from_patients(number_names(native.patients, native.patients))
    for name, own in part["subtypes"].items():
        there, hit = kinds[:, SUBTYPES.index(name)].T
        told = ~np.isnan(there)
        counts = np.stack([hit, 0 * hit, there - hit], 1)[told]  # whose Jaccard is hit/there
        own["voxels_found"] = (
            to_range(score_overlap(rows.select(told), counts, "jaccard", "pooled"))
            if told.any()
            else None
        )
    return part


def score_subtypes(
    counts: NDArray[np.int64],
    patients: Sequence[str],
    subtypes: Sequence[tuple[str, ...] | None],
) -> dict[str, Any]:
    """By subtype, of the slices that have it, whatever else they have: pooled Dice with its
    interval over patients, slices, patients, and slices in which nothing was found."""
    numbers = np.array(number_names(patients, patients))
    scores = {}
    for name in SUBTYPES:
        own = np.array([name in (kinds or ()) for kinds in subtypes], bool)
        if not own.any():
            continue
        rows = Rows.from_patients(numbers[own])
        scores[name] = {
            "n_slices": int(own.sum()),
            "n_patients": len(set(numbers[own].tolist())),
            "missed": int((counts[own, 0] == 0).sum()),
            "dice": to_range(score_overlap(rows, counts[own], "dice", "pooled")),
        }
    return scores


def to_range(ratio: Ratio) -> dict[str, float | None]:
    estimate, low, high, _ = bootstrap(ratio)
    return {"estimate": estimate, "low": low, "high": high}


def describe_volumes(scans: Sequence[ScanVolume], model: Model) -> dict[str, Any]:
    """How far mL are off, how many true ones lie in their interval, and how often the scan score is
    right."""
    measured = [(one.ml, one.true_ml) for one in scans if one.ml is not None]
    errors = np.array([found - true for found, true in measured if true is not None])
    inside = [
        one.interval[0] <= one.true_ml <= one.interval[1]
        for one in scans
        if one.interval is not None and one.true_ml is not None
    ]
    scan = model.calibration.scan
    called = [
        (one.score > scan.threshold, one.blood) for one in scans if scan and one.score is not None
    ]
    rates = {
        name: mean([call == truth for call, truth in called if truth == kind])
        for name, kind in (("sensitivity", True), ("specificity", False))
    }
    return {
        "n_scans": len(scans),
        "n_measured": len(errors),
        "mean_error_ml": mean(errors),
        "mean_absolute_error_ml": mean(abs(errors)),
        "interval": {"n_scans": len(inside), "inside": mean(inside)},
        "scan_score": rates | {"n_scans": len(called)},
    }


def mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None


def tabulate_scans(scans: Sequence[ScanVolume]) -> dict[str, Any]:
    """Columns, one value for each scan; no identifier is among them."""
    patients = [one.patient for one in scans]
    return {
        "patient": number_names(patients, patients),
        "blood": [one.blood for one in scans],
        "ml": [one.ml for one in scans],
        "true_ml": [one.true_ml for one in scans],
        "low_ml": [one.interval and one.interval[0] for one in scans],
        "high_ml": [one.interval and one.interval[1] for one in scans],
        "score": [one.score for one in scans],
    }
