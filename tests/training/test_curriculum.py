"""The schedule: the paper's numbers, stability, and one seeded draw per epoch."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ichfast.errors import RecipeError
from ichfast.training import PRESETS, Recipe, recipe
from ichfast.training.presets import SMALL
from ichfast.training.registry import STRATEGIES
from ichfast.training.settings import list_choices
from ichfast.training.strategies.curriculum import Curriculum
from ichfast.training.strategies.curriculum import supervised_probability as probability
from ichfast.training.strategy import make_strategy

LAPTOP = recipe.merge(Recipe(), SMALL)
PAPER = {0: 0.975610, 40: 0.936367, 80: 0.844077, 100: 0.766541, 140: 0.547080, 147: 0.503470}


@pytest.mark.parametrize(("epoch", "expected"), PAPER.items())
def test_values_at_k_40(epoch: int, expected: float) -> None:
    assert probability(epoch, 40, 0.5, "paper") == pytest.approx(expected, abs=5e-7)
    assert probability(epoch, 40, 0.5, "paper") == pytest.approx(40 / (40 + math.exp(epoch / 40)))


def test_floor_from_epoch_148() -> None:
    assert probability(147, 40, 0.5, "paper") > 0.5
    assert all(probability(epoch, 40, 0.5, "paper") == 0.5 for epoch in (148, 149, 4000, 10**9))


DECAYS = st.sampled_from(["paper", "exponential", "linear"])


@given(st.integers(0, 10**18), st.floats(1e-6, 1e6), st.floats(0, 1), DECAYS)
def test_always_a_probability_no_smaller_than_the_floor(x, k, floor, decay) -> None:
    assert floor <= probability(x, k, floor, decay) <= 1


@given(st.integers(0, 10**4), st.floats(1, 100), DECAYS)
def test_never_rises(x: int, k: float, decay: str) -> None:
    assert probability(x + 1, k, 0, decay) <= probability(x, k, 0, decay)


def test_other_decays() -> None:
    assert probability(20, 40, 0.5, "exponential") == pytest.approx(math.exp(-0.5))
    assert probability(10, 40, 0.5, "linear") == pytest.approx(0.75)
    assert probability(30, 40, 0.5, "linear") == 0.5


def demo(strategy: str, *settings: str) -> Recipe:
    chosen = [f"training.strategy={strategy}", "supervised.optimizer=adam", *settings]
    return recipe.apply_settings(LAPTOP, chosen)


def curriculum(*settings: str) -> Curriculum:
    return Curriculum(recipe.apply_settings(LAPTOP, settings))


def test_the_schedule_is_a_function_of_seed_and_epoch() -> None:
    one, same, other = (curriculum(f"training.seed={seed}") for seed in (1, 1, 2))
    assert [one.draw(e) for e in range(99)] == [same.draw(e) for e in reversed(range(99))][::-1]
    assert [one.draw(e) for e in range(99)] != [other.draw(e) for e in range(99)]


def test_draws_follow_the_probability() -> None:
    strategy = curriculum()
    share = sum(strategy.draw(epoch).step == "supervised" for epoch in range(100, 4100)) / 4000
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(4000)


def test_strategies_by_name() -> None:
    assert isinstance(make_strategy(PRESETS["paper"]), Curriculum)
    strategy = make_strategy(demo("supervised"))
    assert strategy.draw(10**6) == ("supervised", 1.0)
    field = type(LAPTOP.training).model_fields["strategy"]
    batchwise = {"joint", "mean_teacher", "cps", "pseudo_label"}
    others = {"supervised", "pretrained", "curriculum", "alternating"}
    assert batchwise | others <= set(list_choices(field))
    assert {name for name in batchwise | others if STRATEGIES[name].batchwise} == batchwise


def test_alternation() -> None:
    by_epoch = make_strategy(demo("alternating"))
    assert [by_epoch.draw(epoch).step for epoch in range(4)] == ["supervised", "unsupervised"] * 2
    by_step = make_strategy(demo("alternating", "training.turn=step"))
    assert by_step.draw(3) == ("turns", 0.5)
    turns = [turn for epoch in range(3) for turn in by_step.choose(epoch, 5)]
    assert turns == [True, False] * 7 + [True]


def test_turns_of_the_curriculum_follow_its_probability() -> None:
    strategy = curriculum("training.turn=step", "supervised.optimizer=adam")
    assert strategy.draw(500) == ("turns", 0.5)
    share = strategy.choose(500, 4000).mean()
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(4000)
    assert strategy.choose(0, 400).mean() > 0.8


def test_pretraining_comes_first() -> None:
    strategy = make_strategy(demo("pretrained", "pretraining.epochs=2"))
    steps = [strategy.draw(epoch).step for epoch in range(4)]
    assert steps == ["classification"] * 2 + ["supervised"] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.strategy=joint"], "joint goes from batch to batch, which L-BFGS cannot"),
        (["training.turn=step"], r"turn = step goes from batch to batch.*supervised\.optimizer"),
        (
            ["training.strategy=cps", "supervised.optimizer=adam", "training.turn=step"],
            "cps takes training.turn = epoch",
        ),
    ],
)
def test_what_does_not_go_together(settings, message) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe.apply_settings(LAPTOP, settings)
