"""Slabs fill the scan without a gap and without an overlap; areas times slabs are volumes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ichfast.data.slabs import (
    Gap,
    describe_gap,
    find_gaps,
    measure_slabs,
    measure_volume,
    pixel_area,
)


@pytest.mark.parametrize(
    ("positions", "slabs"),
    [
        ([0, 5, 10], [5, 5, 5]),
        ([-5, 0], [5, 5]),
        ([0, 2, 4, 9, 14], [2, 2, 3.5, 5, 5]),
        ([0, 5, 10, 20, 25, 30], [5, 5, 7.5, 7.5, 5, 5]),  # one is missing
        ([0, 20, 25, 30], [12.5, 12.5, 5, 5]),  # the first is cut off by a gap: 2.5 mm outwards
        ([0, 5, 10, 30], [5, 5, 12.5, 12.5]),
        ([0, 5, 5, 10], [5, 2.5, 2.5, 5]),  # two images of one place
        ([0, 0, 5], [2.5, 2.5, 5]),
        ([0, 5, 5.004], [5, 2.5, 2.5]),
    ],
)
def test_slabs(positions: list[float], slabs: list[float]) -> None:
    found = measure_slabs(np.array(positions, float))
    np.testing.assert_allclose(found, slabs, atol=0.005)


def test_slices_at_one_position() -> None:
    assert measure_slabs(np.array([3.0])) is None
    np.testing.assert_allclose(measure_slabs(np.array([3.0]), 5), [5])
    np.testing.assert_allclose(measure_slabs(np.array([3.0, 3.0]), 5), [2.5, 2.5])


@given(st.lists(st.floats(0.5, 10), min_size=1, max_size=30))
def test_slabs_fill_the_scan(steps: list[float]) -> None:
    """Each begins where the one below it ends, in the middle between the two slices."""
    positions = np.concatenate([[0], np.cumsum(steps)])
    slabs = measure_slabs(positions)
    assert slabs is not None
    ends = np.cumsum(slabs)[:-1] - np.cumsum(slabs)[0]
    middles = (positions[1:] + positions[:-1]) / 2
    np.testing.assert_allclose(ends, middles - middles[0], atol=1e-9)


@pytest.mark.parametrize(
    ("positions", "gaps"),
    [
        ([0, 5, 10, 15], []),
        ([0], []),
        ([0, 5], []),
        ([0, 5, 10, 20, 25], [(2, 10, 5)]),
        ([0, 5, 10, 25, 30, 35, 45, 50], [(2, 15, 5), (5, 10, 5)]),
        ([0, 2.5, 5, 7.5, 12.5, 17.5], []),  # thin through the skull base, thick above
        ([0, 5, 10, 17, 22], []),
        ([0, 20, 25, 30], [(0, 20, 5)]),
        ([0, 5, 5, 10, 20, 25], [(3, 10, 5)]),
    ],
)
def test_gaps(positions: list[float], gaps: list[tuple[int, float, float]]) -> None:
    assert find_gaps(np.array(positions, float)) == [Gap(*gap) for gap in gaps]


def test_gaps_in_words() -> None:
    positions = np.array([0, 5.0, 10, 25, 30, 40, 45])
    assert [describe_gap(gap) for gap in find_gaps(positions)] == [
        "a gap of 15.0 mm between slices 3 and 4, 5.0 mm beside it: 2 slices missing",
        "a gap of 10.0 mm between slices 5 and 6, 5.0 mm beside it: 1 slice missing",
    ]


def test_volume() -> None:
    area = pixel_area((0.5, 0.4))
    assert area == pytest.approx(0.2)
    assert measure_volume(np.array([0, 1000, 500]), 0.2, np.array([5, 5, 2.5])) == pytest.approx(
        1.25
    )
    assert pixel_area((float("nan"), float("nan"))) is None
