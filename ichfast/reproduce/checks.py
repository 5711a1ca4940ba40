"""Whether the data can fill the table, before anything is trained: each refusal says what to do."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ichfast.data import SUBTYPES, SliceSet
from ichfast.errors import DataError, RecipeError, SplitError
from ichfast.reproduce.cost import Sizes
from ichfast.reproduce.plan import Cell
from ichfast.reproduce.studies import Column
from ichfast.training.parts import Load, Parts, load_parts
from ichfast.training.strategy import make_strategy


@dataclass
class Findings:
    """What the data are, as far as the plan has looked."""

    sizes: dict[tuple[str, Column, int], Sizes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    patients: int = 0
    unlabelled: int = 0
    """slices that the unlabelled-amount cells take their shares of"""

    def get_sizes(self, cell: Cell) -> Sizes:
        return self.sizes[_name_parts(cell)]


def _name_parts(cell: Cell) -> tuple[str, Column, int]:
    """What the parts of a cell depend on."""
    return make_strategy(cell.recipe).unlabelled, cell.column, cell.fold


def check(cells: Sequence[Cell], out: Path, load: Load) -> Findings:
    """Load the parts of every fold once; DataError or RecipeError where a cell cannot be run."""
    found = Findings()
    for cell in cells:
        key = _name_parts(cell)
        if key in found.sizes:
            continue
        parts = _load_parts(cell, out, load)
        sets = parts.sets
        found.sizes[key] = Sizes(**{name: len(part) for name, part in sets.items()})
        _check_blood(cell, parts)
        _note_missing(cell, parts.train, found)
        if key[0] == "images" and cell.recipe.data.labelled_share == 1:
            found.unlabelled = found.sizes[key].unlabelled
        if parts.unlabelled is not None:
            _check_unlabelled(cell, parts.unlabelled, found)
        everyone = [part.patients for name, part in sets.items() if name != "unlabelled"]
        found.patients = max(found.patients, len(set().union(*everyone)))
    found.notes = list(dict.fromkeys(found.notes))
    return found


def name_place(cell: Cell) -> str:
    protocol = "" if cell.protocol == "paper" else f"protocol {cell.protocol}, "
    return f"{protocol}scheme {cell.scheme}, fold {cell.fold}"


def _load_parts(cell: Cell, out: Path, load: Load) -> Parts:
    data = cell.recipe.data
    needs = make_strategy(cell.recipe).unlabelled
    if needs and data.labelled and not data.unlabelled and data.labelled_share == 1:
        raise RecipeError(
            f"row {cell.row} needs unlabelled slices: give --unlabelled DIR, {leave_out(cell)}."
        )
    try:
        return load_parts(cell.recipe, out, load)
    except SplitError as error:
        raise SplitError(
            f"{name_place(cell)}: {error}. Add labelled patients with blood, "
            f"or leave the scheme out with --only 'scheme!={cell.scheme}'."
        ) from error
    except DataError as error:
        if not needs:
            raise
        raise DataError(f"row {cell.row}: {error}; {leave_out(cell)}.") from error


def leave_out(cell: Cell) -> str:
    return f"or leave the row out with --only 'row!={cell.row}'"


def _check_blood(cell: Cell, parts: Parts) -> None:
    labelled = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    for name, part in labelled.items():
        if len(part) and not part.positive.any():  # without validation, there is none
            raise DataError(
                f"{name_place(cell)}: no {name} slice has blood, so it has no "
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
            f"{name_place(cell)}, trains without {', '.join(missing)}: add "
            "patients or try another data.split_seed if that matters"
        )


def _check_unlabelled(cell: Cell, pool: SliceSet, found: Findings) -> None:
    asked = cell.recipe.data.unlabelled_limit
    if asked > len(pool):
        raise DataError(
            f"data.unlabelled_limit asks for {asked} unlabelled slices, and there are {len(pool)}: "
            f"add scans, or --set data.unlabelled_limit={len(pool)}."
        )
    if "classification" not in make_strategy(cell.recipe).steps:
        return
    kinds = {kind for own in pool.subtypes for kind in own or ()}
    if not kinds:
        raise DataError(
            f"row {cell.row} learns to name haemorrhages, and no unlabelled slice has any: add "
            f"such scans, {leave_out(cell)}."
        )
    if missing := [kind for kind in SUBTYPES if kind not in kinds]:
        found.notes.append(
            f"row {cell.row}, protocol {cell.protocol}: no {' or '.join(missing)} among the "
            "unlabelled slices that it learns to name"
        )
