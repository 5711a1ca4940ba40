"""Masks for a share of the patients only: who keeps them, and what becomes of the others."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from published import ct_ich_100
from slice_sets import slice_set
from tiny_runs import tiny

from ichfast.data import Problems, SliceSet
from ichfast.errors import DataError, RecipeError
from ichfast.training.parts import Parts, load_parts, split

SHARE = "data.labelled_share"
KINDS = ("epidural", "subdural", "intraventricular")


def hospital(patients: int = 40) -> SliceSet:
    """4 slices a patient; every other patient has haemorrhage, in 2 of them."""
    masks = torch.zeros(patients, 4, 1, 16, 16, dtype=torch.uint8)
    masks[::2, 1:3, :, 4:8, 4:8] = 1
    masks = masks.flatten(0, 1)
    images = torch.rand(masks.shape, generator=torch.Generator().manual_seed(0))
    names = tuple(f"{i // 4:02}" for i in range(4 * patients))
    whole = slice_set(images, masks, names)
    kinds = [(KINDS[int(name) // 2 % 3],) for name in names]
    found = whole.positive.tolist()
    return replace(
        whole,
        sources=tuple(f"{name}#{i}" for i, name in enumerate(names)),
        subtypes=tuple(own if has else () for own, has in zip(kinds, found, strict=True)),
    )


def load(*settings: str, whole: SliceSet | None = None) -> Parts:
    """The parts of a hospital's slices, read as the recipe asks for them."""

    def read(root: Path, *, slices: str, labelled: bool, **_) -> tuple[SliceSet, Problems]:
        assert labelled, "only the labelled folder is there"
        own = hospital() if whole is None else whole
        if slices == "positive":
            own = own.select(own.positive.nonzero()[:, 0].tolist())
        return own, Problems()

    recipe = tiny("data.labelled='hospital'", "data.unlabelled_slices=all", *settings)
    return load_parts(recipe, Path("nowhere"), read)


FOLDS = (
    "training.select=last",
    "data.scheme=80",
    "data.fold=2",
    "data.validation=0",
    "data.test=0.75",
)
ALL = "data.slices=all"


@pytest.mark.parametrize("split_by", [(), FOLDS], ids=["shares", "folds"])
@pytest.mark.parametrize("slices", ["all", "positive"])
def test_a_share_keeps_its_masks_and_the_others_are_unlabelled(split_by, slices) -> None:
    settings = (*split_by, f"data.slices={slices}", "training.strategy=curriculum")
    full = load(*settings, "training.strategy=supervised")
    some = load(*settings, f"{SHARE}=0.5")
    for name in ("validation", "test"):
        assert some.sets[name].sources == full.sets[name].sources
    kept, everyone = set(some.train.patients), set(full.train.patients)
    assert kept < everyone
    for healthy in (0, 1) if slices == "all" else (0,):
        group = {name for name in everyone if int(name) % 2 == healthy}
        assert len(kept & group) == round(len(group) / 2)
    # Whole patients, each on one side; all slices of the others, without their masks.
    assert some.train.sources == tuple(
        source
        for source, name in zip(full.train.sources, full.train.patients, strict=True)
        if name in kept
    )
    assert some.unlabelled is not None
    assert some.unlabelled.masks is None
    with pytest.raises(DataError, match="no masks"):
        some.unlabelled.positive  # noqa: B018
    own = Counter(some.unlabelled.patients)
    assert own.keys() >= everyone - kept
    assert set(own.values()) == {4}
    assert not own.keys() & {*kept, *some.validation.patients, *some.test.patients}
    bleeding = sum(int(name) % 2 == 0 for name in own)
    assert sum(bool(kinds) for kinds in some.unlabelled.subtypes) == 2 * bleeding


def test_healthy_heads_are_unlabelled_even_where_positive_slices_alone_are_learnt_from() -> None:
    """Those whom `data.test_slices=all` would test on are not, so that it changes no training."""
    settings = "training.strategy=curriculum", f"{SHARE}=0.5"
    positive, every = (load(*settings, f"data.test_slices={w}") for w in ("positive", "all"))
    assert positive.unlabelled is not None
    assert every.unlabelled is not None
    assert positive.unlabelled.sources == every.unlabelled.sources
    healthy = {name for name in every.unlabelled.patients if int(name) % 2}
    assert healthy
    assert not healthy & set(every.test.patients)


def test_a_strategy_without_unlabelled_slices_has_the_same_labelled_ones() -> None:
    for slices in ("positive", "all"):
        one, other = (
            load(f"data.slices={slices}", f"{SHARE}=0.3", f"training.strategy={name}")
            for name in ("supervised", "curriculum")
        )
        assert one.unlabelled is None
        for name in ("train", "validation", "test"):
            assert one.sets[name].sources == other.sets[name].sources


def count_kinds(slices: SliceSet) -> Counter[str]:
    """Patients by their haemorrhage."""
    pairs = zip(slices.patients, slices.subtypes, strict=True)
    return Counter(kind for _, kind in {(name, kind) for name, own in pairs for kind in own or ()})


def test_shares_are_nested_and_have_the_subtypes_evenly() -> None:
    settings = (*FOLDS, ALL, "training.strategy=supervised")
    total = count_kinds(load(*settings).train)
    former: set[str] = set()
    for percent in range(1, 100, 7):
        train = load(*settings, f"{SHARE}={percent / 100}").train
        patients = set(train.patients)
        assert former <= patients
        former = patients
        held = count_kinds(train)
        assert held, "at least one patient with haemorrhage"
        for kind in KINDS:
            assert abs(held[kind] - held.total() / total.total() * total[kind]) < 1


def test_the_seed_of_the_split_chooses_them() -> None:
    chosen = {
        tuple(
            sorted(
                set(
                    load(
                        *FOLDS, ALL, "training.strategy=supervised", f"{SHARE}=0.2", f"{seed}"
                    ).train.patients
                )
            )
        )
        for seed in (f"data.split_seed={i}" for i in range(4))
    }
    assert len(chosen) == 4


def test_unlabelled_slices_that_the_table_calls_positive() -> None:
    settings = ALL, "training.strategy=curriculum", f"{SHARE}=0.5"
    parts = load(*settings, "data.unlabelled_slices=positive")
    assert parts.unlabelled is not None
    assert all(parts.unlabelled.subtypes)
    labels = load(*settings, "data.unlabelled_slices=positive", "training.strategy=pretrained")
    every = load(*settings)
    assert labels.unlabelled is not None
    assert every.unlabelled is not None
    assert labels.unlabelled.sources == every.unlabelled.sources  # it learns from negatives too
    unknown = load(
        *settings, "data.unlabelled_slices=positive", whole=replace(hospital(), subtypes=())
    )
    assert unknown.unlabelled is not None
    assert len(unknown.unlabelled) > len(parts.unlabelled)  # no table to choose by


def test_a_limit_is_a_seeded_choice_of_them() -> None:
    settings = ALL, "training.strategy=curriculum", f"{SHARE}=0.5"
    every = load(*settings).unlabelled
    five, ten = (load(*settings, f"data.unlabelled_limit={n}").unlabelled for n in (5, 10))
    assert every is not None
    assert five is not None
    assert ten is not None
    assert (len(five), len(ten)) == (5, 10)
    assert {*five.sources} < {*ten.sources} < {*every.sources}


def test_fingerprints_tell_who_keeps_masks() -> None:
    settings = ALL, "training.strategy=curriculum"
    prints = [load(*settings, f"{SHARE}={share}").fingerprints for share in (0.5, 0.5, 0.6)]
    assert prints[0] == prints[1]
    assert {name for name in prints[0] if prints[0][name] != prints[2][name]} == {
        "train",
        "unlabelled",
    }


def test_where_nobody_is_left_without_masks() -> None:
    with pytest.raises(RecipeError, match=r"--set data\.labelled_share below 1"):
        load(ALL, "training.strategy=curriculum")
    with pytest.raises(DataError, match=r"labelled_share = 0\.99 leaves no slice for the unlab"):
        load(ALL, "training.strategy=curriculum", f"{SHARE}=0.99")
    with pytest.raises(RecipeError, match=r"set data\.split_by = patient"):
        tiny(f"{SHARE}=0.5", "data.scheme=80", "data.split_by=slice")


@pytest.mark.parametrize("slices", ["all", "positive"])
@pytest.mark.parametrize(
    "folds", [(), ("data.scheme=80",), ("data.scheme=80", "data.split_by=slice")]
)
def test_nobody_validates_where_the_share_is_0(folds, slices) -> None:
    whole = hospital()
    empty = "training.select=last", "data.validation=0", "data.train=0.4"
    settings = (*folds, f"data.slices={slices}", *empty)
    data = tiny(*settings).data
    if slices == "positive":
        whole = whole.select(whole.positive.nonzero()[:, 0].tolist())
    places = split(whole, data)
    assert list(places) == ["train", "validation", "test"]
    assert places["validation"] == []
    assert sorted(places["train"] + places["test"]) == list(range(len(whole)))
    parts = load(*settings, "training.strategy=supervised").to(torch.device("cpu"))
    assert parts.count()["validation"] == {"patients": 0, "slices": 0}
    assert len(parts.validation) == 0
    assert parts.validation.positive.tolist() == []
    assert parts.validation.store is not None
    assert parts.validation.store.describe() == "0 MiB in memory"
    assert (
        parts.fingerprints["validation"]
        == load(*settings, "training.strategy=supervised").fingerprints["validation"]
    )


def test_others_of_a_folder(tmp_path) -> None:
    """Read from the disk: the others' slices have the table's labels and no masks."""
    root = ct_ich_100(tmp_path, patients=6)
    recipe = tiny(
        f"data.labelled={str(root)!r}", "data.unlabelled_slices=all", "data.window=[40, 120]",
        "data.size=32", "data.validation=0", "data.train=0.67", "data.test=0.33",
        f"{SHARE}=0.5", "training.strategy=curriculum", "training.select=last",
    )  # fmt: skip
    parts = load_parts(recipe, tmp_path)
    counts = parts.count()
    assert counts["train"] == counts["test"] == {"patients": 2, "slices": 2}
    assert counts["unlabelled"] == {"patients": 2, "slices": 8}
    assert parts.unlabelled is not None
    assert parts.unlabelled.masks is None
    assert parts.unlabelled.subtypes == ((), (), ("epidural",), ()) * 2
