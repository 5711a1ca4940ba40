"""Recipes: there and back through TOML, and every refusal says what to do."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ichfast.errors import RecipeError
from ichfast.training import PRESETS, Recipe, recipe, reference
from ichfast.training.registry import STRATEGIES

DOCS = Path(__file__).parents[2] / "docs" / "training.md"

positive = st.floats(1e-12, 1e12)
settings = st.fixed_dictionaries(
    {},
    optional={
        "training.epochs": st.integers(1, 10**9),
        "training.strategy": st.sampled_from(["supervised", "curriculum"]),
        "model.channels": st.lists(st.integers(1, 999), min_size=1, max_size=4),
        "curriculum.k": positive,
        "curriculum.floor": st.floats(0, 1),
        "adam.learning_rate": positive,
        "data.labelled": st.text(st.characters(exclude_categories=["Cs"])),
        "data.window": st.tuples(st.floats(-1e3, 1e3), st.floats(1.5, 1e4)).map(list),
        "phantom.seed": st.integers(0, 2**63 - 1),
    },
)


@given(settings, st.sampled_from(list(PRESETS)))
def test_there_and_back_through_toml(values: dict, preset: str) -> None:
    chosen = recipe.merge(PRESETS[preset], values)
    assert recipe.parse(recipe.to_toml(chosen), Recipe()) == chosen


@given(settings)
def test_differences_name_what_was_changed(values: dict) -> None:
    base = PRESETS["demo"]
    changed = recipe.merge(base, values)
    named = {one.key for one in recipe.compare(base, changed)}
    before = {name: value for name, _, value in recipe.keys(base)}
    after = {name: value for name, _, value in recipe.keys(changed)}
    assert named == {name for name in before if before[name] != after[name]}
    assert named <= values.keys()


def test_settings_over_a_file_over_a_preset(tmp_path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[training]\nepochs = 7\nseed = 3\n", encoding="utf-8")
    chosen = recipe.read(file, PRESETS["demo"])
    chosen = recipe.apply_settings(chosen, ["training.seed=4", "training.strategy = supervised"])
    assert (chosen.training.epochs, chosen.training.seed) == (7, 4)
    assert chosen.training.strategy == "supervised"
    assert chosen.model == PRESETS["demo"].model


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "training.epoch=3",
            r"unknown recipe key training\.epoch; did you mean training\.epochs\?",
        ),
        ("curriculum.floo=3", r"did you mean curriculum\.floor\?"),
        ("epochs=3", r"did you mean training\.epochs\?"),
        ("zzz=3", "--help lists them all"),
        ("training.epochs", r"section\.key=value"),
        ("training.epochs=0", r"training\.epochs = 0 must be at least 1"),
        ("training.epochs=2.5", "whole number"),
        ("training.epochs=true", "whole number"),
        ("training.epochs=many", "whole number"),
        ("training.strategy=supervise", " or ".join(list(STRATEGIES)[-2:])),
        ("training.strategy=3", "must be a string"),
        ("data.scheme=true", r"data\.scheme = True must be a whole number"),
        ("data.scheme=20.0", r"data\.scheme = 20\.0 must be a whole number"),
        ("data.scheme=30", r"data\.scheme = 30 must be 0, 20, 50 or 80"),
        ("data.slices=3", "must be positive or all"),
        ("data.labelled=3", "must be a string"),
        ("adam.learning_rate=true", r"adam\.learning_rate = True must be a number"),
        ('adam.learning_rate="1"', "must be a number"),
        ('training.epochs="3"', r"training\.epochs = '3' must be a whole number"),
        ("adam.learning_rate=0", "must be above 0"),
        ("adam.learning_rate=nan", "must be finite"),
        ("adam.learning_rate=inf", "must be finite"),
        ("curriculum.floor=1.1", "must be at most 1"),
        ("model.channels=8", "must be a list"),
        ("model.channels=[]", "must not be empty"),
        ("model.channels=[8, 0]", "must be at least 1"),
        ("model.channels=[8, 1.5]", "whole number"),
        ("data.window=[40]", "list of 2 numbers"),
        ("data.window=[40, 120, 3]", r"\[40, 120, 3\] must be a list of 2 numbers"),
        ("data.window=[40, true]", r"data\.window = True must be a number"),
        ("curiculum.k=3", r"did you mean curriculum\.k\?"),
        ("training.epochs.x=3", r"unknown recipe key training\.epochs\.x; did you mean"),
        ("data.window=[40, 1]", "width 1.0 must be above 1 HU"),
        ("data.size=100", r"not a multiple of 8.*take 104"),
        ("data.train=0.9", "add up to"),
        ("data.validation=0", r"nothing to choose the best epoch by; set training\.select = last"),
    ],
)
def test_refusals(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe.apply_settings(Recipe(), [setting])


@pytest.mark.parametrize("setting", ["supervised.draws=9", "supervised.positive=0.5"])
def test_lbfgs_draws_nothing(setting: str) -> None:
    with pytest.raises(RecipeError, match=r"looks at the whole .* set supervised\.optimizer"):
        recipe.apply_settings(PRESETS["paper"], [setting])


@pytest.mark.parametrize("text", ["[training", "training = 3", "[training]\nepochs = 'x'"])
def test_bad_files_are_named(tmp_path, text: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"bad\.toml"):
        recipe.read(file, PRESETS["demo"])
    with pytest.raises(RecipeError, match="cannot be read"):
        recipe.read(tmp_path / "none.toml", PRESETS["demo"])


def test_a_stored_recipe_of_the_first_format_is_read() -> None:
    """As written before a library wrote them: every list in one line."""
    text = recipe.to_toml(PRESETS["demo"])
    lists = re.compile(r"\[\n(.*?),\n\]", re.DOTALL)
    one_line = lists.sub(lambda found: "[" + " ".join(found[1].split()) + "]", text)
    assert "channels = [8, 16, 32, 64]" in one_line
    assert recipe.parse(one_line, Recipe()) == PRESETS["demo"]


def test_paper_preset_is_the_paper_s() -> None:
    paper = PRESETS["paper"]
    assert (paper.data.size, paper.model.channels) == (256, (64, 128, 256, 512))
    assert (paper.training.epochs, paper.curriculum.k, paper.curriculum.floor) == (4000, 40, 0.5)
    assert (paper.supervised.optimizer, paper.adam.learning_rate) == ("lbfgs", 1e-4)
    as_written = ["lbfgs.learning_rate=1e-4", "lbfgs.line_search=none"]
    assert recipe.apply_settings(paper, as_written).lbfgs.line_search == "none"


def test_the_reference_in_the_docs_is_current() -> None:
    docs = DOCS.read_text(encoding="utf-8")
    assert reference.format_keys() in docs
    assert reference.format_strategies() in docs
