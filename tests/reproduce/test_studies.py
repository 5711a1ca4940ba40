"""The study on real CT as it is planned: who is compared with whom, and in which order."""

from pathlib import Path

import pytest

import ichfast
from ichfast.reproduce.plan import Plan, make_plan, select_cells
from ichfast.reproduce.studies import BASELINE, CT_ICH, PROTOCOLS, STUDIES, Column
from ichfast.training.recipe import compare, merge, to_literal
from ichfast.training.strategy import make_strategy

STUDY = STUDIES["ct-ich"]
FOLDERS = {"data.labelled": "ct-ich", "data.unlabelled": "phe-sich"}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(STUDY, merge(STUDY.recipe, FOLDERS), STUDY.seeds)


def test_the_primary_comparison_comes_first_and_has_all_its_pairs(plan) -> None:
    primary = STUDY.primary
    assert primary is not None
    assert primary.seeds <= STUDY.seeds
    pairs = primary.seeds * PROTOCOLS[primary.column.protocol].count_folds(primary.column.scheme)
    first = plan.cells[: 2 * pairs]
    assert {cell.column for cell in first} == {primary.column}
    places = {row: {(c.fold, c.seed) for c in first if c.row == row} for row in primary_rows()}
    assert places[primary.row] == places[primary.other]
    assert len(places[primary.row]) == pairs
    # An early stop leaves whole pairs.
    assert [cell.row for cell in first[:2]] != [primary.row] * 2
    assert first[0].fold == first[1].fold


def primary_rows() -> tuple[str, str]:
    assert STUDY.primary is not None
    return STUDY.primary.row, STUDY.primary.other


def test_the_oracle_comes_second(plan) -> None:
    pairs = [cell for cell in plan.cells if cell.row in primary_rows()]
    count = sum(cell.column == STUDY.primary.column for cell in pairs)
    second = plan.cells[count : count + 5]
    assert {(cell.row, cell.column) for cell in second} == {(BASELINE, STUDY.oracle)}


def test_each_cell_once_and_in_a_folder_of_its_own(plan) -> None:
    assert len({cell.path for cell in plan.cells}) == len(plan.cells)
    own = next(cell for cell in plan.cells if cell.protocol == "own")
    assert own.path == f"own/scheme20/fold0/{own.row}-seed0"
    paper = next(cell for cell in plan.cells if cell.protocol == "paper")
    assert paper.path == "scheme80/fold0/supervised-seed0"


def test_who_is_labelled_and_who_is_not(plan) -> None:
    for cell in plan.cells:
        data = cell.recipe.data
        assert (data.split_by == "slice") == (cell.protocol == "slices")
        assert (data.unlabelled == "") == (cell.protocol == "own")
        assert data.validation == 0
        if cell.protocol == "own":
            assert (data.scheme, data.labelled_share) == (80, cell.scheme / 100)
        else:
            assert (data.scheme, data.labelled_share) == (cell.scheme, 1)
        positive = "positive" if cell.protocol == "slices" else "all"
        assert (data.slices, data.test_slices) == (positive, positive)


def test_the_oracle_is_tested_on_the_same_folds(plan) -> None:
    """So that it stands beside any share of labels; it never looks at the unlabelled folder."""
    few, all_of_them = (
        plan.select(BASELINE, column.scheme, protocol=column.protocol)[0].recipe
        for column in (STUDY.primary.column, STUDY.oracle)
    )
    assert not make_strategy(few).unlabelled
    changed = {one.key for one in compare(few, all_of_them)}
    assert changed == {"data.labelled_share", "data.unlabelled"}


def test_all_rows_see_as_many_labelled_slices(plan) -> None:
    base = plan.base
    for row in STUDY.rows:
        for cell in plan.select(row.name, 20, protocol="own"):
            recipe = cell.recipe
            assert recipe.supervised == base.supervised
            assert recipe.augmentation == base.augmentation
            assert recipe.adam == base.adam
            strategy = make_strategy(recipe)
            drawn = [strategy.draw(epoch).step for epoch in range(recipe.training.epochs)]
            further = ("unsupervised", "classification")
            assert sum(step not in further for step in drawn) == base.training.epochs
            assert drawn[-1] not in further


def test_all_pairs_of_the_secondary_comparisons_are_planned(plan) -> None:
    assert STUDY.primary not in STUDY.secondary
    assert len(set(STUDY.secondary)) == len(STUDY.secondary)
    for one in STUDY.secondary:
        folds = PROTOCOLS[one.column.protocol].count_folds(one.column.scheme)
        for row in (one.row, one.other):
            cells = plan.select(row, one.column.scheme, protocol=one.column.protocol)
            assert len(cells) >= folds * one.seeds


def test_the_docs_say_what_is_run() -> None:
    page = Path(ichfast.__file__).parents[1] / "docs" / "explanation" / "study.md"
    text = page.read_text(encoding="utf-8")
    for key, value in CT_ICH.items():
        assert f"| `{key}` | `{to_literal(value)}` |" in text
    _, _, primary = text.partition("## The primary comparison\n")
    primary, _, secondary = primary.partition("## Secondary comparisons\n")
    secondary, _, _ = secondary.partition("\n## ")
    one = STUDY.primary
    assert one is not None
    for key, value in (
        ("row", f"`{one.row}`"),
        ("other", f"`{one.other}`"),
        ("column", f"`{one.column.protocol}`, {one.column.scheme} %"),
        ("score", f"`{one.score}`: "),
        ("seeds", f"{one.seeds} seeds of 5 folds"),
    ):
        assert f"`primary.{key}` | {value}" in primary
    listed = [line for line in secondary.splitlines() if line.startswith("| `")]
    for column in {other.column for other in STUDY.secondary}:
        rows = ", ".join(f"`{o.row}`" for o in STUDY.secondary if o.column == column)
        assert f"| `{column.protocol}`, {column.scheme} % | {rows} |" in listed
    assert len(listed) == len({other.column for other in STUDY.secondary})
    assert {other.seeds for other in STUDY.secondary} == {1}


def test_only_by_protocol(plan) -> None:
    chosen = select_cells(plan.cells, ["protocol=slices,row=supervised"])
    assert {cell.column for cell in chosen} == {Column("slices", 80)}
    assert len(chosen) == 5
