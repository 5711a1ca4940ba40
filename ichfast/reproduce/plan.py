"""Which runs the table is made of, and what each of them is trained with."""

import fnmatch
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ichfast.data import SCHEMES
from ichfast.errors import OutputError, RecipeError
from ichfast.reproduce.rows import METHOD, ROWS, TableRow
from ichfast.training import PRESETS as TRAINING_PRESETS
from ichfast.training import Recipe
from ichfast.training.checkpoint import MAY_CHANGE
from ichfast.training.folder import METRICS, RECIPE
from ichfast.training.recipe import compare, merge, read

SHARED: dict[str, Any] = {"data.test_slices": "all"}
"""of every cell: slices without blood are tested on too, or there would be no specificity"""

PRESETS = {
    "demo": merge(
        TRAINING_PRESETS["demo"],
        {
            # All rows by Adam: in so few passes L-BFGS gets less far (benchmarks/cohorts.py).
            "training.epochs": 60,
            "training.validate_every": 5,
            "training.checkpoint_every": 5,
            "supervised.optimizer": "adam",
            "adam.learning_rate": 4e-3,
            "curriculum.k": 12.0,  # half of all epochs supervised, as in the paper
            "pretraining.epochs": 6,
            "together.ramp": 0.4,
            "data.train": 0.5,
            "data.validation": 0.3,
            "data.test": 0.2,
            "phantom.patients": 32,
            "phantom.slices": 4,
        },
    ),
    "paper": TRAINING_PRESETS["paper"],
}
AMOUNTS = (10, 30)
"""per cent of the unlabelled slices; 0 is the supervised row, 100 the curriculum's"""
AMOUNT_SCHEME = 20
ENDED = ("finished", "diverged")


@dataclass(frozen=True)
class Cell:
    """One run of the table."""

    scheme: int
    fold: int
    row: str
    seed: int
    recipe: Recipe
    unlabelled: int = 100
    """per cent of the unlabelled set"""

    @property
    def path(self) -> str:
        amount = "" if self.unlabelled == 100 else f"-unlabelled{self.unlabelled}"
        return f"scheme{self.scheme}/fold{self.fold}/{self.row}-seed{self.seed}{amount}"


@dataclass(frozen=True)
class Plan:
    preset: str
    base: Recipe
    seeds: int
    rows: tuple[TableRow, ...]
    cells: tuple[Cell, ...]

    def limit_unlabelled(self, pool: int) -> "Plan":
        """With the unlabelled shares as numbers of slices of a set of ``pool``; without them,
        where its size is not known."""
        cells = [
            limit_unlabelled(cell, pool) for cell in self.cells if pool or cell.unlabelled == 100
        ]
        return replace(self, cells=tuple(cells))

    def select(self, row: str, scheme: int, unlabelled: int = 100) -> list[Cell]:
        chosen = (row, scheme, unlabelled)
        return [cell for cell in self.cells if (cell.row, cell.scheme, cell.unlabelled) == chosen]


def make_plan(
    preset: str, base: Recipe, seeds: int, rows: Sequence[TableRow] | None = None
) -> Plan:
    """All cells, seed by seed and fold by fold, so that an early stop leaves whole comparisons."""
    if seeds < 1:
        raise RecipeError(f"--seeds {seeds} must be at least 1.")
    base = merge(base, SHARED)
    rows = tuple(rows or ROWS)
    return Plan(preset, base, seeds, rows, tuple(_make_cells(base, seeds, rows)))


def _make_cells(base: Recipe, seeds: int, rows: tuple[TableRow, ...]) -> Iterator[Cell]:
    for seed in range(base.training.seed, base.training.seed + seeds):
        for scheme, folds in sorted(SCHEMES.items()):
            for fold in range(folds):
                place = {"training.seed": seed, "data.scheme": scheme, "data.fold": fold}
                for row in rows:
                    recipe = merge(base, row.overrides(base) | place)
                    yield Cell(scheme, fold, row.name, seed, recipe)
                    if scheme == AMOUNT_SCHEME and row.name == METHOD:
                        for amount in AMOUNTS:
                            yield Cell(scheme, fold, row.name, seed, recipe, amount)


def limit_unlabelled(cell: Cell, pool: int) -> Cell:
    if cell.unlabelled == 100:
        return cell
    limit = max(1, round(pool * cell.unlabelled / 100))
    return replace(cell, recipe=merge(cell.recipe, {"data.unlabelled_limit": limit}))


def select_cells(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """The cells that one of the ``--only`` texts names; all, where there are none."""
    tests = [_parse_condition(text) for text in only]
    found = [cell for cell in cells if not tests or any(test(cell) for test in tests)]
    if not found:
        raise RecipeError(
            f"--only {' --only '.join(only)} leaves no cell; --plan without it lists the rows."
        )
    return found


def _parse_condition(text: str) -> Callable[[Cell], bool]:
    """Whether a cell meets every condition ``key=pattern`` or ``key!=pattern`` of the text."""
    conditions = []
    for condition in text.split(","):
        key, equals, pattern = (part.strip() for part in condition.partition("="))
        wanted = not key.endswith("!")
        key = key.removesuffix("!").strip()
        if not equals or key not in ("scheme", "fold", "row", "seed", "unlabelled"):
            raise RecipeError(
                f"--only {text}: write scheme=, fold=, row=, seed= or unlabelled= and a value, "
                "as in --only 'scheme=20,row=curriculum' or --only 'row!=pretrained'."
            )
        conditions.append((key, pattern, wanted))
    return lambda cell: all(
        fnmatch.fnmatchcase(str(getattr(cell, key)), pattern) == wanted
        for key, pattern, wanted in conditions
    )


def has_ended(cell: Cell, out: Path) -> bool:
    """Whether the cell's run is over. OutputError where its folder holds another recipe's run."""
    folder = out / cell.path
    if not (folder / RECIPE).is_file():
        return False
    former = read(folder / RECIPE, Recipe())
    changed = [str(one) for one in compare(former, cell.recipe) if one.key not in MAY_CHANGE]
    if changed:
        raise OutputError(
            f"{folder} was run with another recipe: {', '.join(changed)}. Take another --out, or "
            "the former settings."
        )
    try:
        status = json.loads((folder / METRICS).read_text(encoding="utf-8"))["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return status in ENDED
