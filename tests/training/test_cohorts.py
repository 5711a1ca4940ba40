"""The comparison over cohorts, but for its training: recipes, differences, table."""

import numpy as np
import pytest

from benchmarks import cohorts
from ichfast.training import Recipe, recipe
from ichfast.training.presets import SMALL
from ichfast.training.strategy import make_strategy


@pytest.fixture
def base() -> Recipe:
    return recipe.merge(Recipe(), SMALL | cohorts.SHARED)


def test_a_cohort_is_a_phantom_of_its_own_and_shared_by_all_rows(base) -> None:
    for row in cohorts.ROWS:
        one, other = (cohorts.make_recipe(row, cohort, base) for cohort in (1, 2))
        assert one.phantom.seed == one.data.split_seed == one.training.seed == 1
        assert one.phantom == cohorts.make_recipe("curriculum", 1, base).phantom
        assert one.phantom != other.phantom
    cells = {cohorts.make_cell(row, cohort, base).path for row in cohorts.ROWS for cohort in (1, 2)}
    assert len(cells) == 2 * len(cohorts.ROWS)


@pytest.mark.parametrize("row", ["curriculum", "curriculum, Adam"])
def test_twins_have_as_many_supervised_epochs_or_as_many_in_all(row, base) -> None:
    chosen = cohorts.make_recipe(row, 3, base)
    equal, total = (cohorts.make_recipe(twin, 3, base) for twin in cohorts.ROWS[row].twins)
    strategy = make_strategy(chosen)
    steps = [strategy.draw(epoch).step for epoch in range(chosen.training.epochs)]
    assert 0 < steps.count("supervised") < len(steps)
    assert equal.training.epochs == steps.count("supervised")
    assert total.training.epochs == len(steps)
    assert equal.supervised.optimizer == total.supervised.optimizer == chosen.supervised.optimizer


def test_adam_has_as_many_passes_as_lbfgs_has_iterations(base) -> None:
    one, other = (cohorts.make_recipe(row, 1, base) for row in ("curriculum", "curriculum, Adam"))
    passes = one.lbfgs.max_iter
    assert other.training.epochs == passes * one.training.epochs
    assert other.training.validate_every == passes * one.training.validate_every
    shares = [
        np.mean([make_strategy(r).draw(epoch).probability for epoch in range(r.training.epochs)])
        for r in (one, other)
    ]
    assert shares[0] == pytest.approx(2 / 3, abs=0.05)
    assert shares[1] == pytest.approx(shares[0], abs=0.05)


def outcomes(*dice: float | None) -> list[dict]:
    return [{"dice": one, "status": "finished" if one else "diverged"} for one in dice]


def test_differences_and_table() -> None:
    rows = {
        "curriculum": outcomes(0.5, 0.6, None, 0.7),
        "supervised, total": outcomes(0.4, 0.4, 0.3, 0.3),
        "as written": outcomes(None, None, None, None),
    }
    found = cohorts.compare(rows)
    assert [(one["row"], one["twin"]) for one in found] == [("curriculum", "supervised, total")]
    assert found[0]["each"] == pytest.approx([0.1, 0.2, 0.4])
    assert found[0]["mean"] == pytest.approx(0.7 / 3)
    # Student's t with two degrees of freedom, 4.303, times sd/√3.
    assert found[0]["half_width"] == pytest.approx(4.30265 * 0.152753 / 3**0.5, rel=1e-4)
    text = cohorts.format_result(
        {"command": "x", "rows": rows, "differences": found, "band": [0.1, 0.2, 0.3]}
    )
    assert "| curriculum | 0.600 | 0.100 | 0.500 | 0.700 | 1 |" in text
    assert "| as written | – | – | – | – | 4 |" in text
    assert "| +0.233 ± 0.379 | 3 of 3 |" in text
    assert "0.200 on average, 0.100 to 0.300." in text
