"""The plan: every cell, what it is trained with, what it costs."""

import pytest

from ichfast.data import SCHEMES
from ichfast.errors import OutputError, RecipeError
from ichfast.reproduce.cost import Sizes, add_up, estimate_cost
from ichfast.reproduce.overview import ProgressPrinter, check_room, format_seconds
from ichfast.reproduce.plan import Plan, has_ended, make_plan, select_cells
from ichfast.reproduce.rows import ROWS
from ichfast.reproduce.studies import STUDIES
from ichfast.training import Recipe
from ichfast.training.recipe import merge, to_toml
from ichfast.training.strategy import make_strategy

DEMO = STUDIES["demo"]
EVERY_CELL = sum(SCHEMES.values()) * len(ROWS) + SCHEMES[20] * len(DEMO.amounts)


@pytest.fixture(scope="module", params=("demo", "paper"))
def plan(request: pytest.FixtureRequest) -> Plan:
    study = STUDIES[request.param]
    return make_plan(study, study.recipe, seeds=2).limit_unlabelled(1000)


def test_every_cell_once(plan) -> None:
    assert len(plan.cells) == 2 * EVERY_CELL
    assert len({cell.path for cell in plan.cells}) == len(plan.cells)
    assert len({to_toml(cell.recipe) for cell in plan.cells}) == len(plan.cells)


def test_cells_share_all_that_makes_them_comparable(plan) -> None:
    for cell in plan.cells:
        data = cell.recipe.data
        assert (data.scheme, data.fold) == (cell.scheme, cell.fold)
        assert cell.recipe.training.seed == cell.seed
        assert (data.test_slices, data.split_seed) == ("all", plan.base.data.split_seed)
        assert cell.recipe.phantom == plan.base.phantom
        assert data.unlabelled_limit == {10: 100, 30: 300, 100: 0}[cell.unlabelled]


def test_as_many_supervised_passes_by_adam(plan) -> None:
    def iterations(recipe: Recipe) -> int:
        return recipe.lbfgs.max_iter if recipe.supervised.optimizer == "lbfgs" else 1

    def passes(recipe: Recipe) -> int:
        strategy = make_strategy(recipe)
        steps = [strategy.draw(epoch).step for epoch in range(recipe.training.epochs)]
        supervised = [step for step in steps if step not in ("unsupervised", "classification")]
        return len(supervised) * iterations(recipe)

    training = plan.base.training
    expected = training.epochs * iterations(plan.base)
    looks = training.epochs // training.validate_every
    for row in ROWS:
        recipe = plan.select(row.name, 50)[0].recipe
        if row.name in ("curriculum", "alternating"):
            assert 0.45 * expected < passes(recipe) < expected
        else:
            assert passes(recipe) == expected
        if row.name != "pretrained":  # it has further epochs, in which it is looked at too
            assert recipe.training.epochs // recipe.training.validate_every == looks


@pytest.mark.parametrize(
    ("only", "count"),
    [
        ([], EVERY_CELL),
        (["scheme=20,row=curriculum"], 15),
        (["scheme=20,row=curriculum,unlabelled=100"], 5),
        (["row!=pretrained", "row=pretrained"], EVERY_CELL),
        (["row=*curriculum, fold != 0"], 17),
        (["seed=0,scheme=50"], 2 * len(ROWS)),
        (["row=[mp]*"], 12 * sum(row.name[0] in "mp" for row in ROWS)),
    ],
)
def test_only(only, count) -> None:
    cells = make_plan(DEMO, DEMO.recipe, seeds=1).cells
    assert len(select_cells(cells, only)) == count


@pytest.mark.parametrize("only", ["", "row", "dice=1", "row=nothing", "seed=7"])
def test_only_that_names_nothing(only) -> None:
    with pytest.raises(RecipeError, match="--only"):
        select_cells(make_plan(DEMO, DEMO.recipe, seeds=1).cells, [only])


def test_unlabelled_amounts_need_a_set(plan) -> None:
    without = make_plan(plan.study, plan.base, seeds=1).limit_unlabelled(0)
    assert {cell.unlabelled for cell in without.cells} == {100}


def test_a_cell_has_ended_only_by_its_own_recipe(plan, tmp_path) -> None:
    cell = plan.cells[0]
    folder = tmp_path / cell.path
    assert not has_ended(cell, tmp_path)
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(
        to_toml(merge(cell.recipe, {"data.labelled": "elsewhere", "data.unlabelled": "moved"}))
    )
    assert not has_ended(cell, tmp_path)
    for text, expected in (
        ('{"status": "interrupted"}', False),
        ("{", False),
        ('{"status": "finished"}', True),
        ('{"status": "diverged"}', True),
    ):
        (folder / "metrics.json").write_text(text)
        assert has_ended(cell, tmp_path) == expected
    other = merge(cell.recipe, {"adam.learning_rate": 7.0})
    (folder / "recipe.toml").write_text(to_toml(other))
    with pytest.raises(OutputError, match=r"adam\.learning_rate \(7\.0, now .*another --out"):
        has_ended(cell, tmp_path)


SMALL = merge(
    DEMO.recipe,
    {
        "model.channels": [2, 3, 4],
        "data.size": 16,
        "supervised.optimizer": "lbfgs",
        "training.epochs": 14,
        "lbfgs.max_iter": 4,
    },
)


def test_costs_follow_the_recipe() -> None:
    plan = make_plan(DEMO, SMALL, seeds=1)
    sizes = Sizes(train=20, validation=5, test=60, unlabelled=100)
    costs = {row.name: estimate_cost(plan.select(row.name, 50)[0], sizes) for row in ROWS}
    assert costs["supervised"].passes == pytest.approx(14 * 4 * 1.2)
    assert costs["curriculum"].passes < costs["supervised"].passes
    assert costs["joint"].passes == 56
    assert costs["cps"].seconds > costs["joint"].seconds > 0
    assert costs["pretrained"].seconds > costs["supervised"].seconds
    one, four = (add_up(list(costs.values()), jobs) for jobs in (1, 4))
    assert one[0] == pytest.approx(sum(cost.seconds for cost in costs.values()))
    assert one[0] > four[0]
    assert four[1] > one[1] > 0


def test_too_little_room_is_seen_before_training(tmp_path, monkeypatch) -> None:
    plan = make_plan(DEMO, SMALL, seeds=1)
    costs = [estimate_cost(plan.cells[0], Sizes(20, 5, 60))]
    check_room(costs, 1, tmp_path)
    monkeypatch.setattr("ichfast.reproduce.overview.measure_free_space", lambda out: 1000)
    with pytest.raises(OutputError, match=r"needs about .* and has .*: make room"):
        check_room(costs, 1, tmp_path)


def test_progress_in_words() -> None:
    plan = make_plan(DEMO, SMALL, seeds=1)
    costs = {cell: estimate_cost(cell, Sizes(20, 5, 60, 100)) for cell in plan.cells[:3]}
    lines: list[str] = []
    progress = ProgressPrinter(costs, 1, lines.append)
    progress.report(plan.cells[0], "finished", "Dice 0.500", 2.0)
    progress.report(plan.cells[1], "diverged", "the loss is nan", 2.0)
    progress.report(plan.cells[2], "died", "its worker was killed by signal 9", 2.0)
    assert lines[0].startswith("[1/3] scheme20/fold0/classic-seed0: Dice 0.500 in 2 s, about ")
    assert "diverged: the loss is nan in 2 s" in lines[1]
    assert lines[2].endswith("died: its worker was killed by signal 9")
    assert [format_seconds(s) for s in (59, 600, 9000, 9e5)] == [
        "59 s",
        "10 min",
        "2.5 h",
        "10 days",
    ]
