"""Which runs the table is made of, and what each of them is trained with."""

import fnmatch
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ichfast.errors import OutputError, RecipeError
from ichfast.reproduce.studies import AMOUNT_COLUMN, PROTOCOLS, SHARED, Column, Study
from ichfast.training import Recipe
from ichfast.training.checkpoint import MAY_CHANGE
from ichfast.training.folder import METRICS, RECIPE
from ichfast.training.recipe import compare, merge, read

ENDED = ("finished", "diverged")


KEYS = ("protocol", "scheme", "fold", "row", "seed", "unlabelled")
"""of a cell, by which ``--only`` chooses"""


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
    protocol: str = "paper"

    @property
    def column(self) -> Column:
        return Column(self.protocol, self.scheme)

    @property
    def path(self) -> str:
        protocol = "" if self.protocol == "paper" else f"{self.protocol}/"
        amount = "" if self.unlabelled == 100 else f"-unlabelled{self.unlabelled}"
        return f"{protocol}scheme{self.scheme}/fold{self.fold}/{self.row}-seed{self.seed}{amount}"


@dataclass(frozen=True)
class Plan:
    study: Study
    base: Recipe
    seeds: int
    cells: tuple[Cell, ...]

    def limit_unlabelled(self, pool: int) -> "Plan":
        """With the unlabelled shares as numbers of slices of a set of ``pool``; without them,
        where its size is not known."""
        cells = [
            limit_unlabelled(cell, pool) for cell in self.cells if pool or cell.unlabelled == 100
        ]
        return replace(self, cells=tuple(cells))

    def select(
        self, row: str, scheme: int, unlabelled: int = 100, protocol: str = "paper"
    ) -> list[Cell]:
        chosen = (row, Column(protocol, scheme), unlabelled)
        return [cell for cell in self.cells if (cell.row, cell.column, cell.unlabelled) == chosen]


def make_plan(study: Study, base: Recipe, seeds: int) -> Plan:
    """All cells, part by part, seed by seed and fold by fold, so that an early stop leaves whole
    comparisons."""
    if seeds < 1:
        raise RecipeError(f"--seeds {seeds} must be at least 1.")
    base = merge(base, SHARED)
    cells = {cell.path: cell for cell in _make_cells(study, base, seeds)}  # each once, the first
    return Plan(study, base, seeds, tuple(cells.values()))


def _make_cells(study: Study, base: Recipe, seeds: int) -> Iterator[Cell]:
    """In the order of the study's parts; what a former part has too comes again."""
    for part in study.parts:
        count = min(seeds, part.seeds or seeds)
        for seed in range(base.training.seed, base.training.seed + count):
            for column in part.columns:
                protocol = PROTOCOLS[column.protocol]
                for fold in range(protocol.count_folds(column.scheme)):
                    place = {"training.seed": seed, "data.fold": fold}
                    own = merge(base, protocol.choose(column.scheme) | place)
                    for row in study.list_rows(part):
                        recipe = merge(own, row.overrides(own))
                        amounts = study.amounts if column == AMOUNT_COLUMN else ()
                        for amount in (100, *(amounts if row.name == study.method else ())):
                            yield Cell(
                                column.scheme, fold, row.name, seed, recipe, amount, column.protocol
                            )


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
        if not equals or key not in KEYS:
            raise RecipeError(
                f"--only {text}: write {'=, '.join(KEYS[:-1])}= or {KEYS[-1]}= and a value, as in "
                "--only 'scheme=20,row=curriculum' or --only 'row!=pretrained'."
            )
        conditions.append((key, pattern, wanted))
    return lambda cell: all(
        fnmatch.fnmatchcase(str(getattr(cell, key)), pattern) == wanted
        for key, pattern, wanted in conditions
    )


def has_ended(cell: Cell, out: Path) -> bool:
    """Whether the cell's run is over, however it was computed. OutputError where its folder holds
    another recipe's run."""
    folder = out / cell.path
    if not (folder / RECIPE).is_file():
        return False
    former = read(folder / RECIPE, Recipe())
    changed = [
        str(one)
        for one in compare(former, cell.recipe)
        if one.key not in MAY_CHANGE and not one.key.startswith("compute.")
    ]
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
