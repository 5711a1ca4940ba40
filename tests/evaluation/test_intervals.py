"""Intervals: coverage where the truth is known, and what a bootstrap over patients must keep."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ichfast import metrics
from ichfast.evaluation.intervals import (
    TOO_FEW,
    Rows,
    adjust_holm,
    average,
    bootstrap,
    bootstrap_difference,
    score_overlap,
)

AGGREGATIONS = ("pooled", "per_slice", "per_patient")
count = st.integers(0, 50)
row = st.tuples(st.integers(0, 5), count, count, count)


def split(rows):
    table = np.array(rows).reshape(-1, 4)
    return Rows.from_patients(table[:, 0]), table[:, 1:]


@settings(deadline=None)
@given(st.lists(row, min_size=1, max_size=30), st.sampled_from(["dice", "jaccard"]))
def test_estimates_are_those_of_the_metrics(rows, score):
    own, counts = split(rows)
    expected = metrics.aggregate(torch.tensor(counts), own.patients.tolist())[score]
    for how in AGGREGATIONS:
        found = score_overlap(own, counts, score, how).estimate
        assert (np.nan if found is None else found) == pytest.approx(expected[how], nan_ok=True)


def test_cells_by_hand():
    """Two runs; patient 7 is in both, patient 8 in the second. Slices (2TP, FP + FN) by patient."""
    own = Rows.from_patients([7, 7, 7, 8], [0, 0, 1, 1])
    counts = np.array([[1, 2, 0], [3, 0, 0], [0, 1, 0], [1, 0, 0]])
    found = {how: score_overlap(own, counts, "dice", how).estimate for how in AGGREGATIONS}
    assert found["pooled"] == pytest.approx(10 / 13)
    assert found["per_slice"] == pytest.approx((2 / 4 + 1 + 0 + 1) / 4)
    assert found["per_patient"] == pytest.approx(((8 / 10 + 0) / 2 + 1) / 2)
    values = [1.0, 3.0, 8.0, np.nan]
    assert average(own, values, "per_slice").estimate == 4
    assert (
        average(own, values, "per_patient").estimate == 5
    )  # of (1 + 3) / 2 and 8; patient 8 has none


@pytest.mark.parametrize("how", ["per_slice", "per_patient"])
def test_95_of_100_intervals_hold_the_truth(how):
    """Patients differ by 1, slices by 1: intervals over slices as if independent hold it in 60."""
    random = np.random.default_rng(0)
    held, naive, runs, patients, slices = 0, 0, 400, 40, 10
    for seed in range(runs):
        values = random.normal(size=(patients, 1)) + random.normal(size=(patients, slices))
        names = np.repeat(np.arange(patients), slices)
        interval = bootstrap(
            average(Rows.from_patients(names), values.ravel(), how), resamples=500, seed=seed
        )
        held += interval.low <= 0 <= interval.high
        error = values.std() / values.size**0.5
        naive += abs(values.mean()) < 1.96 * error
    assert 0.91 <= held / runs <= 0.98
    assert naive / runs < 0.75


def test_a_difference_is_found_where_two_intervals_overlap():
    random = np.random.default_rng(0)
    patients = np.arange(40)
    base = random.normal(size=40)
    better = base + 0.1 + random.normal(scale=0.1, size=40)
    one, other = (average(Rows.from_patients(patients), x, "per_patient") for x in (better, base))
    assert bootstrap(one).low < bootstrap(other).high
    difference = bootstrap_difference(one, other)
    assert difference.estimate == pytest.approx((better - base).mean())
    assert 0 < difference.low < difference.estimate < difference.high < 0.2
    assert difference.above_zero == 1
    mirrored = bootstrap_difference(other, one)
    assert mirrored[:3] == pytest.approx((-difference[0], -difference[2], -difference[1]))
    assert mirrored.above_zero == 0


def test_p_values_hold_their_level_and_follow_the_interval():
    """400 times 30 patients without a difference: about 5 % below 0.05, as the interval has it."""
    random = np.random.default_rng(0)
    names = Rows.from_patients(np.arange(30))
    below = 0
    for seed in range(400):
        one, other = (average(names, random.normal(size=30), "per_patient") for _ in range(2))
        found = bootstrap_difference(one, other, resamples=500, seed=seed)
        below += found.p < 0.05
        # The interval interpolates between resamples, p counts them.
        if abs(found.p - 0.05) > 0.01:
            assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
    assert 0.03 <= below / 400 <= 0.1
    far = average(names, np.ones(30), "per_patient"), average(names, np.zeros(30), "per_patient")
    assert bootstrap_difference(*far).p == pytest.approx(2 / 2001)


def test_holm():
    """By hand: sorted, times how many are left, never below the one before."""
    found = adjust_holm([0.01, 0.04, 0.03, 0.005])
    assert found == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_holm([0.01, 0.3], family=4) == pytest.approx([0.04, 0.9])
    assert adjust_holm([0.5, 0.6]) == [1.0, 1.0]
    assert adjust_holm([]) == []
    with pytest.raises(ValueError, match="2 p-values cannot be of a family of 1"):
        adjust_holm([0.1, 0.2], family=1)


def test_share_above_zero_is_a_half_where_nothing_differs():
    """Half of the patients better by 1, half worse."""
    sign = np.tile([1.0, -1.0], 50)
    one, other = (
        average(Rows.from_patients(np.arange(100)), x, "per_patient") for x in (sign, 0 * sign)
    )
    assert 0.4 < bootstrap_difference(one, other).above_zero < 0.6


several = st.lists(row, min_size=4, max_size=30).filter(
    lambda rows: len({patient for patient, tp, fp, fn in rows if tp + fp + fn}) > 1
)


@settings(deadline=None, max_examples=50)
@given(several, st.sampled_from(AGGREGATIONS), st.randoms(use_true_random=False))
def test_order_names_and_copies_of_the_rows_do_not_matter(rows, how, random):
    plain = bootstrap(score_overlap(*split(rows), "dice", how), resamples=50)
    shuffled = random.sample(rows, len(rows))
    renamed = [(10 * patient + 3, *counts) for patient, *counts in rows]
    for other in (shuffled, renamed, rows * 2):
        assert bootstrap(score_overlap(*split(other), "dice", how), resamples=50) == pytest.approx(
            plain
        )


@settings(deadline=None, max_examples=50)
@given(several, st.sampled_from(AGGREGATIONS), st.integers(0, 99))
def test_intervals_lie_within_the_scores_and_a_method_equals_itself(rows, how, seed):
    score = score_overlap(*split(rows), "dice", how)
    found = bootstrap(score, resamples=50, seed=seed)
    assert 0 <= found.low <= found.high <= 1
    assert found == bootstrap(score, resamples=50, seed=seed)
    assert bootstrap_difference(score, score, seed=seed) == (0.0, 0.0, 0.0, 0.0, 1.0, None)


def test_a_patient_goes_with_all_of_its_rows():
    """All that resamples of two patients can be is either alone, or both."""
    score = score_overlap(
        Rows.from_patients([0] * 9 + [1]), [[1, 0, 0]] * 9 + [[0, 1, 0]], "dice", "per_slice"
    )
    found = bootstrap(score)
    assert (found.low, found.estimate, found.high) == (0, 0.9, 1)


def test_too_few_patients_have_no_interval_and_a_reason():
    one = score_overlap(Rows.from_patients([4, 4]), [[1, 1, 0], [1, 0, 0]], "dice", "pooled")
    assert bootstrap(one) == (0.8, None, None, TOO_FEW)
    assert bootstrap_difference(one, one) == (0, None, None, None, None, TOO_FEW)
    # Of two patients one has no score.
    half = average(Rows.from_patients([4, 5]), [1.0, np.nan], "per_slice")
    assert bootstrap(half) == (1, None, None, TOO_FEW)
    nobody = average(Rows.from_patients([4, 5]), [np.nan, np.nan], "per_patient")
    assert bootstrap(nobody) == (None, None, None, TOO_FEW)
    assert bootstrap_difference(nobody, half) == (None, None, None, None, None, TOO_FEW)


def test_resamples_without_a_score_are_left_out():
    """Two of four patients have the score: a sixteenth of the resamples draws neither."""
    found = bootstrap(
        average(Rows.from_patients([0, 1, 2, 3]), [1.0, 2.0, np.nan, np.nan], "per_patient")
    )
    assert (found.low, found.estimate, found.high) == (1, 1.5, 2)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="N >= 1 numbers each"):
        Rows.from_patients([])
    with pytest.raises(ValueError, match="N >= 1 numbers each"):
        Rows.from_patients([1, 2], [0])
    one, other = (
        average(Rows.from_patients(names), [1.0, 2.0], "per_slice") for names in ([0, 1], [0, 2])
    )
    with pytest.raises(ValueError, match="2 have one of the two scores only"):
        bootstrap_difference(one, other)
