"""The slices a recipe trains, validates and tests on."""

import hashlib
import json
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from ichfast.data import (
    SCHEMES,
    SliceSet,
    check_apart,
    find_layout,
    load_slices,
    make_folds,
    shuffle,
    split_patients,
)
from ichfast.data.problems import Problems
from ichfast.errors import RecipeError
from ichfast.team import ALONE, Team
from ichfast.training.recipe import Recipe
from ichfast.training.settings import DataSettings, PhantomSettings
from ichfast.training.strategy import make_strategy


@dataclass(frozen=True, eq=False)
class Parts:
    train: SliceSet
    validation: SliceSet
    test: SliceSet
    unlabelled: SliceSet | None = None
    problems: int = 0
    """files that could not be read"""
    split_by: str = "patient"
    labelled: SliceSet | None = None
    """what the first three are parts of"""

    @property
    def whole(self) -> SliceSet:
        """The set whose patients and series number those of the test: a fold changes none."""
        return self.test if self.labelled is None else self.labelled

    def to(self, device: torch.device) -> "Parts":
        """The same, with batches made on the device."""
        return replace(
            self,
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
            unlabelled=None if self.unlabelled is None else self.unlabelled.to(device),
        )

    @property
    def sets(self) -> dict[str, SliceSet]:
        labelled = {"train": self.train, "validation": self.validation, "test": self.test}
        return labelled | ({} if self.unlabelled is None else {"unlabelled": self.unlabelled})

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """By part, what tells whether a resumed run has the same slices; hashed once."""
        return {name: slices.fingerprint() for name, slices in self.sets.items()}

    def count(self) -> dict[str, Any]:
        sizes = {
            name: {"patients": len(set(slices.patients)), "slices": len(slices)}
            for name, slices in self.sets.items()
        }
        return sizes | {"problems": self.problems, "split_by": self.split_by}


Load = Callable[..., tuple[SliceSet, Problems]]


def load_parts(
    recipe: Recipe, phantoms: Path, load: Load = load_slices, team: Team = ALONE
) -> Parts:
    """Read what ``recipe.data`` names; the phantom is written below ``phantoms`` where it is asked
    for and not there yet. ``functools.cache(load_slices)`` as ``load`` reads for many runs once."""
    data = recipe.data
    needs = make_strategy(recipe).unlabelled
    if needs and data.labelled and not data.unlabelled:
        raise RecipeError(
            f"strategy {recipe.training.strategy} needs unlabelled slices: give --unlabelled DIR, "
            "or --set training.strategy=supervised."
        )
    phantom = None if data.labelled else share_phantom(recipe.phantom, phantoms, team)
    # Tested slices without blood are among those that are read, even where none is trained on.
    which = "all" if "all" in (data.slices, data.test_slices) else "positive"
    root = Path(data.labelled or f"{phantom}/labelled")
    labelled, unreadable = _load(root, recipe, which, load, labelled=True)
    parts = {name: labelled.select(indices) for name, indices in split(labelled, data).items()}
    if not needs:
        return Parts(**parts, problems=unreadable, split_by=data.split_by, labelled=labelled)
    root = Path(data.unlabelled or f"{phantom}/unlabelled")
    # Labels teach only where some slices have none; plain folders have no table to choose by.
    every = needs == "labels" or not find_layout(root).has_labels
    pool, more = _load(root, recipe, "all" if every else data.slices, load, labelled=False)
    for name in ("validation", "test"):
        check_apart({"unlabelled": pool.identifiers(), name: parts[name].identifiers()})
    return Parts(
        **parts,
        unlabelled=pool,
        problems=unreadable + more,
        split_by=data.split_by,
        labelled=labelled,
    )


def split(labelled: SliceSet, data: DataSettings) -> dict[str, list[int]]:
    """Indices of the slices of train, validation and test. All slices of the test patients where
    ``data.test_slices`` says so, which moves no patient with haemorrhage to another part."""
    if data.slices == "all" or data.test_slices == "positive":
        return _split(labelled, data)
    positive = labelled.positive.nonzero()[:, 0].tolist()
    parts = {
        name: [positive[k] for k in places]
        for name, places in _split(labelled.select(positive), data).items()
    }
    units = _list_units(labelled, data)
    tested = {units[i] for i in parts["test"]}
    tested |= _choose_tested(set(units) - {units[i] for i in positive}, data)
    return parts | {"test": [i for i, unit in enumerate(units) if unit in tested]}


def _list_units(slices: SliceSet, data: DataSettings) -> list[str]:
    """What is dealt out, for each slice: its patient, or the slice itself."""
    if data.split_by == "slice":
        return [str(row) for row in slices.rows.tolist()]
    return list(slices.patients)


def _choose_tested(healthy: Collection[str], data: DataSettings) -> set[str]:
    """Those of the units without haemorrhage that are tested on, as large a share as of the others.
    Nobody trains on the rest, and with folds each is tested as often."""
    order = shuffle(healthy, data.split_seed)
    if not data.scheme:
        return set(order[: round(data.test * len(order))])
    own = set(order[data.fold :: SCHEMES[data.scheme]])
    return set(order) - own if data.scheme == 20 else own


def _split(labelled: SliceSet, data: DataSettings) -> dict[str, list[int]]:
    """One split, or a fold of the scheme whose training side gives up its share for validation.
    Folds have the subtypes evenly."""
    if not data.scheme:
        shares = {"train": data.train, "validation": data.validation, "test": data.test}
        return split_patients(labelled.patients, shares, data.split_seed)
    subtypes: dict[str, set[str]] = defaultdict(set)
    for patient, own in zip(labelled.patients, labelled.subtypes, strict=False):
        subtypes[patient].update(own or ())
    by: Literal["patient", "slice"] = "slice" if data.split_by == "slice" else "patient"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run's introduction says it
        folds = make_folds(
            labelled.patients, data.scheme, data.split_seed, subtypes=subtypes, by=by
        )
    train, test = folds[data.fold]
    units = [labelled.patients[i] if by == "patient" else str(i) for i in train]
    shares = {"train": 1 - data.validation, "validation": data.validation}
    inner = split_patients(units, shares, data.split_seed)
    return {name: [train[k] for k in places] for name, places in inner.items()} | {"test": test}


def _load(
    root: Path, recipe: Recipe, which: str, load: Load, *, labelled: bool
) -> tuple[SliceSet, int]:
    """The slices below ``root`` and the number of files that could not be read."""
    data = recipe.data
    slices, problems = load(
        root,
        size=data.size,
        window=data.window,
        slices=which,
        labelled=labelled,
        limit=None if labelled else data.unlabelled_limit or None,
        seed=data.split_seed,
    )
    if problems.items:
        print(problems.summary(), file=sys.stderr)
    return slices, problems.failed


def share_phantom(phantom: PhantomSettings, parent: Path, team: Team) -> Path:
    """The phantom, written by one process of each machine that does not see it yet."""
    path = team.lead(lambda: ensure_phantom(phantom, parent))
    if team.local_rank == 0 and not team.leads:
        ensure_phantom(phantom, parent)
    team.any(False)  # wait for all
    return path


def ensure_phantom(phantom: PhantomSettings, parent: Path) -> Path:
    """The phantom of these parameters below ``parent``, written unless it is complete there."""
    # Here, as this needs nibabel and pydicom, which real data may not.
    from ichfast.data.phantom import cohort, write_phantom

    parameters = phantom.model_dump() | {"version": cohort.VERSION}
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:8]
    out = parent / f"phantom-{digest}"
    write_phantom(
        out,
        patients=phantom.patients,
        unlabelled_patients=phantom.unlabelled,
        size=phantom.size,
        slices=phantom.slices,
        seed=phantom.seed,
    )
    return out
