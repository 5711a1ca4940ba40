"""The plan in words, before anything is trained, and how far it has come."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ichfast.errors import OutputError
from ichfast.reproduce.checks import Findings
from ichfast.reproduce.cost import Cost, add_up
from ichfast.reproduce.plan import ENDED, Cell, Plan
from ichfast.reproduce.studies import PROTOCOLS, Comparison

FAIR = """\
All rows share folds, test slices and split seed, and are validated after as many passes: by Adam
one over the labelled slices, by L-BFGS one iteration."""
UNVALIDATED = """\
All rows share folds, test slices and split seed. Nothing is validated: no weights are chosen."""


def describe_plan(
    plan: Plan, todo: dict[Cell, Cost], done: int, found: Findings, jobs: int, out: Path
) -> str:
    """What will be run, what it costs, and what the reader should know."""
    data = plan.base.data
    source = "the phantom" if not data.labelled else "the labelled set"
    lines = [
        f"table1, preset {plan.study.name}: {len(todo)} cells to run, {done} are there already",
        f"{found.patients} labelled patients of {source}, {found.unlabelled} unlabelled slices, "
        f"{data.size}×{data.size} pixels, {plan.seeds} seed{'s' * (plan.seeds > 1)}",
    ]
    if plan.study.primary:
        lines += ["primary comparison:", f"  {plan.study.primary}"]
        lines += [f"  {_say_when(plan.study.primary, todo, jobs)}"]
    if todo:
        lines += ["", f"{'row':<20}{'cells':>6}{'passes':>9}{'time':>12}  "]
        lines += _list_rows(plan, todo)
        seconds, size = add_up(list(todo.values()), jobs)
        lines += [
            "",
            "Passes are over the labelled slices of a fold, for each cell; time is of one core.",
            FAIR if data.validation else UNVALIDATED,
            *found.notes,
            "",
            f"In all about {format_seconds(seconds)} with {jobs} side by side, and "
            f"{format_bytes(size)} in {out} ({format_bytes(measure_free_space(out))} free).",
        ]
    return "\n".join(lines)


def _say_when(comparison: Comparison, todo: dict[Cell, Cost], jobs: int) -> str:
    """When the runs of a comparison will have ended, as they are not the last."""
    rows = comparison.row, comparison.other
    own = [
        place
        for place, cell in enumerate(todo)
        if cell.column == comparison.column and cell.row in rows
    ]
    if not own:
        return "none of its runs is to be run now"
    before = list(todo.values())[: own[-1] + 1]
    took = format_seconds(add_up(before, jobs)[0])
    return f"known after {len(before)} of the cells, about {took}"


def _list_rows(plan: Plan, todo: dict[Cell, Cost]) -> Iterator[str]:
    """A line for each row of each protocol that has cells to run."""
    protocols = [name for name in PROTOCOLS if any(cell.protocol == name for cell in todo)]
    for protocol in protocols:
        if len(protocols) > 1:
            yield f"{PROTOCOLS[protocol].label}:"
        for row in plan.study.rows:
            own = [
                cost
                for cell, cost in todo.items()
                if (cell.row, cell.protocol) == (row.name, protocol)
            ]
            if own:
                passes = max(cost.passes for cost in own)
                took = format_seconds(sum(cost.seconds for cost in own))
                yield f"{row.name:<20}{len(own):>6}{passes:>9.0f}{took:>12}  {row.about}"


def check_room(todo: Sequence[Cost], jobs: int, out: Path) -> None:
    """OutputError where the disk cannot hold what is still to be written."""
    if todo and (need := add_up(todo, jobs)[1]) > (room := measure_free_space(out)):
        raise OutputError(
            f"{out} needs about {format_bytes(need)} and has {format_bytes(room)}: make room, take "
            "another --out, fewer --jobs (each holds a checkpoint), or a part of the table with "
            "--only."
        )


def measure_free_space(out: Path) -> int:
    return shutil.disk_usage(out).free


class ProgressPrinter:
    """A line for each cell that ends; the time left by how the estimates have held so far."""

    def __init__(
        self, todo: dict[Cell, Cost], jobs: int, say: Callable[[str], None] = print
    ) -> None:
        self.left, self.jobs, self.say = dict(todo), jobs, say
        self.count, self.number = len(todo), 0
        self.start, self.spent = time.perf_counter(), 0.0

    def report(self, cell: Cell, outcome: str, text: str, seconds: float) -> None:
        self.number += 1
        self.spent += self.left.pop(cell).seconds
        elapsed = time.perf_counter() - self.start
        left = sum(cost.seconds for cost in self.left.values())
        ahead = f", about {format_seconds(left / self.spent * elapsed)} left" if left else ""
        about = {"finished": text, "interrupted": "interrupted, will resume where it stopped"}
        words = about.get(outcome) or f"{outcome}: {text}"
        took = f" in {format_seconds(seconds)}" if outcome in ENDED else ""
        self.say(f"[{self.number}/{self.count}] {cell.path}: {words}{took}{ahead}")


def format_seconds(seconds: float) -> str:
    """A time in the one unit that matters."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.0f} days"


def format_bytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
