"""The recipe: everything that defines a run.

One frozen tree. TOML file, ``--set``, ``--help``, the reference in the docs and the comparison on
resume all come from the keys in :mod:`ichfast.training.settings`, each described once.
"""

import difflib
import json
import math
import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, get_args

import tomli_w
from pydantic import ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ichfast.data import SCHEMES
from ichfast.data.texts import read_text
from ichfast.errors import DataError, RecipeError
from ichfast.training.registry import STRATEGIES
from ichfast.training.settings import (
    AdamSettings,
    AugmentationSettings,
    ComputeSettings,
    CurriculumSettings,
    DataSettings,
    EvaluationSettings,
    LBFGSSettings,
    ModelSettings,
    PhantomSettings,
    PretrainingSettings,
    Settings,
    StrongSettings,
    SupervisedSettings,
    TogetherSettings,
    TrainingSettings,
    UnsupervisedSettings,
    list_choices,
)


class Recipe(Settings):
    """The defaults are the paper's settings as far as it states them."""

    training: TrainingSettings = TrainingSettings()
    model: ModelSettings = ModelSettings()
    supervised: SupervisedSettings = SupervisedSettings()
    unsupervised: UnsupervisedSettings = UnsupervisedSettings()
    curriculum: CurriculumSettings = CurriculumSettings()
    pretraining: PretrainingSettings = PretrainingSettings()
    together: TogetherSettings = TogetherSettings()
    lbfgs: LBFGSSettings = LBFGSSettings()
    adam: AdamSettings = AdamSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    strong: StrongSettings = StrongSettings()
    data: DataSettings = DataSettings()
    phantom: PhantomSettings = PhantomSettings()
    compute: ComputeSettings = ComputeSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def check(self) -> Self:
        """Raise RecipeError where keys do not go together."""
        multiple = 2 ** (len(self.model.channels) - 1)
        if self.data.size % multiple:
            raise RecipeError(
                f"data.size = {self.data.size} is not a multiple of {multiple}, as the poolings of "
                f"model.channels need; take {-(-self.data.size // multiple) * multiple}."
            )
        if self.data.window[1] <= 1:
            raise RecipeError(f"data.window: width {self.data.window[1]} must be above 1 HU.")
        narrowest = self.data.window[1]
        for section in ("augmentation", "strong"):  # one on top of the other
            width = getattr(self, section).width
            narrowest /= width
            if narrowest <= 1:
                raise RecipeError(
                    f"{section}.width = {width}: the window's width would fall to "
                    f"{narrowest:g} HU; it must stay above 1."
                )
        _check_optimizer(self)
        _check_folds(self.data)
        if self.data.labelled_share < 1 and self.data.split_by == "slice":
            raise RecipeError(
                "data.labelled_share is of patients, whom slice-wise folds have on both sides; set "
                "data.split_by = patient."
            )
        shares = self.data.train + self.data.validation + self.data.test
        if not math.isclose(shares, 1, abs_tol=1e-6):
            raise RecipeError(
                f"data.train, data.validation and data.test add up to {shares:g}; that must be 1."
            )
        return self


def _check_optimizer(recipe: Recipe) -> None:
    if recipe.training.select == "best" and not recipe.data.validation:
        raise RecipeError(
            "data.validation = 0 leaves nothing to choose the best epoch by; set training.select = "
            "last or ema."
        )
    training, strategy = recipe.training, STRATEGIES[recipe.training.strategy]
    if training.turn == "step" and not strategy.switches:
        switching = [name for name, one in STRATEGIES.items() if one.switches]
        raise RecipeError(
            f"training.turn = step is for {join(switching, 'and')}; {training.strategy} takes "
            "training.turn = epoch."
        )
    batchwise = strategy.batchwise
    if recipe.supervised.optimizer == "lbfgs" and (batchwise or training.turn == "step"):
        what = f"training.strategy = {training.strategy}" if batchwise else "training.turn = step"
        raise RecipeError(
            f"{what} goes from batch to batch, which L-BFGS cannot; set supervised.optimizer = "
            "adam."
        )
    if recipe.supervised.optimizer == "lbfgs" and (
        recipe.supervised.draws or recipe.supervised.positive
    ):
        raise RecipeError(
            "supervised.draws and supervised.positive are for Adam, and L-BFGS looks at the whole "
            "labelled set each time; set supervised.optimizer = adam, or both to 0."
        )


def _check_folds(data: DataSettings) -> None:
    if data.scheme and data.fold >= SCHEMES[data.scheme]:
        raise RecipeError(
            f"data.fold = {data.fold}: scheme {data.scheme} has the folds 0 to "
            f"{SCHEMES[data.scheme] - 1}."
        )
    if not data.scheme and (data.fold or data.split_by != "patient"):
        raise RecipeError(
            "data.fold and data.split_by belong to folds: set data.scheme to 20, 50 or 80 too."
        )


def keys(recipe: Recipe) -> Iterator[tuple[str, FieldInfo, Any]]:
    """Every key as (``section.key``, its description, its value)."""
    for section, settings in recipe:
        for name, field in type(settings).model_fields.items():
            yield f"{section}.{name}", field, getattr(settings, name)


def find_nearest_key(name: str) -> str | None:
    """The recipe's key that is most like ``name``; one that lacks its section, if any does."""
    known = [key for key, _, _ in keys(Recipe())]
    same = [key for key in known if key.endswith(f".{name}")]
    return next(iter(same or difflib.get_close_matches(name, known, 1, cutoff=0.5)), None)


def merge(base: Recipe, values: Mapping[str, Any]) -> Recipe:
    """``base`` with ``values`` ({"section.key": value}, as TOML gives them) in place."""
    known = {name: field for name, field, _ in keys(base)}
    sections = base.model_dump()
    for name, value in values.items():
        if name not in known:
            near = find_nearest_key(name)
            hint = f"did you mean {near}?" if near else "--help lists them all."
            raise RecipeError(f"unknown recipe key {name}; {hint}")
        section, _, leaf = name.partition(".")
        sections[section][leaf] = value
    try:
        return Recipe.model_validate(sections)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"][:2]))
        shown = textwrap.shorten(repr(first["input"]), 200)
        raise RecipeError(f"{name} = {shown} {_rule(known[name], first)}.") from None


RULES = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a string",
    "finite_number": "must be finite",
    "greater_than_equal": "must be at least {ge:g}",
    "greater_than": "must be above {gt:g}",
    "less_than_equal": "must be at most {le:g}",
    "less_than": "must be below {lt:g}",
    "too_short": "must not be empty",
    "string_unicode": "must be text in UTF-8; rename the folder, or give a link with such a name",
    "literal_error": "must be {choices}",
    "tuple_type": "must be a list of {count}numbers, as [1, 2]",
    "missing": "must be a list of {count}numbers, as [1, 2]",
    "too_long": "must be a list of {count}numbers, of {max_length} at most",
}
"""by pydantic's type of an error"""


def _rule(field: FieldInfo, error: ErrorDetails) -> str:
    """What a refused value must be."""
    items, listed = get_args(field.annotation), list_choices(field)
    words = {"count": "" if ... in items else f"{len(items)} ", **error.get("ctx", {})}
    if listed:
        words["choices"] = join(listed)
    return RULES.get(error["type"], "is not what this key takes").format(**words)


def read(path: Path, base: Recipe) -> Recipe:
    """The recipe file at ``path``; keys it leaves out are ``base``'s."""
    values = read_values(path)
    try:
        return merge(base, values)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


def read_values(path: Path) -> dict[str, Any]:
    """The values in the recipe file at ``path`` as {"section.key": value}, whatever they are."""
    try:
        return flatten(read_text(path))
    except DataError as error:
        raise RecipeError(f"recipe {error}.") from error
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


def parse(text: str, base: Recipe) -> Recipe:
    """The recipe in a TOML text."""
    return merge(base, flatten(text))


def flatten(text: str) -> dict[str, Any]:
    """The values in a TOML text as {"section.key": value}, whatever they are."""
    try:
        sections = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, deep lists
        raise RecipeError(f"not valid TOML: {error}.") from error
    flat: dict[str, Any] = {}
    for section, part in sections.items():
        if isinstance(part, dict):
            flat |= {f"{section}.{leaf}": value for leaf, value in part.items()}
        elif section in Recipe.model_fields:
            raise RecipeError(f"{section} is a section: write its keys below a line [{section}].")
        else:
            flat[section] = part
    return flat


def apply_settings(base: Recipe, settings: Sequence[str]) -> Recipe:
    """``base`` with command-line settings ``section.key=value``; a bare word is a string."""
    return merge(base, parse_settings(settings))


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """The values of ``section.key=value`` as {"section.key": value}, whatever they are."""
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise RecipeError(f"--set {setting}: write it as section.key=value.")
        try:
            values[name.strip()] = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            values[name.strip()] = text.strip()
    return values


def apply_folders(base: Recipe, labelled: Path | None, unlabelled: Path | None) -> Recipe:
    """``base`` on the data in these folders; None leaves its own."""
    folders = {"data.labelled": labelled, "data.unlabelled": unlabelled}
    return merge(base, {key: str(path.resolve()) for key, path in folders.items() if path})


def to_toml(recipe: Recipe) -> str:
    """The whole recipe, so that a stored one does not depend on later defaults."""
    return tomli_w.dumps(recipe.model_dump())


class Difference(NamedTuple):
    """A key whose value differs between two recipes."""

    key: str
    former: Any
    latter: Any

    def __str__(self) -> str:
        return f"{self.key} ({to_literal(self.former)}, now {to_literal(self.latter)})"


def compare(former: Recipe, latter: Recipe) -> list[Difference]:
    """Every key that differs."""
    return [
        Difference(name, before, after)
        for (name, _, before), (_, _, after) in zip(keys(former), keys(latter), strict=True)
        if before != after
    ]


def to_literal(value: Any) -> str:
    """A key's value in one line, as ``--set`` takes it: JSON's literals are TOML's."""
    return json.dumps(value, ensure_ascii=False)


def join(words: Sequence[Any], conjunction: str = "or") -> str:
    """As in "a, b or c"."""
    *others, last = map(str, words)
    return f"{', '.join(others)} {conjunction} {last}"
