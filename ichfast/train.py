"""``python -m ichfast.train``: train a model, evaluate it, write its report."""

import argparse
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ichfast.command import command
from ichfast.errors import IchfastError, RecipeError, TeamError
from ichfast.metrics import AGGREGATIONS
from ichfast.models.compute import resolve_device
from ichfast.team import ALONE, Team, complain, join_team, silence_followers
from ichfast.training import PRESETS, Recipe, RunFolder, checkpoint, finish, recipe, reference, run
from ichfast.training.folder import CHECKPOINT, RECIPE, hold_folder
from ichfast.training.options import parse_options
from ichfast.training.presets import SEMI_SUPERVISED
from ichfast.training.registry import STRATEGIES

PROG = "python -m ichfast.train"

DESCRIPTION = """\
Train the semi-supervised U-Net on head CT, evaluate it on patients it has not seen, write a report.
Without arguments: the demo, on a phantom that is made first, in a few minutes on two cores.
With --labelled: the preset "own", a strong supervised baseline; with --unlabelled too, the paper's
curriculum on top of it.
"""

DEMO = (
    "the demo, on a phantom and not on patients: expect a test Dice of about 0.7 on slices with "
    "blood (its last digits depend on the processor)"
)

MEMORY = (
    "lower data.size, model.channels, supervised.batch_size or lbfgs.history, or limit the "
    "unlabelled set (data.unlabelled_limit); a pool (python -m ichfast.prepare) stays on the disk"
)

EPILOG = """\
examples:
  python -m ichfast.train
  python -m ichfast.train --labelled CT-ICH
  python -m ichfast.train --labelled CT-ICH --unlabelled RSNA --preset paper
  python -m ichfast.train --set training.strategy=supervised --set training.epochs=10
  python -m ichfast.train --resume runs/demo-20250101-120000
  python -m ichfast.train --finish runs/demo-20250101-120000
  torchrun --standalone --nproc-per-node 2 -m ichfast.train --out runs/two

recipe keys for --set and --recipe files (in brackets: the paper preset's value, and what others
have in its place):
"""


@command(MEMORY)
def main(arguments: Sequence[str] | None = None, prog: str = PROG) -> int:
    with silence_followers():
        return run_command(parse_options(make_parser(prog), arguments))


def run_command(options: argparse.Namespace) -> int:
    folder: Path | None = None
    team = ALONE
    try:
        with join_team() as team:
            device = team.choose_device(resolve_device(options.device))
            if options.threads is not None:
                if options.threads < 1:
                    raise IchfastError(f"--threads {options.threads} must be at least 1.")
                torch.set_num_threads(options.threads)
            folder = team.lead(lambda: choose_folder(options, team))
            chosen = team.lead(lambda: choose_recipe(options))
            with hold_folder(
                team,
                folder,
                resume=bool(options.resume or options.finish),
                tensorboard=options.tensorboard,
            ) as held:
                if options.finish:
                    metrics = finish(chosen, held, device, team=team)
                else:
                    if options.resume is None:
                        restarted = team.any(team.restarts > 0)
                        team.lead(lambda: claim(held, team, restarted))
                    metrics = run(
                        chosen, held, device, team=team, deterministic=options.deterministic
                    )
            return team.lead(lambda: conclude(folder, metrics, team))
    except TeamError as error:
        fix = (
            "torchrun starts all of them again from the last checkpoint."
            if team.restarts_left > 0
            else advise_resume(folder, team)
        )
        if line := team.describe_error(type(error)(f"{error} {fix}")):
            complain(f"error: {line}")
        return 2
    except IchfastError as error:
        if line := team.describe_error(error):
            complain(f"error: {line}")
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; {advise_resume(folder, team)}", file=sys.stderr)
        return 130


def make_parser(prog: str = PROG) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=DESCRIPTION,
        epilog=EPILOG + reference.format_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--labelled",
        type=Path,
        metavar="DIR",
        help="CT with masks: CT-ICH's layout, NIfTI as nnU-Net or BHSD lay it out, or a pool",
    )
    data.add_argument(
        "--unlabelled",
        type=Path,
        metavar="DIR",
        help="CT without masks: RSNA's layout, any folder of DICOM series, or a pool of "
        "python -m ichfast.prepare; given alone, the phantom stays the labelled set",
    )
    settings = parser.add_argument_group("recipe")
    settings.add_argument(
        "--preset",
        choices=PRESETS,
        help="settings to start from (own with --labelled, demo without)",
    )
    settings.add_argument("--recipe", type=Path, metavar="FILE", help="TOML file over the preset")
    settings.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one key, over everything else; may be repeated",
    )
    output = parser.add_argument_group("run")
    output.add_argument("--out", type=Path, metavar="DIR", help="run folder (runs/NAME-TIME)")
    output.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="continue this run; with --set training.epochs=N, for longer than planned",
    )
    output.add_argument(
        "--finish",
        type=Path,
        metavar="RUN",
        help="evaluate this run, which was stopped, by its last checkpoint, and write its report; "
        "it can be resumed all the same",
    )
    output.add_argument(
        "--tensorboard", action="store_true", help="TensorBoard's files too, in RUN/events"
    )
    output.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (%(default)s)")
    output.add_argument(
        "--deterministic",
        action="store_true",
        help="same bits from run to run on a GPU too, where that costs time; a CPU always is",
    )
    output.add_argument("--threads", type=int, metavar="N", help="CPU threads (all cores)")
    return parser


def choose_recipe(options: argparse.Namespace) -> Recipe:
    """Preset or stored recipe, then the file, then the options, each over the one before."""
    if stored := options.resume or options.finish:
        option = "--resume" if options.resume else "--finish"
        for name in ("preset", "recipe", "out"):
            if getattr(options, name) is not None:
                raise RecipeError(f"--{name} does not go with {option}: the run has its own.")
        if options.resume and options.finish:
            raise RecipeError("--resume goes on with a run and --finish does not: give one.")
        if options.finish and options.set:
            raise RecipeError("--set does not go with --finish: the run has its own recipe.")
        chosen = recipe.read(stored / RECIPE, Recipe())
    else:
        preset, reason = choose_preset(options)
        if reason:
            print(f"preset: {preset}, since {reason}", file=sys.stderr)
        chosen = PRESETS[preset]
        if preset == "own" and options.unlabelled:
            chosen = recipe.merge(chosen, {"training.strategy": SEMI_SUPERVISED})
        if options.recipe:
            chosen = recipe.read(options.recipe, chosen)
    chosen = recipe.apply_folders(chosen, options.labelled, options.unlabelled)
    chosen = recipe.apply_settings(chosen, options.set)
    if chosen == PRESETS["demo"]:
        print(DEMO, file=sys.stderr)
    if options.unlabelled and not STRATEGIES[chosen.training.strategy].unlabelled:
        print(
            f"{options.unlabelled} is left alone: strategy {chosen.training.strategy} looks at "
            "labelled slices only",
            file=sys.stderr,
        )
    return chosen


def choose_preset(options: argparse.Namespace) -> tuple[str, str]:
    """The preset to start from and, where nobody named it, why it is not the demo: data of one's
    own deserve more than that."""
    if options.preset:
        return options.preset, ""
    if options.labelled:
        return "own", "--labelled is given"
    values = recipe.read_values(options.recipe) if options.recipe else {}
    values |= recipe.parse_settings(options.set)
    return ("own", "data.labelled is given") if values.get("data.labelled") else ("demo", "")


def choose_folder(options: argparse.Namespace, team: Team) -> Path:
    stored: Path | None = options.resume or options.finish
    path: Path | None = stored or options.out
    if path is None and team.restarts + team.restarts_left > 0:
        raise IchfastError("torchrun --max-restarts needs --out RUN, so that a restart finds it.")
    if stored:
        RunFolder(stored, resume=True)  # or it raises
    return path or name_folder(options)


def claim(folder: RunFolder, team: Team, restarted: bool) -> None:
    """Raise unless the folder is free, or holds what this call of torchrun has left there."""
    content = checkpoint.read(folder) if restarted else None
    if content is None or content.get("launch") != team.launch:
        folder.claim()


def name_folder(options: argparse.Namespace) -> Path:
    name = options.recipe.stem if options.recipe else choose_preset(options)[0]
    # Of runs that start together, each has one of its own.
    unique = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    return Path("runs") / f"{name}-{unique}"


def conclude(folder: Path, metrics: dict[str, Any], team: Team = ALONE) -> int:
    """Say how the run ended; the exit status."""
    if metrics["test"] is not None:
        print(format_scores(metrics["test"]))
    interrupted = metrics["status"] == "interrupted"
    if interrupted:  # before the report: whoever has sent the signal may not wait for that
        print(
            f"stopped after {metrics['epochs']} epochs; {advise_resume(folder, team)}"
            + advise_finish(folder),
            file=sys.stderr,
        )
    write_report(folder)
    if interrupted:
        return 130
    if metrics["status"] == "unfinished":
        print(f"{metrics['reason']}; {advise_resume(folder, team)}", file=sys.stderr)
    if metrics["status"] == "diverged":
        kept = (folder / CHECKPOINT).exists()
        print(
            f"error: training diverged in epoch {metrics['epochs']}: {metrics['reason']}."
            + (f" The last good checkpoint is in {folder}." if kept else "")
            + " Start a new run with a lower learning rate or another line search.",
            file=sys.stderr,
        )
        return 3
    return 0


def write_report(folder: Path) -> None:
    """The report, or why there is none: that changes nothing about how the run ended."""
    try:
        from ichfast.report.page import write_report as write
    except ModuleNotFoundError as error:
        print(
            f"no report, as {error.name} is missing: pip install matplotlib jinja2, then "
            f"python -m ichfast.report {folder}"
        )
        return
    try:
        print(f"report: {write(folder)}")
    except IchfastError as error:
        print(f"no report: {error}")


def format_scores(test: dict[str, Any]) -> str:
    """The test in a few lines: scores with their 95 % intervals over patients."""
    found = test["detection"]
    lines = [
        f"test: {test['n_slices']} slices of {test['n_patients']} patients, {found['positive']} "
        "with blood; in brackets 95 % intervals over patients",
        f"{'':18}{'pooled':>22}{'per slice':>22}{'per patient':>22}",
    ]

    def add(label: str, scores: Mapping[str, Any], ranges: Mapping[str, Any]) -> None:
        cells = [
            format_score(scores[way], ranges.get(way)) if way in scores else ""
            for way in AGGREGATIONS
        ]
        lines.append(f"{label:18}" + "".join(f"{cell:>22}" for cell in cells))

    every = test["intervals"]
    parts = [("slices with blood", test["positive"], every["positive"])]
    if found["negative"]:
        parts.append(("all slices", test, every))
    for label, scores, ranges in parts:
        lines.append(f"{label}:")
        for name in ("dice", "jaccard"):
            add(f"  {name.capitalize()}", scores[name], ranges[name])
    for name, means in ({"HD95 mm": test["hd95"]} | name_nsd(test)).items():
        add(f"  {name}", means, {})
    lines.append(
        f"blood missed entirely in {found['missed']} of {found['positive']} slices with it"
    )
    if found["negative"]:
        lines.append(
            f"false alarms in {found['false_alarms']} of {found['negative']} slices without blood"
        )
    for rate in ("sensitivity", "specificity"):
        for unit, value in test[rate].items():
            if value is not None:
                lines.append(f"{rate} of {unit}: {format_score(value, every[rate][unit])}")
    return "\n".join(lines)


def name_nsd(test: Mapping[str, Any]) -> dict[str, Any]:
    return {f"NSD {tolerance}": means for tolerance, means in test["nsd"].items()}


def format_score(value: float | None, ends: Sequence[float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def advise_resume(folder: Path | None, team: Team = ALONE) -> str:
    if folder is not None and (folder / CHECKPOINT).exists():
        python = "python" if team.size == 1 else f"torchrun (as before, {team.size} processes)"
        return f"resume with: {python} -m ichfast.train --resume {folder}"
    return "nothing was trained yet: start it again."


def advise_finish(folder: Path) -> str:
    if not (folder / CHECKPOINT).exists():
        return ""
    return f"\nevaluate it as it is with: python -m ichfast.train --finish {folder}"


if __name__ == "__main__":
    sys.exit(main())
