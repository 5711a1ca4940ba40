"""The schedule: the paper's numbers, stability, and one seeded draw an epoch."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ichfast.training import PRESETS, recipe
from ichfast.training.curriculum import supervised_probability
from ichfast.training.strategies import Curriculum, Supervised, strategy_of

PAPER = {0: 0.975610, 40: 0.936367, 80: 0.844077, 100: 0.766541, 140: 0.547080, 147: 0.503470}


@pytest.mark.parametrize(("epoch", "expected"), PAPER.items())
def test_values_at_k_40(epoch: int, expected: float) -> None:
    assert supervised_probability(epoch, 40) == pytest.approx(expected, abs=5e-7)
    assert supervised_probability(epoch, 40) == pytest.approx(40 / (40 + math.exp(epoch / 40)))


def test_floor_from_epoch_148() -> None:
    assert supervised_probability(147, 40) > 0.5
    assert all(supervised_probability(epoch, 40) == 0.5 for epoch in (148, 149, 4000, 10**9))


@given(st.integers(0, 10**18), st.floats(1e-6, 1e6), st.floats(0, 1))
def test_always_a_probability_no_smaller_than_the_floor(x: int, k: float, floor: float) -> None:
    assert floor <= supervised_probability(x, k, floor) <= 1


@given(st.integers(0, 10**4), st.floats(1, 100))
def test_never_rises(x: int, k: float) -> None:
    assert supervised_probability(x + 1, k, 0) <= supervised_probability(x, k, 0)


def test_the_schedule_is_a_function_of_seed_and_epoch() -> None:
    one, same, other = (Curriculum(10, 0.5, seed) for seed in (1, 1, 2))
    assert [one.draw(e) for e in range(99)] == [same.draw(e) for e in reversed(range(99))][::-1]
    assert [one.draw(e) for e in range(99)] != [other.draw(e) for e in range(99)]


def test_draws_follow_the_probability() -> None:
    strategy = Curriculum(10, 0.5, 0)
    share = sum(strategy.draw(epoch).step == "supervised" for epoch in range(100, 4100)) / 4000
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(4000)


def test_strategies_by_name() -> None:
    assert isinstance(strategy_of(PRESETS["paper"]), Curriculum)
    chosen = recipe.with_settings(PRESETS["paper"], ["training.strategy=supervised"])
    strategy = strategy_of(chosen)
    assert isinstance(strategy, Supervised)
    assert strategy.draw(10**6) == ("supervised", 1.0)
