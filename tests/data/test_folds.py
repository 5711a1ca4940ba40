import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ichfast.data import (
    SUBTYPES,
    check_apart,
    check_no_leak,
    make_folds,
    order_evenly,
    split_patients,
)
from ichfast.errors import DataError

PARTS = {"train": 0.6, "validation": 0.2, "test": 0.2}


@settings(max_examples=50, deadline=None)
@given(
    patients=st.integers(3, 40).flatmap(
        lambda n: st.permutations([f"{i:03d}" for i in range(n)] + ["000", "001", "001"])
    ),
    fractions=st.sampled_from([PARTS, {"a": 1.0}, {"a": 0.98, "b": 0.01, "c": 0.01}]),
    seed=st.integers(0, 2**63),
)
def test_whole_patients_once_and_nearly_the_fractions(patients, fractions, seed):
    parts = split_patients(patients, fractions, seed)
    assert list(parts) == list(fractions)
    assert sorted(i for indices in parts.values() for i in indices) == list(range(len(patients)))
    check_no_leak(parts, patients)
    total = len(set(patients))
    for part, indices in parts.items():
        count = len({patients[i] for i in indices})
        assert count >= 1
        assert abs(count - fractions[part] * total) < len(fractions)


def test_the_split_is_the_same_everywhere_and_for_ever():
    patients = [f"{number:03d}" for number in range(49, 59) for _ in range(2)]
    parts = split_patients(patients, PARTS, seed=0)
    assert {part: sorted({patients[i] for i in own}) for part, own in parts.items()} == EXPECTED
    backwards = split_patients(patients[::-1], PARTS, seed=0)
    assert {patients[::-1][i] for i in backwards["test"]} == set(EXPECTED["test"])
    assert parts != split_patients(patients, PARTS, seed=1)


EXPECTED = {
    "train": ["049", "050", "053", "054", "055", "057"],
    "validation": ["056", "058"],
    "test": ["051", "052"],
}


def test_impossible_splits():
    with pytest.raises(DataError, match="2 patients cannot be split into 3 parts"):
        split_patients(["a", "b", "b"], PARTS, 0)
    with pytest.raises(DataError, match=r"add up to 1, not 0\.9"):
        split_patients(["a", "b"], {"train": 0.5, "test": 0.4}, 0)
    with pytest.raises(DataError, match="between 0 and 1"):
        split_patients(["a", "b"], {"train": 1.5, "test": -0.5}, 0)
    with pytest.raises(DataError, match="add up to 1, not 0"):
        split_patients(["a"], {}, 0)


def test_a_leak_is_an_error_that_names_the_patients():
    with pytest.raises(DataError, match=r"in both 'train' and 'test': 049\. The result"):
        check_no_leak({"train": [0, 1], "test": [2]}, ["049", "050", "049"])
    many = {f"ID_{i}" for i in range(9)}
    with pytest.raises(DataError, match=r"'unlabelled' and 'test': ID_0, .*ID_4 and 4 more"):
        check_apart({"unlabelled": many, "test": many | {"x"}})
    check_apart({"unlabelled": many, "validation": {"x"}, "test": {"y"}})


@st.composite
def cohorts(draw, most):
    """Patients with up to `most` subtypes each, and one or more slices each."""
    count = draw(st.integers(5, 40))
    kinds = st.sets(st.sampled_from(SUBTYPES), max_size=most)
    subtypes = {f"{i:03d}": draw(kinds) for i in range(count)}
    slices = [name for name in subtypes for _ in range(draw(st.integers(1, 3)))]
    return draw(st.permutations(slices)), subtypes


@settings(max_examples=50, deadline=None)
@given(cohort=cohorts(most=5), scheme=st.sampled_from([20, 50, 80]), seed=st.integers(0, 2**63))
def test_every_patient_is_once_on_the_small_side_of_a_fold(cohort, scheme, seed):
    patients, subtypes = cohort
    folds = make_folds(patients, scheme, seed, subtypes=subtypes)
    assert len(folds) == (2 if scheme == 50 else 5)
    small = [fold.train if scheme == 20 else fold.test for fold in folds]
    assert sorted(i for side in small for i in side) == list(range(len(patients)))
    for fold, side in zip(folds, small, strict=True):
        assert side
        assert sorted(fold.train + fold.test) == list(range(len(patients)))
        check_no_leak({"train": fold.train, "test": fold.test}, patients)


@settings(max_examples=50, deadline=None)
@given(cohort=cohorts(most=1), scheme=st.sampled_from([20, 50, 80]), seed=st.integers(0, 2**63))
def test_subtypes_are_balanced_within_one(cohort, scheme, seed):
    patients, subtypes = cohort
    sides = [
        {patients[i] for i in (fold.train if scheme == 20 else fold.test)}
        for fold in make_folds(patients, scheme, seed, subtypes=subtypes)
    ]
    sizes = [len(side) for side in sides]
    assert max(sizes) - min(sizes) <= 1
    for kind in SUBTYPES:
        counts = [sum(kind in subtypes[name] for name in side) for side in sides]
        assert max(counts) - min(counts) <= 1


def test_folds_are_the_same_everywhere_and_for_ever():
    patients = [f"{number:03d}" for number in range(49, 59) for _ in range(2)]
    kinds = {f"{number:03d}": ["epidural"] for number in range(49, 54)}
    folds = make_folds(patients, 80, 0, subtypes=kinds)
    sides = [sorted({patients[i] for i in fold.test}) for fold in folds]
    assert sides == FOLDS
    backwards = make_folds(patients[::-1], 80, 0, subtypes=kinds)
    assert [sorted({patients[::-1][i] for i in fold.test}) for fold in backwards] == FOLDS
    assert make_folds(patients, 80, 1, subtypes=kinds) != folds
    inverted = make_folds(patients, 20, 0, subtypes=kinds)
    assert [fold.train for fold in inverted] == [fold.test for fold in folds]


FOLDS = [["049", "057"], ["050", "054"], ["053", "055"], ["051", "058"], ["052", "056"]]


def test_slicewise_folds_need_the_word_and_warn():
    patients = ["049"] * 8 + ["050"] * 8
    with pytest.raises(DataError, match="2 patients cannot be dealt out to 5 folds"):
        make_folds(patients, 80, 0)
    with pytest.warns(UserWarning, match="slices of one patient are on both sides"):
        folds = make_folds(patients, 80, 0, by="slice")
    assert sorted(len(fold.test) for fold in folds) == [3, 3, 3, 3, 4]
    assert sorted(i for fold in folds for i in fold.test) == list(range(16))
    with pytest.raises(DataError, match="scheme is 30; it must be one of 80, 50, 20"):
        make_folds(patients, 30, 0)
    with pytest.raises(DataError, match="by is 'study'"):
        make_folds(patients, 50, 0, by="study")


KINDS = st.dictionaries(
    st.text("abcdefgh", min_size=3, max_size=3),
    st.sets(st.sampled_from(SUBTYPES), max_size=3),
    max_size=30,
)


@given(KINDS, st.integers(0, 2**63))
def test_an_even_order_has_everybody_once_and_does_not_depend_on_theirs(kinds, seed):
    order = order_evenly(kinds, seed)
    assert sorted(order) == sorted(kinds)
    assert order_evenly(dict(reversed(kinds.items())), seed) == order


@given(st.lists(st.sampled_from(SUBTYPES), min_size=1, max_size=60), st.integers(0, 2**63))
def test_every_beginning_of_an_even_order_has_the_shares_of_all(drawn, seed):
    """Of patients with one subtype each: within 1 of the exact number."""
    kinds = {f"{i:02d}": {kind} for i, kind in enumerate(drawn)}
    order = order_evenly(kinds, seed)
    for count in range(len(order) + 1):
        held = [kind for name in order[:count] for kind in kinds[name]]
        for kind in SUBTYPES:
            assert abs(held.count(kind) - count / len(drawn) * drawn.count(kind)) <= 1


def test_the_seed_orders_those_who_are_alike():
    kinds = {f"{i:02d}": {SUBTYPES[i % 2]} for i in range(20)}
    assert len({tuple(order_evenly(kinds, seed)) for seed in range(9)}) == 9
