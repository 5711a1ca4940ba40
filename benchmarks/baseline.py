"""What would make the study's supervised baseline stronger? Variants of it, compared inside the
training side of one fold.

    python -m benchmarks.baseline --labelled CT-ICH --out runs/baseline

The patients whom fold 0 of the study tests are left out. The others are cut in half by patients,
with their subtypes shared out evenly; each variant is trained on either half and tested on the
other one. Runs that have ended are not run again; the table has those that have.
"""

import argparse
import itertools
import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cohorts import RESULTS, report
from benchmarks.machine import describe_commit, describe_machine, describe_versions
from ichfast.data import find_layout
from ichfast.errors import IchfastError
from ichfast.reproduce.cells import run_cells
from ichfast.reproduce.collect import read_json
from ichfast.reproduce.plan import Cell, has_ended
from ichfast.reproduce.scores import Slices, compare, compute_intervals
from ichfast.reproduce.studies import STUDIES
from ichfast.training import recipe
from ichfast.training.folder import METRICS, SLICES
from ichfast.training.parts import load_parts

BASE = "baseline"
VARIANTS: dict[str, dict[str, Any]] = {
    BASE: {},
    # Where a lesion is pasted: its own place, the study's, anywhere.
    "paste in place": {"augmentation.paste_shift": 0.0},
    "paste anywhere": {"augmentation.paste_shift": 0.5},
    "4 × the updates": {"training.epochs": 100},
    "128 pixels, 2 × the updates": {"data.size": 128, "training.epochs": 50},
    "2 × the channels, 2 × the updates": {
        "model.channels": [32, 64, 128, 256],
        "training.epochs": 50,
    },
}
HALVES = 2
SCORES = {
    "dice.pooled": "Dice, slices with blood, pooled",
    "dice.all": "Dice, all slices, pooled",
    "dice.per_patient": "Dice per patient",
    "auc.scans": "AUC of scans",
    "operating.scans": "specificity of scans at sensitivity 0.9",
}
COMPARED = "dice.all"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.baseline",
        description=__doc__,
        epilog="variants: " + "; ".join(VARIANTS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--labelled", type=Path, required=True, metavar="CT-ICH")
    add("--variants", nargs="+", default=list(VARIANTS), metavar="NAME", help="by name (all)")
    add("--jobs", type=int, default=2, metavar="N", help="runs side by side (%(default)s)")
    add("--out", type=Path, default=Path("runs/baseline"), help="folder of the runs (%(default)s)")
    add("--results", type=Path, default=RESULTS, help="folder of the table")
    options = parser.parse_args(arguments)
    if unknown := set(options.variants) - set(VARIANTS):
        parser.error(f"no variant {', '.join(sorted(unknown))}; there are {', '.join(VARIANTS)}")
    try:
        inner = link_training_side(options.labelled, options.out / "training-side")
        cells = [
            make_cell(name, half, inner) for half in range(HALVES) for name in options.variants
        ]
        todo = [cell for cell in cells if not has_ended(cell, options.out)]
        print(f"{len(todo)} runs to do, {len(cells) - len(todo)} are there", file=sys.stderr)
        outcome = run_cells(todo, options.out, options.jobs, report)
        for path, reason in outcome.failed.items():
            print(f"error: {path}: {reason}", file=sys.stderr)
        result = {
            "command": shlex.join(
                ["python", "-m", "benchmarks.baseline", *(arguments or sys.argv[1:])]
            ),
            "variants": summarise(options.out, inner),
            "machine": describe_machine(1),
            "versions": describe_versions("cpu"),
            **describe_commit(),
        }
    except IchfastError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "baseline.json").write_text(json.dumps(result, indent=1) + "\n")
    text = format_result(result)
    (options.results / "baseline.md").write_text(text)
    print(text)
    return 1 if outcome.failed or outcome.interrupted else 0


def link_training_side(labelled: Path, out: Path) -> Path:
    """A set of links to the patients whom fold 0 of the study trains on."""
    study = recipe.merge(STUDIES["ct-ich"].recipe, {"data.scheme": 80})
    study = recipe.apply_folders(study, labelled, None)
    names = set(load_parts(study, Path()).train.patients)
    layout = find_layout(labelled)
    if layout.name != "ct-ich-jpeg":
        raise IchfastError(f"{labelled} is not CT-ICH 1.0.0, whose folders this command links.")
    scans = out / "Patients_CT"
    scans.mkdir(parents=True, exist_ok=True)
    for name in sorted(names):
        link(scans / name, labelled / "Patients_CT" / name)
    for table in labelled.glob("*.csv"):
        link(out / table.name, table)
    return out


def link(place: Path, target: Path) -> None:
    if not place.exists():
        place.symlink_to(target.resolve())


def make_cell(name: str, half: int, inner: Path) -> Cell:
    base = recipe.apply_folders(STUDIES["ct-ich"].recipe, inner, None)
    own = {"data.scheme": 50, "data.fold": half, "data.test_slices": "all"}
    slug = name.replace("×", "x").replace(",", "").replace(" ", "_")
    return Cell(50, half, slug, 0, recipe.merge(base, own | VARIANTS[name]))


def summarise(out: Path, inner: Path) -> list[dict[str, Any]]:
    """Of each variant that has been run, its scores over the halves that are there, and how it
    differs from the baseline on the same ones."""
    ended: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in VARIANTS}
    for name, half in itertools.product(VARIANTS, range(HALVES)):
        cell = make_cell(name, half, inner)
        if has_ended(cell, out):
            ended[name][half] = read_json(out / cell.path / SLICES)
    found = []
    for name, halves in ended.items():
        if not halves:
            continue
        both = [half for half in halves if half in ended[BASE]]
        one: dict[str, Any] = {
            "variant": name,
            "overrides": VARIANTS[name],
            "halves": list(halves),
            "seconds": [
                read_json(out / make_cell(name, half, inner).path / METRICS)["seconds"]["training"]
                for half in halves
            ],
            "scores": compute_intervals(join(halves.values())),
        }
        if name != BASE and both:
            own, base = (join(ended[row][half] for half in both) for row in (name, BASE))
            one["less_baseline"] = compare(own, base)
        found.append(one)
    return found


def join(columns: Iterable[dict[str, Any]]) -> Slices:
    columns = list(columns)
    return Slices.from_columns(columns, [0] * len(columns))


def format_result(result: Mapping[str, Any]) -> str:
    lines = [
        "# Variants of the baseline, inside the training side of fold 0",
        "",
        f"`{result['command']}`",
        "",
        "| variant | halves | "
        + " | ".join(SCORES.values())
        + " | less the baseline, all slices |",
        "|---" * (len(SCORES) + 3) + "|",
    ]
    for one in result["variants"]:
        scores = " | ".join(format_score(one["scores"][name]) for name in SCORES)
        difference = one.get("less_baseline", {}).get(COMPARED)
        less = "–" if difference is None else format_score(difference, "+")
        done = f"{len(one['halves'])} of {HALVES}"
        lines.append(f"| {one['variant']} | {done} | {scores} | {less} |")
    lines += [
        "",
        "Each half of the 65 patients tests the network that the other half trained; no patient of "
        "fold 0's test side is among them. In brackets: 95 % by resampling patients. One seed.",
    ]
    return "\n".join(lines) + "\n"


def format_score(score: Mapping[str, Any], sign: str = "") -> str:
    values = [score[key] for key in ("estimate", "low", "high")]
    middle, low, high = ("–" if value is None else f"{value:{sign}.3f}" for value in values)
    return f"{middle} [{low}, {high}]"


if __name__ == "__main__":
    sys.exit(main())
