"""The plan in words, before anything is trained, and how far it has come."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ichfast.errors import OutputError
from ichfast.reproduce.checks import Found
from ichfast.reproduce.cost import Cost, total
from ichfast.reproduce.plan import ENDED, Cell, Plan

FAIR = """\
All rows share folds, test slices and split seed, and are validated after as many passes: by Adam
one over the labelled slices, by L-BFGS one iteration."""


def overview(
    plan: Plan, todo: dict[Cell, Cost], done: int, found: Found, jobs: int, out: Path
) -> str:
    """What will be run, what it costs, and what the reader should know."""
    data = plan.base.data
    source = "the phantom" if not data.labelled else "the labelled set"
    lines = [
        f"table1, preset {plan.preset}: {len(todo)} cells to run, {done} are there already",
        f"{found.patients} labelled patients of {source}, {found.unlabelled} unlabelled slices, "
        f"{data.size}×{data.size} pixels, {plan.seeds} seed{'s' * (plan.seeds > 1)}",
    ]
    if todo:
        lines += ["", f"{'row':<14}{'cells':>6}{'passes':>9}{'time':>12}  "]
    for row in plan.rows:
        own = {cell: cost for cell, cost in todo.items() if cell.row == row.name}
        if own:
            passes = max(cost.passes for cost in own.values())
            seconds = sum(cost.seconds for cost in own.values())
            lines.append(
                f"{row.name:<14}{len(own):>6}{passes:>9.0f}{span(seconds):>12}  {row.about}"
            )
    if todo:
        seconds, size = total(list(todo.values()), jobs)
        lines += [
            "",
            "Passes are over the labelled slices of a fold, for each cell; time is of one core.",
            FAIR,
            *found.notes,
            "",
            f"In all about {span(seconds)} with {jobs} side by side, and {bytes_(size)} in {out} "
            f"({bytes_(free(out))} free).",
        ]
    return "\n".join(lines)


def check_room(todo: Sequence[Cost], jobs: int, out: Path) -> None:
    """OutputError where the disk cannot hold what is still to be written."""
    if todo and (need := total(todo, jobs)[1]) > (room := free(out)):
        raise OutputError(
            f"{out} needs about {bytes_(need)} and has {bytes_(room)}: make room, take another "
            "--out, fewer --jobs (each holds a checkpoint), or a part of the table with --only."
        )


def free(out: Path) -> int:
    return shutil.disk_usage(out).free


class Progress:
    """A line for each cell that ends; the time left by how the estimates have held so far."""

    def __init__(
        self, todo: dict[Cell, Cost], jobs: int, say: Callable[[str], None] = print
    ) -> None:
        self.left, self.jobs, self.say = dict(todo), jobs, say
        self.count, self.number = len(todo), 0
        self.start, self.spent = time.perf_counter(), 0.0

    def told(self, cell: Cell, outcome: str, text: str, seconds: float) -> None:
        self.number += 1
        self.spent += self.left.pop(cell).seconds
        elapsed = time.perf_counter() - self.start
        left = sum(cost.seconds for cost in self.left.values())
        ahead = f", about {span(left / self.spent * elapsed)} left" if left else ""
        about = {"finished": text, "interrupted": "interrupted, will resume where it stopped"}
        words = about.get(outcome) or f"{outcome}: {text}"
        took = f" in {span(seconds)}" if outcome in ENDED else ""
        self.say(f"[{self.number}/{self.count}] {cell.path}: {words}{took}{ahead}")


def span(seconds: float) -> str:
    """A time in the one unit that matters."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.0f} days"


def bytes_(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
