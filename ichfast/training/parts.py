"""The slices a recipe trains, validates and tests on."""

import hashlib
import json
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
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
    order_evenly,
    shuffle,
    split_patients,
)
from ichfast.data.names import find_shared
from ichfast.data.problems import Problems
from ichfast.data.sampling import choose
from ichfast.errors import DataError, RecipeError
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
    shares = needs and not data.unlabelled and data.labelled_share < 1
    if needs and data.labelled and not data.unlabelled and not shares:
        raise RecipeError(
            f"strategy {recipe.training.strategy} needs unlabelled slices: give --unlabelled DIR, "
            "or --set data.labelled_share below 1, so that the other training patients' slices are "
            "the unlabelled ones, or --set training.strategy=supervised."
        )
    phantom = None if data.labelled else share_phantom(recipe.phantom, phantoms, team)
    # Slices without blood that are tested on, or unlabelled, are among those that are read, even
    # where none is trained on.
    everything = shares or "all" in (data.slices, data.test_slices)
    root = Path(data.labelled or f"{phantom}/labelled")
    labelled, unreadable = _load(
        root, recipe, "all" if everything else "positive", load, labelled=True
    )
    places = split(labelled, data)
    places["train"], others = share_labels(labelled, places["train"], data)
    parts = {name: labelled.select(indices) for name, indices in places.items()}
    if not needs:
        return Parts(**parts, problems=unreadable, split_by=data.split_by, labelled=labelled)
    # Labels teach only where some slices have none.
    every = needs == "labels" or data.unlabelled_slices == "all"
    more = 0
    if shares:
        pool = _hide_masks(labelled.select(others), every, data)
    else:
        root = Path(data.unlabelled or f"{phantom}/unlabelled")
        every |= not find_layout(root).has_labels  # plain folders have no table to choose by
        pool, more = _load(root, recipe, "all" if every else "positive", load, labelled=False)
    _check_labels(root, pool, recipe)
    share = set.intersection if shares else find_shared  # one set, or two
    for name in ("validation", "test"):
        check_apart({"unlabelled": pool.identifiers(), name: parts[name].identifiers()}, share)
    if both := set(pool.patients) & set(parts["train"].patients):
        what = f"{len(both)} patients of the unlabelled set are trained on with their masks, too"
        print(what, file=sys.stderr)
    return Parts(
        **parts,
        unlabelled=pool,
        problems=unreadable + more,
        split_by=data.split_by,
        labelled=labelled,
    )


def _check_labels(root: Path, pool: SliceSet, recipe: Recipe) -> None:
    """DataError where labels of the unlabelled slices, read below ``root``, are needed and
    unknown."""
    strategy = make_strategy(recipe)
    if strategy.unlabelled == "labels":
        what, other = f"strategy {strategy.name}", "another training.strategy"
    elif strategy.batchwise and recipe.together.slice_labels == "use":
        what, other = "together.slice_labels = use", "together.slice_labels = ignore"
    else:
        return
    if all(kinds is None for kinds in pool.subtypes):
        raise DataError(
            f"{root}: no table says which of these slices have haemorrhage, which {what} learns "
            f"from; put the set's table there, as docs/data.md has it, or set {other}"
        )


def share_labels(
    labelled: SliceSet, train: list[int], data: DataSettings
) -> tuple[list[int], list[int]]:
    """Of the training slices those that keep their masks, and all slices of the other patients on
    the training side. ``data.labelled_share`` of the patients with haemorrhage keep theirs, of
    nearly all subtypes, and as many of those without; whoever does with a smaller share does with a
    larger one."""
    if data.labelled_share == 1:
        return train, []
    kinds: dict[str, set[str]] = defaultdict(set)
    for i in labelled.positive.nonzero()[:, 0].tolist():
        kinds[labelled.patients[i]].update((labelled.subtypes and labelled.subtypes[i]) or ())
    side = {labelled.patients[i] for i in train}
    if data.slices == "positive":  # healthy heads are on this side too, unless they are tested on
        healthy = set(labelled.patients) - kinds.keys()
        side |= healthy - _choose_tested(healthy, data)
    bleeding = order_evenly({name: kinds[name] for name in side & kinds.keys()}, data.split_seed)
    healthy_order = shuffle(side - kinds.keys(), data.split_seed)
    kept = {
        *bleeding[: max(1, round(data.labelled_share * len(bleeding)))],
        *healthy_order[: round(data.labelled_share * len(healthy_order))],
    }
    others = [i for i, name in enumerate(labelled.patients) if name in side - kept]
    return [i for i in train if labelled.patients[i] in kept], others


def _hide_masks(slices: SliceSet, every: bool, data: DataSettings) -> SliceSet:
    """Slices with masks as an unlabelled set: all, or those that their table calls positive where
    it tells of any."""
    places = list(range(len(slices)))
    if not every and any(kinds is not None for kinds in slices.subtypes):
        places = [i for i in places if slices.subtypes[i]]
    if data.unlabelled_limit:
        names = choose(list(map(str, places)), data.unlabelled_limit, data.split_seed)
        places = list(map(int, names))
    if not places:
        raise DataError(
            f"data.labelled_share = {data.labelled_share:g} leaves no slice for the unlabelled "
            "set; lower it, give --unlabelled DIR, or set data.unlabelled_slices = all"
        )
    return replace(slices.select(places), masks=None)


def split(labelled: SliceSet, data: DataSettings) -> dict[str, list[int]]:
    """Indices of the slices of train, validation and test, whether or not ``labelled`` has slices
    that are in none. All slices of the test patients where ``data.test_slices`` says so, which
    moves no patient with haemorrhage to another part."""
    if data.slices == "all":
        return _split(labelled, data)
    positive = labelled.positive.nonzero()[:, 0].tolist()
    parts = {
        name: [positive[k] for k in places]
        for name, places in _split(labelled.select(positive), data).items()
    }
    if data.test_slices == "positive":
        return parts
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
        return _split_shares(labelled.patients, shares, data.split_seed)
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
    inner = _split_shares(units, shares, data.split_seed)
    return {name: [train[k] for k in places] for name, places in inner.items()} | {"test": test}


def _split_shares(
    units: Sequence[str], shares: Mapping[str, float], seed: int
) -> dict[str, list[int]]:
    """By whole units; a part whose share is 0 is empty."""
    wanted = {name: share for name, share in shares.items() if share}
    found = split_patients(units, wanted, seed)
    return {name: found.get(name, []) for name in shares}


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
