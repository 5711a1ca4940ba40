"""Whether the data can fill the table, before anything is trained: each refusal says what to do."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ichfast.data import SUBTYPES, SliceSet
from ichfast.errors import DataError, RecipeError, SplitError
from ichfast.reproduce.cost import Sizes
from ichfast.reproduce.plan import Cell
from ichfast.reproduce.rows import ROWS
from ichfast.training.parts import Load, Parts, load_parts
from ichfast.training.strategy import make_strategy


@dataclass
class Findings:
    """What the data are, as far as the plan has looked."""

    sizes: dict[tuple[str, int, int], Sizes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    patients: int = 0
    unlabelled: int = 0
    """slices that the unlabelled-amount cells take their shares of"""

    def get_sizes(self, cell: Cell) -> Sizes:
        return self.sizes[make_strategy(cell.recipe).unlabelled, cell.scheme, cell.fold]


def check(cells: Sequence[Cell], out: Path, load: Load) -> Findings:
    """Load the parts of every fold once; DataError or RecipeError where a cell cannot be run."""
    found = Findings()
    for cell in cells:
        key = make_strategy(cell.recipe).unlabelled, cell.scheme, cell.fold
        if key in found.sizes:
            continue
        parts = _load_parts(cell, out, load)
        sets = parts.sets
        found.sizes[key] = Sizes(**{name: len(part) for name, part in sets.items()})
        _check_blood(cell, parts)
        _note_missing(cell, parts.train, found)
        if key[0] == "images":
            found.unlabelled = found.sizes[key].unlabelled
        if parts.unlabelled is not None:
            _check_unlabelled(cell, parts.unlabelled, key[0])
        everyone = [part.patients for name, part in sets.items() if name != "unlabelled"]
        found.patients = max(found.patients, len(set().union(*everyone)))
    found.notes = list(dict.fromkeys(found.notes))
    return found


def _load_parts(cell: Cell, out: Path, load: Load) -> Parts:
    data = cell.recipe.data
    if make_strategy(cell.recipe).unlabelled and data.labelled and not data.unlabelled:
        raise RecipeError(
            f"row {cell.row} needs unlabelled slices: give --unlabelled DIR, or leave it out with "
            f"--only 'row!={cell.row}'."
        )
    try:
        return load_parts(cell.recipe, out, load)
    except SplitError as error:
        raise SplitError(
            f"scheme {cell.scheme}, fold {cell.fold}: {error}. Add labelled patients with blood, "
            f"or leave the scheme out with --only 'scheme!={cell.scheme}'."
        ) from error


def _check_blood(cell: Cell, parts: Parts) -> None:
    labelled = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    for name, part in labelled.items():
        positive = part.positive
        if not positive.any():
            raise DataError(
                f"scheme {cell.scheme}, fold {cell.fold}: no {name} slice has blood, so it has no "
                f"Dice. Add patients, try --set data.split_seed={cell.recipe.data.split_seed + 1}, "
                f"or leave the fold out with --only 'scheme!={cell.scheme}'."
            )


def _note_missing(cell: Cell, train: SliceSet, found: Findings) -> None:
    """Note a fold that trains without a kind of haemorrhage, as is usual in sets so small."""
    if not any(train.subtypes):
        return
    own = {kind for kinds in train.subtypes for kind in kinds or ()}
    if missing := [kind for kind in SUBTYPES if kind not in own]:
        found.notes.append(
            f"scheme {cell.scheme}, fold {cell.fold}, trains without {', '.join(missing)}: add "
            "patients or try another data.split_seed if that matters"
        )


def _check_unlabelled(cell: Cell, pool: SliceSet, need: str) -> None:
    asked = cell.recipe.data.unlabelled_limit
    if asked > len(pool):
        raise DataError(
            f"data.unlabelled_limit asks for {asked} unlabelled slices, and there are {len(pool)}: "
            f"add scans, or --set data.unlabelled_limit={len(pool)}."
        )
    if need != "labels":
        return
    about = next((row.label for row in ROWS if row.name == cell.row), cell.row)
    leave = f"or leave the row out with --only 'row!={cell.row}'."
    if not pool.subtypes or all(kinds is None for kinds in pool.subtypes):
        raise DataError(
            f"row {cell.row} ({about}) learns from labels of the unlabelled slices, and there are "
            f"none: give a set with a table of them, as RSNA 2019, {leave}"
        )
    kinds = {kind for own in pool.subtypes for kind in own or ()}
    if missing := [kind for kind in SUBTYPES if kind not in kinds]:
        raise DataError(
            f"row {cell.row} ({about}) learns to name haemorrhages, and no unlabelled slice has "
            f"{', '.join(missing)}: add such scans, {leave}"
        )
