"""Does the unlabelled set help? Strategies on independent phantom cohorts, at 20 % labels.

    python -m benchmarks.cohorts --out runs/cohorts

Each cohort is a phantom of its own: labelled patients, of whom a fifth is trained on and four
fifths are tested on, and an unlabelled set. Every row trains on every cohort, with the seed of the
cohort, and is compared with its supervised twins cohort by cohort: one twin with as many supervised
epochs, one with as many epochs in all. Settings were chosen on cohorts that are not among these
(``--cohorts 101 103``). Runs that have ended are not run again.
"""

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from benchmarks.machine import describe_commit, describe_machine, describe_versions
from ichfast.errors import IchfastError
from ichfast.evaluation.thresholds import tune_thresholds
from ichfast.reproduce.cells import run_cells
from ichfast.reproduce.plan import Cell, has_ended
from ichfast.reproduce.rows import Overrides, follow_recipe, use_adam
from ichfast.training import Recipe, recipe
from ichfast.training.folder import METRICS
from ichfast.training.parts import ensure_phantom, load_parts
from ichfast.training.presets import SMALL
from ichfast.training.strategy import make_strategy

RESULTS = Path(__file__).parent / "results"
SHARED: dict[str, Any] = {
    "compute.precision": "bfloat16",  # of Adam's steps, in half the time
    "training.epochs": 10,
    "training.checkpoint_every": 5,
    "supervised.batch_size": 4,
    "unsupervised.batch_size": 4,
    "curriculum.k": 5.0,
    "adam.learning_rate": 2e-3,
    "together.ramp": 0.4,
    "data.scheme": 20,
    "data.train": 0.4,
    "data.validation": 0.4,  # a few slices could not choose an epoch
    "data.test": 0.2,
    "phantom.patients": 80,
    "phantom.unlabelled": 40,
    "phantom.slices": 6,
}


@dataclass(frozen=True)
class Row:
    overrides: Overrides
    twins: tuple[str, ...] = ()
    """rows it is compared with: as many supervised epochs, as many epochs"""
    epochs_of: str = ""
    """the row whose supervised epochs are all of this one's"""


def add_keys(overrides: Overrides, keys: Mapping[str, Any]) -> Overrides:
    return lambda base: overrides(base) | dict(keys)


def use_adam_for_curriculum(base: Recipe) -> dict[str, Any]:
    """With as large a share of supervised epochs, about two thirds. k is not only a time but the
    odds at the start too, so stretching it as the epochs are would leave hardly any other."""
    return use_adam("curriculum")(base) | {"curriculum.k": 4 * base.curriculum.k}


def scale_rate(overrides: Overrides, factor: float) -> Overrides:
    def scaled(base: Recipe) -> dict[str, Any]:
        return overrides(base) | {"adam.learning_rate": factor * base.adam.learning_rate}

    return scaled


CURRICULUM = follow_recipe("curriculum")
TOTAL, ADAM_TOTAL = ("supervised, total",), ("supervised, Adam, total",)
ADAM_BOTH = (*ADAM_TOTAL, "curriculum, Adam")
ROWS = {
    "curriculum": Row(CURRICULUM, ("supervised, equal", *TOTAL)),
    "supervised, equal": Row(follow_recipe("supervised"), epochs_of="curriculum"),
    "supervised, total": Row(follow_recipe("supervised")),
    "curriculum, Adam": Row(use_adam_for_curriculum, ("supervised, Adam, equal", *ADAM_TOTAL)),
    "supervised, Adam, equal": Row(use_adam("supervised"), epochs_of="curriculum, Adam"),
    "supervised, Adam, total": Row(use_adam("supervised")),
    # L-BFGS with a fixed step, both learning rates as the paper has them.
    "as written": Row(
        add_keys(
            CURRICULUM,
            {
                "lbfgs.learning_rate": 1e-4,
                "lbfgs.line_search": "none",
                "adam.learning_rate": 1e-4,
            },
        ),
        TOTAL,
    ),
    "alternating": Row(follow_recipe("alternating"), TOTAL),
    # Chen's alternation where it might diverge: without a line search, and with a rate of Adam a
    # hundred times as large, in both steps.
    "alternating, no search": Row(
        add_keys(follow_recipe("alternating"), {"lbfgs.line_search": "none"}), TOTAL
    ),
    "alternating, Adam": Row(use_adam("alternating"), ADAM_TOTAL),
    "alternating, Adam 100": Row(scale_rate(use_adam("alternating"), 100), ADAM_TOTAL),
    "joint": Row(use_adam("joint"), ADAM_BOTH),
    "mean teacher": Row(use_adam("mean_teacher"), ADAM_BOTH),
    "cps": Row(use_adam("cps"), ADAM_BOTH),
    "pseudo labels": Row(use_adam("pseudo_label"), ADAM_BOTH),
    # What else might decide whether it helps; by Adam.
    "gradient everywhere": Row(
        add_keys(use_adam_for_curriculum, {"unsupervised.attention_gradient": "full"}),
        ADAM_BOTH,
    ),
    "six unlabelled slices": Row(
        add_keys(use_adam_for_curriculum, {"data.unlabelled_limit": 6}),
        ADAM_BOTH,
    ),
    "half the channels": Row(
        add_keys(use_adam_for_curriculum, {"model.channels": [4, 8, 16, 32]}),
        ("supervised, half the channels",),
    ),
    "supervised, half the channels": Row(
        add_keys(use_adam("supervised"), {"model.channels": [4, 8, 16, 32]})
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cohorts",
        description=__doc__,
        epilog="rows: " + "; ".join(ROWS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--cohorts", type=int, nargs=2, default=(1, 10), metavar=("FIRST", "LAST"))
    add("--rows", nargs="+", default=list(ROWS), metavar="ROW", help="by name (all)")
    add("--jobs", type=int, default=2, metavar="N", help="runs side by side (%(default)s)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="recipe key of all runs")
    add("--out", type=Path, default=Path("runs/cohorts"), help="folder of the runs (%(default)s)")
    add("--results", type=Path, default=RESULTS, help="folder of the tables")
    options = parser.parse_args(arguments)
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    cohorts = list(range(options.cohorts[0], options.cohorts[1] + 1))
    try:
        base = recipe.merge(Recipe(), SMALL | SHARED)
        base = recipe.apply_settings(base, options.set)
        cells = {(row, c): make_cell(row, c, base) for c in cohorts for row in options.rows}
        todo = [one for one in cells.values() if not has_ended(one, options.out)]
        print(f"{len(todo)} runs to do, {len(cells) - len(todo)} are there", file=sys.stderr)
        for phantom in dict.fromkeys(one.recipe.phantom for one in todo):
            ensure_phantom(phantom, options.out)  # here, so that no two workers write the same
        outcome = run_cells(todo, options.out, options.jobs, report)
    except IchfastError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if outcome.failed or outcome.interrupted:
        for path, reason in outcome.failed.items():
            print(f"error: {path}: {reason}", file=sys.stderr)
        print("Not all runs have ended; run the same command again to continue.", file=sys.stderr)
        return 1
    result = {
        "command": shlex.join(["python", "-m", "benchmarks.cohorts", *(arguments or sys.argv[1:])]),
        "rows": {
            row: [read_outcome(cells[row, c], options.out) for c in cohorts] for row in options.rows
        },
        "band": [
            measure_band_of_hu(make_recipe("supervised, total", c, base), options.out)
            for c in cohorts
        ],
        "recipe": recipe.to_toml(base),
        "machine": describe_machine(1),
        "versions": describe_versions("cpu"),
        **describe_commit(),
    }
    result["differences"] = compare(result["rows"])
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "cohorts.json").write_text(json.dumps(result, indent=1) + "\n")
    text = format_result(result)
    (options.results / "cohorts.md").write_text(text)
    print(text)
    return 0


def make_cell(row: str, cohort: int, base: Recipe) -> Cell:
    name = row.replace(", ", "-").replace(" ", "_").lower()
    return Cell(20, 0, name, cohort, make_recipe(row, cohort, base))


def make_recipe(row: str, cohort: int, base: Recipe) -> Recipe:
    """The recipe of a row on a cohort, whose number is the seed of everything."""
    seeds = ("training.seed", "data.split_seed", "phantom.seed")
    chosen = recipe.merge(base, ROWS[row].overrides(base) | dict.fromkeys(seeds, cohort))
    if twin := ROWS[row].epochs_of:
        other = make_recipe(twin, cohort, base)
        drawn = [make_strategy(other).draw(epoch).step for epoch in range(other.training.epochs)]
        chosen = recipe.merge(chosen, {"training.epochs": drawn.count("supervised")})
    return chosen


def report(cell: Cell, outcome: str, text: str, seconds: float) -> None:
    print(f"{cell.path}: {outcome} {text}, {seconds:.0f} s", file=sys.stderr, flush=True)


def read_outcome(cell: Cell, out: Path) -> dict[str, Any]:
    metrics = json.loads((out / cell.path / METRICS).read_text())
    dice = (metrics["test"] or {}).get("dice", {})
    return {
        "cohort": cell.seed,
        "status": metrics["status"],
        "reason": metrics["reason"],
        "epochs": metrics["epochs"],
        "dice": dice.get("pooled"),
        "dice_per_patient": dice.get("per_patient"),
        "steps": metrics["steps"],
        "best_epoch": metrics["best_epoch"],
        "train": metrics["data"]["train"],
    }


def measure_band_of_hu(chosen: Recipe, out: Path) -> float:
    """Dice of the best band of HU, tuned on the test slices themselves."""
    test = load_parts(chosen, out).test
    assert test.masks is not None
    baselines = tune_thresholds(test.hu[test.rows].numpy(), test.masks[test.rows].numpy())
    dice: float = baselines["band"]["dice"]
    return dice


def compare(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Pooled test Dice of a row less that of a twin, cohort by cohort, with Student's 95 % interval
    of the mean: the cohorts share no patient, so they are independent."""
    found = []
    for name, own in rows.items():
        for twin in ROWS[name].twins:
            pairs = zip(own, rows.get(twin, ()), strict=False)
            each = [
                one["dice"] - other["dice"]
                for one, other in pairs
                if None not in (one["dice"], other["dice"])
            ]
            if len(each) < 2:
                continue
            mean, error = statistics.mean(each), statistics.stdev(each) / len(each) ** 0.5
            half = float(stats.t.ppf(0.975, len(each) - 1)) * error
            found.append(
                {"row": name, "twin": twin, "each": each, "mean": mean, "half_width": half}
            )
    return found


def format_result(result: Mapping[str, Any]) -> str:
    lines = [
        "# Strategies on independent cohorts: pooled test Dice",
        "",
        f"`{result['command']}`",
        "",
        "| row | mean | sd | lowest | highest | diverged |",
        "|---|---|---|---|---|---|",
    ]
    for name, outcomes in result["rows"].items():
        dice = [one["dice"] for one in outcomes if one["dice"] is not None]
        diverged = sum(one["status"] == "diverged" for one in outcomes)
        lines.append(f"| {name} | {summary(dice)} | {diverged} |")
    lines += ["", "| row | less | mean difference, 95 % | higher in |", "|---|---|---|---|"]
    for one in result["differences"]:
        higher = sum(value > 0 for value in one["each"])
        lines.append(
            f"| {one['row']} | {one['twin']} | {one['mean']:+.3f} ± {one['half_width']:.3f} "
            f"| {higher} of {len(one['each'])} |"
        )
    lines += [
        "",
        "A cohort is a phantom of its own; the intervals are over cohorts (Student's t). Without "
        "learning, the best band of HU, tuned on the test slices themselves: "
        f"{statistics.mean(result['band']):.3f} on average, {min(result['band']):.3f} to "
        f"{max(result['band']):.3f}.",
    ]
    return "\n".join(lines) + "\n"


def summary(dice: Sequence[float]) -> str:
    """Mean, standard deviation, lowest and highest, so far as there are any."""
    if not dice:
        return "– | – | – | –"
    spread = f"{statistics.stdev(dice):.3f}" if len(dice) > 1 else "–"
    return f"{statistics.mean(dice):.3f} | {spread} | {min(dice):.3f} | {max(dice):.3f}"


if __name__ == "__main__":
    sys.exit(main())
