import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ichfast.data import check_no_leak, split_patients
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


def test_a_leak_is_an_error_without_names():
    with pytest.raises(DataError, match="1 patient in both 'train' and 'test'") as error:
        check_no_leak({"train": [0, 1], "test": [2]}, ["Roe", "Doe", "Roe"])
    assert "Roe" not in str(error.value)
