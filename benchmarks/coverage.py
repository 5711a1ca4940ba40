"""Does the 90 % interval for mL hold nine of ten true volumes? On phantoms, over many splits.

    python -m benchmarks.coverage --out runs/coverage

A small network learns on one phantom; the scans of another, none of which it has seen, are split at
random into a few that calibrate and all others, which test, again and again. Each split fits
temperature, interval and scan score from nothing but its own calibrating scans, as the end of a run
does. Volumes are taken on the network's grid, where a run calibrates, and on the scan's own, where
they are used.
"""

import argparse
import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import describe_commit, describe_machine, describe_versions
from ichfast.data import Problems, Series, read_series
from ichfast.data.phantom import write_phantom
from ichfast.data.resize import resize_hu, resize_masks
from ichfast.data.slabs import measure_slabs, pixel_area
from ichfast.data.slices import SliceSet
from ichfast.errors import IchfastError
from ichfast.evaluation.calibrate import (
    FINE,
    LARGEST,
    LEVEL,
    POSSIBLE,
    STEPS,
    SURE,
    Scans,
    count_logits,
    fit_interval,
    fit_scan_score,
    fit_temperature,
    refine,
)
from ichfast.evaluation.calibration import ScanScore, VolumeInterval
from ichfast.inference.model import Model, load_model
from ichfast.training import Recipe, RunFolder, recipe, run
from ichfast.training.folder import METRICS
from ichfast.training.presets import SMALL

RESULTS = Path(__file__).parent / "results"
TOLERANCE = 0.03
GRID, OWN = 0, 1
"""the network's grid and the scan's own"""
HAIR = 1e-9
"""mL: an end may be a true volume, up to rounding"""
TRAINED: dict[str, Any] = {
    "training.strategy": "supervised",
    "training.epochs": 30,
    "training.select": "last",
    "training.statistics": "running",
    "model.channels": [8, 16, 32],
    "supervised.optimizer": "adam",
    "supervised.alpha": 0.5,
    "supervised.beta": 0.5,
    "supervised.cross_entropy": 1.0,
    "adam.learning_rate": 4e-3,
    "adam.decay": "cosine",
    "data.size": 64,
    "data.slices": "all",
    "data.train": 1.0,
    "data.validation": 0.0,
    "data.test": 0.0,
    "phantom.patients": 60,
    "phantom.unlabelled": 1,
    "phantom.slices": 8,
    "phantom.size": 128,
}


@dataclass(frozen=True, eq=False)
class Measured:
    """K scans. Grids are the network's and the scan's own."""

    logits: NDArray[np.int64]  # (K, 2, B) pixels of the network's grid, as `count_logits` has them
    fine: NDArray[np.int64]  # (K, B) those of the finer grid that a run counts volumes on
    native: NDArray[np.int64]  # (K, B) those of the scan's own grid
    truth: NDArray[np.float64]  # (K, 2) mL of the mask on either grid
    ml: NDArray[np.float64]  # (K, 2) of a pixel, of the finer grid and of the scan's own

    @cached_property
    def above(self) -> NDArray[np.int64]:
        """(K, 2, B) pixels in each bin and those above it, on either grid."""
        counts = np.stack([self.fine, self.native], 1)
        return counts[:, :, ::-1].cumsum(2)[:, :, ::-1]

    def find_volumes(self, logit: float) -> NDArray[np.float64]:
        """(K, 2) mL above a logit, on either grid."""
        volumes: NDArray[np.float64] = (
            self.above[:, :, math.floor((logit + LARGEST) * STEPS) + 1] * self.ml
        )
        return volumes


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.coverage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--scans", type=int, default=700, metavar="N", help="scans to split (%(default)s)")
    add("--calibrate", type=int, nargs="+", default=[10, 20, 40, 100], metavar="N", help="of them")
    add("--splits", type=int, default=500, metavar="N", help="of each kind (%(default)s)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="recipe key")
    add("--out", type=Path, default=Path("runs/coverage"), help="folder (%(default)s)")
    add("--results", type=Path, default=RESULTS, help="folder of the tables")
    options = parser.parse_args(arguments)
    try:
        chosen = recipe.merge(Recipe(), SMALL | TRAINED)
        chosen = recipe.apply_settings(chosen, options.set)
        model = train(chosen, options.out / "run")
        measured = measure(model, chosen, options.out / "phantom-scans", options.scans)
    except IchfastError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    result = {
        "command": shlex.join(
            ["python", "-m", "benchmarks.coverage", *(arguments or sys.argv[1:])]
        ),
        "scans": len(measured.truth),
        "with_blood": int((measured.truth[:, 1] > 0).sum()),
        "splits": options.splits,
        "rows": [cover(measured, n, options.splits) for n in options.calibrate],
        "recipe": recipe.to_toml(chosen),
        "machine": describe_machine(torch.get_num_threads()),
        "versions": describe_versions("cpu"),
        **describe_commit(),
    }
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "coverage.json").write_text(json.dumps(result, indent=1) + "\n")
    text = format_result(result)
    (options.results / "coverage.md").write_text(text)
    print(text)
    # On the scan's own grid, which has finer masks than those calibrated against, more is covered.
    means = [row["coverage"]["grid"]["mean"] for row in result["rows"]]
    return 0 if all(abs(mean - LEVEL) <= TOLERANCE for mean in means) else 1


def train(chosen: Recipe, folder: Path) -> Model:
    """The model of the recipe; trained where it is not there yet."""
    if not (folder / METRICS).exists():
        with RunFolder(folder, resume=(folder / "recipe.toml").exists()) as held:
            run(chosen, held, torch.device("cpu"))
    return load_model(folder)


def measure(model: Model, chosen: Recipe, folder: Path, scans: int) -> Measured:
    """On scans of a phantom with another seed than that which the model has seen."""
    write_phantom(
        folder,
        patients=scans,
        unlabelled_patients=0,
        size=chosen.phantom.size,
        slices=chosen.phantom.slices,
        seed=chosen.phantom.seed + 1,
    )
    problems, rows = Problems(), []
    for series in read_series(folder / "labelled", problems, progress=True):
        rows.append(measure_scan(model, series))
    return Measured(*(np.array(column) for column in zip(*rows, strict=True)))


def measure_scan(model: Model, series: Series) -> tuple[Any, ...]:
    """A row of `Measured`."""
    slabs, area = measure_slabs(series.positions), pixel_area(series.spacing)
    assert slabs is not None
    assert area is not None
    assert np.allclose(slabs, slabs[0])  # so that bins need no slices
    masks, every = resize_masks(series, model.size), np.arange(len(series))
    slices = SliceSet(
        hu=torch.from_numpy(resize_hu(series, every, model.size)),
        masks=masks[:, 0],
        rows=torch.from_numpy(every),
        window=model.window,
        patients=(series.patient,) * len(series),
        series=(series.series,) * len(series),
        positions=tuple(series.positions.tolist()),
        sources=series.sources,
        spacings=(series.spacing,) * len(series),
    )
    logits = count_logits(model.network, slices, batch_size=len(series))
    image, _ = slices.batch(every)
    with torch.inference_mode():
        fine = count_bins(refine(model.network.segment(image)).numpy())
    native = np.zeros_like(fine)
    for _, probability in model.segment_series(series):
        sure = probability.astype(np.float64).clip(1e-12, 1 - 1e-12)
        native += count_bins(np.log(sure / (1 - sure)))
    _, rows, columns = series.stored.shape
    own = area * slabs[0] / 1000
    of_grid = own / model.measure_pixel(rows, columns, series.spacing)
    assert series.mask is not None
    truth = [int(masks.sum()) * of_grid, int(series.mask.sum()) * own]
    return logits, fine, native, truth, [of_grid / FINE**2, own]


def count_bins(logits: NDArray[Any]) -> NDArray[np.int64]:
    """(B,) logits in each bin of `count_logits`."""
    places = np.round((logits.clip(-LARGEST, LARGEST) + LARGEST) * STEPS).astype(np.int64)
    return np.bincount(places.ravel(), minlength=2 * LARGEST * STEPS + 1)


def cover(measured: Measured, calibrate: int, splits: int) -> dict[str, Any]:
    """Over random splits: how many of the true volumes lie in the intervals of the scans that did
    not calibrate, and how often the scan score is right."""
    random = np.random.default_rng(calibrate)
    truth, count = measured.truth, len(measured.truth)
    inside: dict[str, list[float]] = {
        name: [] for name in ("native", "grid", "small", "large", "every")
    }
    widths, temperatures, rates = [], [], []
    for _ in range(splits):
        order = random.permutation(count)
        own, others = order[:calibrate], order[calibrate:]
        temperature = fit_temperature(measured.logits[own].sum(0)) or 1.0
        temperatures.append(temperature)
        sure, possible = (
            measured.find_volumes(math.log(p / (1 - p)) * temperature) for p in (SURE, POSSIBLE)
        )
        mask = measured.find_volumes(0.0)
        volumes = np.stack([truth, mask, sure, possible], 2)[own, GRID]
        scans = Scans(truth[own, GRID] > 0, volumes, volumes)
        interval, score = fit_interval(scans), fit_scan_score(scans)
        if isinstance(interval, VolumeInterval):
            ends = find_ends(interval, sure, possible)
            hits = (ends[0] <= truth + HAIR) & (truth <= ends[1] + HAIR)
            told = (truth > 0) | (possible > 0)
            large = truth[:, OWN] > np.median(truth[told[:, OWN], OWN])
            groups = {
                "native": (OWN, told[:, OWN]),
                "grid": (GRID, told[:, GRID]),
                "small": (OWN, told[:, OWN] & ~large),
                "large": (OWN, told[:, OWN] & large),
                "every": (OWN, np.ones(count, bool)),
            }
            for name, (grid, group) in groups.items():
                inside[name].append(float(hits[others, grid][group[others]].mean()))
            width = (ends[1] - ends[0])[others, OWN]
            widths.append(float(np.median(width[told[others, OWN]])))
        if isinstance(score, ScanScore):
            blood, called = truth[others, OWN] > 0, mask[others, OWN] > score.threshold
            found = float(called[blood].mean()), float((~called[~blood]).mean())
            rates.append((score.sensitivity, found[0], score.specificity, found[1]))
    names = ("stated_sensitivity", "sensitivity", "stated_specificity", "specificity")
    return {
        "calibrate": calibrate,
        "test": count - calibrate,
        "coverage": {name: summarise(values) for name, values in inside.items()},
        "width_ml": summarise(widths),
        "temperature": summarise(temperatures),
        "scan_score": {
            "splits": len(rates),
            **{
                name: summarise([row[i] for row in rates]) if rates else None
                for i, name in enumerate(names)
            },
        },
    }


def find_ends(
    interval: VolumeInterval, sure: NDArray[np.float64], possible: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(2, K, 2) the lower and upper ends, of each scan on either grid."""
    pairs = zip(sure.ravel().tolist(), possible.ravel().tolist(), strict=True)
    ends = np.array([interval.find(*pair) for pair in pairs])
    return ends.T.reshape(2, *sure.shape)


def summarise(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {
        "mean": float(np.mean(values)),
        "sd": float(np.std(values)),
        "low": float(np.quantile(values, 0.05)),
        "high": float(np.quantile(values, 0.95)),
        "splits": len(values),
    }


def format_result(result: Mapping[str, Any]) -> str:
    lines = [
        "# Coverage of the 90 % interval for mL",
        "",
        f"`{result['command']}`",
        "",
        f"{result['scans']} scans of a phantom that the network has not seen, "
        f"{result['with_blood']} of them with haemorrhage, in {result['splits']} random splits of "
        "each kind. Coverage is the share of the scans that did not calibrate whose true volume is "
        "in the interval, among those with haemorrhage or in which the model sees some: mean over "
        "the splits ± standard deviation.",
        "",
        "| calibrating | testing | scan's own grid | network's grid | small bleeds | large | every "
        "scan | width, mL |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        cells = [row["coverage"][name] for name in ("native", "grid", "small", "large", "every")]
        lines.append(
            f"| {row['calibrate']} | {row['test']} | "
            + " | ".join(format_share(cell) for cell in cells)
            + f" | {format_number(row['width_ml'])} |"
        )
    lines += [
        "",
        "Small and large are those below and above the median true volume; the width is the median "
        "over scans, and its mean over splits. With n calibrating scans the share to be expected "
        "is ⌈0.9 (n + 1)⌉ / (n + 1), whatever the model; a single calibration scatters about it as "
        "the standard deviation says. On the scan's own grid a little more is covered: the errors "
        "that calibrate hold the rounding of masks to the network's coarser grid.",
        "",
        "The scan score, stated by leave-one-out on the calibrating scans and found on the others:",
        "",
        "| calibrating | splits with a score | sensitivity, stated | found | specificity, stated | "
        "found |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        score = row["scan_score"]
        names = ("stated_sensitivity", "sensitivity", "stated_specificity", "specificity")
        shares = " | ".join(format_share(score[name]) for name in names)
        lines.append(f"| {row['calibrate']} | {score['splits']} | {shares} |")
    return "\n".join(lines) + "\n"


def format_share(found: Mapping[str, float] | None) -> str:
    return "–" if found is None else f"{100 * found['mean']:.1f} ± {100 * found['sd']:.1f} %"


def format_number(found: Mapping[str, float] | None) -> str:
    return "–" if found is None else f"{found['mean']:.1f}"


if __name__ == "__main__":
    sys.exit(main())
