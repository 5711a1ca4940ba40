"""``python -m ichfast.reproduce table1``: the paper's Table 1 again, as a plan, runs and a page."""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from ichfast.command import command
from ichfast.data import load_slices
from ichfast.errors import IchfastError, RecipeError
from ichfast.processes import available_cores
from ichfast.reproduce.cells import Outcome, run_cells
from ichfast.reproduce.checks import check
from ichfast.reproduce.collect import collect
from ichfast.reproduce.cost import estimate_cost
from ichfast.reproduce.overview import ProgressPrinter, check_room, describe_plan
from ichfast.reproduce.plan import KEYS, has_ended, limit_unlabelled, make_plan, select_cells
from ichfast.reproduce.studies import STUDIES, Study
from ichfast.training import Recipe, RunFolder
from ichfast.training.options import parse_options
from ichfast.training.parts import Load
from ichfast.training.recipe import apply_folders, apply_settings, merge

PROG = "python -m ichfast.reproduce"

DESCRIPTION = """\
Train every strategy of the table on every fold of the 20, 50 and 80 % schemes, each in a run folder
of its own, and write one page and one JSON: scores with intervals beside the paper's, differences,
curves, examples. Prints the plan and its cost first. Stop it at any time: the same command resumes
where it stopped. The demo trains on a phantom.
"""
EPILOG = """\
examples:
  python -m ichfast.reproduce table1 --plan
  python -m ichfast.reproduce table1 --seeds 3
  python -m ichfast.reproduce table1 --only 'scheme=20,row=curriculum' --only 'fold=0,row!=cps'
  python -m ichfast.reproduce table1 --preset paper --labelled CT-ICH --unlabelled pools/rsna
"""


@command("take fewer --jobs, or a smaller data.size")
def main(arguments: Sequence[str] | None = None, prog: str = PROG) -> int:
    options = parse_options(make_parser(prog), arguments)
    try:
        out: Path = options.out or Path("runs") / f"table1-{options.preset}"
        if options.jobs < 1:
            raise IchfastError(f"--jobs {options.jobs} must be at least 1.")
        study = STUDIES[options.preset]
        base = make_base_recipe(options, study)
        with RunFolder(out, resume=False):  # one command at a time
            return make_table1(options, study, base, out, functools.cache(load_slices))
    except KeyboardInterrupt:
        print("\ninterrupted; the same command resumes where it stopped", file=sys.stderr)
        return 130


def make_parser(prog: str = PROG) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("what", choices=("table1",), help="Table 1 of Wang et al. 2020")
    add("--preset", choices=STUDIES, default="demo", help="rows and settings (%(default)s)")
    add("--labelled", type=Path, metavar="DIR", help="CT with masks; without it, the phantom")
    add("--unlabelled", type=Path, metavar="DIR", help="CT without masks, or a pool of them")
    add("--seeds", type=int, metavar="N", help="training seeds (the preset's)")
    add(
        "--only",
        action="append",
        default=[],
        metavar="KEY=VALUE,...",
        help=f"the cells that meet all of these: {', '.join(KEYS)}, with = or != and a value or a "
        "pattern; may be repeated, for more cells",
    )
    add(
        "--jobs",
        type=int,
        default=available_cores(),
        metavar="N",
        help="cells side by side (%(default)s)",
    )
    add("--out", type=Path, metavar="DIR", help="folder of the cells (runs/table1-PRESET)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="recipe key of all cells")
    add("--plan", action="store_true", help="print the plan and stop")
    return parser


def make_base_recipe(options: argparse.Namespace, study: Study) -> Recipe:
    """Preset, folders and settings; the cells' own keys come on top."""
    base = apply_folders(
        merge(study.recipe, {"data.scheme": 80}), options.labelled, options.unlabelled
    )
    if study.needs_data and not (base.data.labelled and base.data.unlabelled):
        raise RecipeError(
            f"preset {study.name} is for its own data: give --labelled and --unlabelled."
        )
    return apply_settings(base, options.set)


def make_table1(
    options: argparse.Namespace, study: Study, base: Recipe, out: Path, load: Load
) -> int:
    # Before hours of training, as it needs the extra "report".
    from ichfast.reproduce.page import write_result

    plan = make_plan(study, base, study.seeds if options.seeds is None else options.seeds)
    cells = select_cells(plan.cells, options.only)
    found = check(cells, out, load)
    plan = plan.limit_unlabelled(found.unlabelled)
    cells = [limit_unlabelled(cell, found.unlabelled) for cell in cells]
    ended = [cell for cell in plan.cells if has_ended(cell, out)]
    todo = {cell: estimate_cost(cell, found.get_sizes(cell)) for cell in cells if cell not in ended}
    jobs = min(options.jobs, max(len(todo), 1))
    print(describe_plan(plan, todo, len(cells) - len(todo), found, jobs, out), flush=True)
    if options.plan:
        return 0
    check_room(list(todo.values()), jobs, out)
    progress = ProgressPrinter(todo, jobs, functools.partial(print, flush=True))
    outcome = run_cells(list(todo), out, jobs, progress.report)
    result = collect(plan, out, found, load)
    print(f"table: {write_result(result, plan, out, load)}")
    return conclude(outcome, len(todo))


def conclude(outcome: Outcome, asked: int) -> int:
    """Say what is missing and how to go on; the exit status."""
    again = "The same command resumes where it stopped; finished cells are kept."
    for path, reason in outcome.failed.items():
        print(f"error: {path}: {reason}", file=sys.stderr)
    if outcome.interrupted:
        print(f"stopped after {len(outcome.ended)} of {asked} cells. {again}", file=sys.stderr)
        return 130
    if outcome.failed:
        print(f"{len(outcome.ended)} of {asked} cells have ended. {again}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
