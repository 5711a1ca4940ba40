"""What the data lack is said before anything is trained, with what to do."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from slice_sets import WINDOW, slice_set

from ichfast.data import SUBTYPES, SliceSet
from ichfast.data.problems import Problems
from ichfast.errors import DataError, IchfastError
from ichfast.reproduce.checks import check
from ichfast.reproduce.plan import Plan, make_plan
from ichfast.reproduce.studies import STUDIES
from ichfast.training.recipe import merge


def slices(prefix: str, patients: int, *, blood: int = 99, kinds=SUBTYPES, masks=True) -> SliceSet:
    """Two slices per patient; the first ``blood`` of them have blood, each of another kind."""
    masked = torch.zeros(2 * patients, 1, 16, 16)
    masked[: 2 * blood, :, 4:8, 4:8] = 1
    names = tuple(f"{prefix}{i // 2:02}" for i in range(2 * patients))
    own = slice_set(masked * 0.5, masked.to(torch.uint8) if masks else None, names)
    subtypes = tuple((kinds[(i // 2) % len(kinds)],) if kinds else None for i in range(len(names)))
    return replace(own, subtypes=subtypes)


@pytest.fixture
def plan(phantom) -> Plan:
    folders = {f"data.{name}": f"{phantom}/{name}" for name in ("labelled", "unlabelled")}
    small = {"data.size": 16, "data.scheme": 80, "data.window": list(WINDOW)}
    return make_plan(STUDIES["demo"], merge(STUDIES["demo"].recipe, folders | small), seeds=1)


@pytest.fixture
def checked(plan, tmp_path) -> Callable:
    def checked(labelled: SliceSet, pool: SliceSet, row: str, scheme: int):
        def load(root, *, labelled: bool, **_):
            return (own if labelled else pool), Problems()

        own = labelled
        return check(plan.select(row, scheme), tmp_path, load)

    return checked


def test_sound_data(checked) -> None:
    pool = slices("u", 10, masks=False)
    found = checked(slices("p", 20), pool, "pretrained", 50)
    assert found.patients == 20
    assert found.notes == []
    found = checked(slices("p", 20), pool, "curriculum", 20)
    assert found.unlabelled == 20
    assert {sizes.unlabelled for sizes in found.sizes.values()} == {20}


@pytest.mark.parametrize(
    ("patients", "blood", "scheme", "message"),
    [
        (4, 99, 80, r"scheme 80, fold 0: 4 patients cannot be .*\. Add labelled patients"),
        (6, 99, 20, r"scheme 20, fold \d: 1 patients cannot be split .*scheme!=20"),
        (
            20,
            1,
            50,
            r"scheme 50, fold 0: 1 patients cannot be .*\. Add labelled patients",
        ),
    ],
)
def test_too_few_patients(patients, blood, scheme, message, checked) -> None:
    with pytest.raises(IchfastError, match=message):
        checked(slices("p", patients, blood=blood), slices("u", 3), "supervised", scheme)


def test_a_fold_without_blood(plan, tmp_path, phantom) -> None:
    """Which can only be where slices without blood are trained on, too."""
    everything = merge(plan.base, {"data.slices": "all"})
    cells = make_plan(plan.study, everything, seeds=1).select("supervised", 80)
    own = replace(slices("p", 20, blood=2), subtypes=())
    with pytest.raises(DataError, match=r"no \w+ slice has blood, .*data\.split_seed=1"):
        check(cells, tmp_path, lambda root, **_: (own, Problems()))


def test_kinds_of_haemorrhage(checked) -> None:
    one_kind = slices("p", 20, kinds=SUBTYPES[:1])
    notes = checked(one_kind, slices("u", 3), "supervised", 50).notes
    assert len(notes) == 2
    assert "trains without intraparenchymal, intraventricular" in notes[0]
    pool = slices("u", 10, kinds=SUBTYPES[1:], masks=False)
    notes = checked(slices("p", 20), pool, "pretrained", 50).notes
    assert notes == [
        "row pretrained, protocol paper: no epidural among the unlabelled slices that it learns to "
        "name"
    ]
    bare = replace(pool, subtypes=((),) * 20)
    with pytest.raises(DataError, match="no unlabelled slice has any: add such scans, or"):
        checked(slices("p", 20), bare, "pretrained", 50)
    with pytest.raises(DataError, match=r"row pretrained: .*no table says.*row!=pretrained"):
        checked(slices("p", 20), slices("u", 10, kinds=(), masks=False), "pretrained", 50)
