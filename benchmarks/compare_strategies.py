"""Curriculum against supervised on the same patients, with as many supervised updates in both.

    python -m benchmarks.compare_strategies --seeds 3 --out runs/compare

Each seed trains the recipe twice: by curriculum, and supervised for as many epochs as that seed's
curriculum draws supervised ones. Both start from the same segmentation weights and choose their
best epoch on the same validation patients. The curriculum's unsupervised epochs come on top, so it
does more updates in all. Runs that are finished already are not run again.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ichfast.errors import IchfastError
from ichfast.evaluation.thresholds import threshold_baselines
from ichfast.training import PRESETS, Recipe, RunFolder, recipe, run
from ichfast.training.parts import Parts, load_parts
from ichfast.training.strategies import strategy_of

RESULTS = Path(__file__).parent / "results"
STRATEGIES = ("curriculum", "supervised")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare_strategies",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seeds", type=int, default=3, metavar="N", help="training seeds 0 … N−1 (%(default)s)")
    add("--out", type=Path, default=Path("runs/compare"), help="folder of the runs (%(default)s)")
    add("--results", type=Path, default=RESULTS, help="folder of the tables")
    add("--preset", choices=PRESETS, default="demo", help="recipe (%(default)s)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="recipe key, repeatable")
    add("--threads", type=int, help="CPU threads (all cores)")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        base = recipe.with_settings(PRESETS[options.preset], options.set)
        options.out.mkdir(parents=True, exist_ok=True)
        result = compare(base, options.seeds, options.out)
    except IchfastError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    result["command"] = " ".join(
        ["python -m benchmarks.compare_strategies", f"--seeds {options.seeds}"]
        + [f"--preset {options.preset}"] * (options.preset != "demo")
        + [f"--set {setting}" for setting in options.set]
    )
    options.results.mkdir(parents=True, exist_ok=True)
    text = table(result)
    (options.results / "compare_strategies.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.results / "compare_strategies.md").write_text(text)
    print(text)
    return 0


def compare(base: Recipe, seeds: int, out: Path) -> dict[str, Any]:
    parts = load_parts(with_keys(base, {"training.strategy": "curriculum"}), out)
    rows = []
    for seed in range(seeds):
        semi = with_keys(base, {"training.strategy": "curriculum", "training.seed": seed})
        draws = [strategy_of(semi).draw(epoch).step for epoch in range(semi.training.epochs)]
        twin = with_keys(
            semi,
            {"training.strategy": "supervised", "training.epochs": draws.count("supervised")},
        )
        row: dict[str, Any] = {"seed": seed}
        for chosen, its_parts in ((semi, parts), (twin, replace(parts, unlabelled=None))):
            strategy = chosen.training.strategy
            print(f"seed {seed}, {strategy}, {chosen.training.epochs} epochs", file=sys.stderr)
            row[strategy] = outcome(chosen, out / f"{strategy}-{seed}", its_parts)
        rows.append(row)
    return {
        "seeds": rows,
        "difference": paired(rows),
        "baselines": baselines(base, out),
        "data": parts.counts(),
        "recipe": recipe.to_toml(base),
        "machine": machine(),
    }


def with_keys(base: Recipe, values: dict[str, Any]) -> Recipe:
    return recipe.merged(base, values)


def outcome(chosen: Recipe, folder: Path, parts: Parts) -> dict[str, Any]:
    """Run ``chosen``, or go on where it was stopped; the numbers of one cell."""
    with RunFolder(folder, resume=(folder / "recipe.toml").exists()) as held:
        metrics = run(chosen, held, torch.device("cpu"), parts)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    scores = {} if metrics["test"] is None else metrics["test"]["dice"]
    return {
        "status": metrics["status"],
        "test_dice": scores.get("pooled"),
        "test_dice_per_slice": scores.get("per_slice"),
        "test_dice_per_patient": scores.get("per_patient"),
        "supervised_epochs": metrics["steps"].get("supervised", 0),
        "unsupervised_epochs": metrics["steps"].get("unsupervised", 0),
        "supervised_evaluations": sum(
            line["evaluations"] for line in log if line["step"] == "supervised"
        ),
        "best_epoch": metrics["best_epoch"],
        "training_seconds": metrics["seconds"]["training"],
    }


def paired(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Test Dice of curriculum less supervised, seed by seed. The seeds share one cohort, so their
    spread says nothing on other patients."""
    differences = [
        row["curriculum"]["test_dice"] - row["supervised"]["test_dice"]
        for row in rows
        if None not in (row["curriculum"]["test_dice"], row["supervised"]["test_dice"])
    ]
    return {
        "each": differences,
        "mean": statistics.mean(differences) if differences else None,
        "sd": statistics.stdev(differences) if len(differences) > 1 else None,
    }


def baselines(base: Recipe, out: Path) -> dict[str, Any]:
    """The best threshold and band of HU on the test slices themselves."""
    test = load_parts(with_keys(base, {"training.strategy": "supervised"}), out).test
    assert test.masks is not None
    return threshold_baselines(test.hu[test.rows].numpy(), test.masks[test.rows].numpy())


def machine() -> dict[str, Any]:
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit,
    }


def table(result: dict[str, Any]) -> str:
    def number(value: float | None, form: str = ".4f") -> str:
        return "–" if value is None else format(value, form)

    lines = [
        "# Curriculum against supervised: pooled test Dice",
        "",
        f"`{result['command']}`",
        "",
        "| seed | curriculum | supervised | difference | supervised epochs | evaluations |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["seeds"]:
        semi, twin = row["curriculum"], row["supervised"]
        both = None not in (semi["test_dice"], twin["test_dice"])
        difference = semi["test_dice"] - twin["test_dice"] if both else None
        lines.append(
            f"| {row['seed']} | {number(semi['test_dice'])} | {number(twin['test_dice'])} "
            f"| {number(difference, '+.4f')} "
            f"| {semi['supervised_epochs']} and {twin['supervised_epochs']} "
            f"| {semi['supervised_evaluations']} and {twin['supervised_evaluations']} |"
        )
    difference, floor = result["difference"], result["baselines"]
    parts = result["data"]
    lines += [
        "",
        f"Paired difference: mean {number(difference['mean'], '+.4f')}, "
        f"standard deviation {number(difference['sd'])} over the seeds. One cohort of "
        f"{parts['train']['patients']} training, {parts['validation']['patients']} validation and "
        f"{parts['test']['patients']} test patients: the spread is that of the seeds alone.",
        "",
        "Without learning, tuned on the test slices themselves: one HU threshold "
        f"{floor['threshold']['dice']:.4f}, one HU band {floor['band']['dice']:.4f}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
