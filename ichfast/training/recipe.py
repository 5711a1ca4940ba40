"""The recipe: everything that defines a run.

One tree of frozen dataclasses. TOML file, ``--set``, ``--help``, the reference in the docs and the
comparison on resume all come from the keys below, each described once where it stands.
"""

import dataclasses
import difflib
import json
import math
import textwrap
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ichfast.data import SCHEMES
from ichfast.errors import RecipeError


def key(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    choices: Sequence[str | int] | None = None,
) -> Any:
    """A recipe key: default, meaning and range (``low`` ≤ value ≤ ``high``, value > ``above``)."""
    limits = {"low": low, "above": above, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata={"doc": doc, **limits})


@dataclass(frozen=True)
class Training:
    strategy: str = key(
        "curriculum",
        "which step an epoch takes",
        choices=(
            "supervised",
            "pretrained",
            "curriculum",
            "alternating",
            "joint",
            "mean_teacher",
            "cps",
            "pseudo_label",
        ),
    )
    turn: str = key(
        "epoch",
        "what curriculum and alternating choose a step for: a whole epoch, or each update",
        choices=("epoch", "step"),
    )
    epochs: int = key(4000, "epochs in all; the one key that may grow on resume", low=1)
    seed: int = key(0, "seed of weights, schedule, shuffling and sampling", low=0)
    validate_every: int = key(1, "epochs between validations; the best of them is kept", low=1)
    checkpoint_every: int = key(1, "epochs between checkpoints", low=1)
    divergence: float = key(
        100.0,
        "diverged when a loss exceeds this many times the best of its step, or the weights' norm "
        "this many times its start",
        above=1,
    )
    grace: int = key(5, "epochs of a step before its loss is held against its best", low=1)


@dataclass(frozen=True)
class Model:
    channels: tuple[int, ...] = key(
        (64, 128, 256, 512), "feature maps a level; poolings between them", low=1
    )
    convolutions: int = key(
        1, "3×3 convolutions a level: 1 in the reduced U-Net, 2 in the classic one", low=1
    )


@dataclass(frozen=True)
class Supervised:
    optimizer: str = key("lbfgs", "optimizer of the supervised step", choices=("lbfgs", "adam"))
    alpha: float = key(1.0, "weight of false positives in its Tversky loss", low=0)
    beta: float = key(1.0, "that of false negatives; both 1: soft Jaccard, both ½: Dice", low=0)
    batch_size: int = key(16, "slices a batch (Adam) or micro-batch (L-BFGS, at most)", low=1)


@dataclass(frozen=True)
class Unsupervised:
    batch_size: int = key(16, "slices a batch of the unsupervised step (Adam)", low=1)
    attention_gradient: str = key(
        "stop",
        "gradient of L_u through the mask: none, into the encoder, or into the segmentation "
        "decoder too",
        choices=("stop", "encoder", "full"),
    )


@dataclass(frozen=True)
class Curriculum:
    k: float = key(40.0, "how slowly the supervised probability falls", above=0)
    floor: float = key(0.5, "the lowest supervised probability", low=0, high=1)
    decay: str = key(
        "paper",
        "how it falls with epoch x: k/(k + exp(x/k)), exp(−x/k), or 1 − x/k",
        choices=("paper", "exponential", "linear"),
    )


@dataclass(frozen=True)
class Pretraining:
    epochs: int = key(20, "first epochs of pretrained: passes over the unlabelled set", low=1)


@dataclass(frozen=True)
class Together:
    """Of joint, mean_teacher, cps and pseudo_label."""

    weight: float = key(1.0, "weight of the unlabelled loss beside the supervised one", low=0)
    ramp: int = key(40, "epochs in which it rises to that; 0: at once", low=0)
    noise: float = key(
        0.1, "standard deviation of the noise on images, of the window's width", low=0
    )
    ema: float = key(0.99, "what the mean teacher keeps of itself an update", low=0, high=1)
    confidence: float = key(0.95, "how sure a pseudo label must be", low=0.5, high=1)


@dataclass(frozen=True)
class LBFGS:
    learning_rate: float = key(1.0, "first trial step, or the step itself", above=0)
    line_search: str = key("strong_wolfe", "line search", choices=("strong_wolfe", "none"))
    max_iter: int = key(20, "iterations an epoch", low=1)
    history: int = key(10, "curvature pairs kept", low=1)


@dataclass(frozen=True)
class Adam:
    learning_rate: float = key(1e-4, "learning rate of Adam, in either step", above=0)


@dataclass(frozen=True)
class Augmentation:
    """Drawn anew for each slice and epoch; the defaults change nothing."""

    flip: float = key(0.0, "probability of mirroring left to right", low=0, high=1)
    rotation: float = key(0.0, "largest turn either way, in degrees", low=0, high=180)
    scale: float = key(1.0, "largest zoom, in or out, as a factor", low=1)
    shift: float = key(0.0, "largest shift, as a share of the side", low=0, high=1)
    level: float = key(0.0, "largest change of the window's level, in HU", low=0)
    width: float = key(1.0, "largest change of the window's width, as a factor", low=1)


@dataclass(frozen=True)
class Data:
    labelled: str = key("", "folder with CT and masks, or its pool; empty: the phantom")
    unlabelled: str = key(
        "", "folder with CT, or its pool; empty: the phantom's, where labelled is empty too"
    )
    size: int = key(256, "side of the square slices", low=1)
    window: tuple[float, float] = key((40.0, 120.0), "level and width in HU; width above 1")
    slices: str = key(
        "positive",
        "slices with haemorrhage only (masks, CSV), or all",
        choices=("positive", "all"),
    )
    test_slices: str = key(
        "positive",
        "slices tested on, where data.slices is positive; all gives a specificity",
        choices=("positive", "all"),
    )
    unlabelled_limit: int = key(0, "at most so many unlabelled slices; 0: all", low=0)
    scheme: int = key(
        0,
        "percentage of the patients in the folds' training sides, as in the paper's Table 1: 5, 2 "
        "and 5 folds; 0: one split, by the shares below",
        choices=(0, 20, 50, 80),
    )
    fold: int = key(0, "the scheme's fold, from 0", low=0)
    split_by: str = key(
        "patient",
        "what folds are made of; slices of one patient on both sides flatter the result",
        choices=("patient", "slice"),
    )
    train: float = key(0.7, "share of the patients trained on", above=0, high=1)
    validation: float = key(
        0.1,
        "share of the patients, or of a fold's training side, that chooses the best epoch",
        above=0,
        high=1,
    )
    test: float = key(0.2, "share of the patients tested on", above=0, high=1)
    split_seed: int = key(0, "seed of the split; seeds compared share it", low=0)


@dataclass(frozen=True)
class Phantom:
    patients: int = key(75, "labelled patients", low=3)
    unlabelled: int = key(300, "unlabelled patients", low=1)
    slices: int = key(30, "slices a patient", low=3)
    size: int = key(512, "side of its slices", low=64, high=512)
    seed: int = key(0, "seed of the phantom", low=0)


@dataclass(frozen=True)
class Compute:
    """Of training; validation and test are always plain float32."""

    precision: str = key(
        "float32",
        "of the layers in Adam's steps; weights, optimizers, losses and all of L-BFGS stay float32",
        choices=("float32", "bfloat16"),
    )
    memory_format: str = key(
        "channels_last", "layout of the feature maps", choices=("channels_last", "contiguous")
    )
    compile: str = key(
        "off",
        "torch.compile the networks; cuda_graphs: and replay them as CUDA graphs, on a GPU",
        choices=("off", "on", "cuda_graphs"),
    )


@dataclass(frozen=True)
class Evaluation:
    threshold: float = key(0.5, "a pixel is haemorrhage above this", low=0, high=1)
    batch_size: int = key(16, "slices a batch", low=1)


@dataclass(frozen=True)
class Recipe:
    """The defaults are the paper's settings as far as it states them."""

    training: Training = Training()
    model: Model = Model()
    supervised: Supervised = Supervised()
    unsupervised: Unsupervised = Unsupervised()
    curriculum: Curriculum = Curriculum()
    pretraining: Pretraining = Pretraining()
    together: Together = Together()
    lbfgs: LBFGS = LBFGS()
    adam: Adam = Adam()
    augmentation: Augmentation = Augmentation()
    data: Data = Data()
    phantom: Phantom = Phantom()
    compute: Compute = Compute()
    evaluation: Evaluation = Evaluation()

    def __post_init__(self) -> None:
        for name, field, value in keys(self):
            _check_range(name, field, value)
        multiple = 2 ** (len(self.model.channels) - 1)
        if self.data.size % multiple:
            raise RecipeError(
                f"data.size = {self.data.size} is no multiple of {multiple}, as the poolings of "
                f"model.channels need; take {-(-self.data.size // multiple) * multiple}."
            )
        if self.data.window[1] <= 1:
            raise RecipeError(f"data.window: width {self.data.window[1]} must be above 1 HU.")
        narrowest = self.data.window[1] / self.augmentation.width
        if narrowest <= 1:
            raise RecipeError(
                f"augmentation.width = {self.augmentation.width}: the window's width would fall to "
                f"{narrowest:g} HU; it must stay above 1."
            )
        _check_optimizer(self)
        _check_folds(self.data)
        shares = self.data.train + self.data.validation + self.data.test
        if not math.isclose(shares, 1, abs_tol=1e-6):
            raise RecipeError(
                f"data.train, data.validation and data.test add up to {shares:g}; they must to 1."
            )


def keys(recipe: Recipe) -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """Every key as (``section.key``, its field, its value)."""
    for section in dataclasses.fields(recipe):
        part = getattr(recipe, section.name)
        for field in dataclasses.fields(part):
            yield f"{section.name}.{field.name}", field, getattr(part, field.name)


def merged(base: Recipe, values: Mapping[str, Any]) -> Recipe:
    """``base`` with ``values`` ({"section.key": value}, as TOML gives them) in place."""
    known = {name: field for name, field, _ in keys(base)}
    parts: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else "--help lists them all."
            raise RecipeError(f"unknown recipe key {name}; {hint}")
        section, _, leaf = name.partition(".")
        kind = get_type_hints(type(getattr(base, section)))[leaf]
        parts.setdefault(section, {})[leaf] = _converted(name, kind, value)
    return dataclasses.replace(
        base,
        **{
            section: dataclasses.replace(getattr(base, section), **part)
            for section, part in parts.items()
        },
    )


def read(path: Path, base: Recipe) -> Recipe:
    """The recipe file at ``path``; keys it leaves out are ``base``'s."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} cannot be read: {error}.") from error
    try:
        return parsed(text, base)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


def parsed(text: str, base: Recipe) -> Recipe:
    """The recipe in a TOML text."""
    try:
        sections = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"not valid TOML: {error}.") from error
    flat: dict[str, Any] = {}
    for section, part in sections.items():
        if isinstance(part, dict):
            flat |= {f"{section}.{leaf}": value for leaf, value in part.items()}
        elif section in Recipe.__dataclass_fields__:
            raise RecipeError(f"{section} is a section: write its keys below a line [{section}].")
        else:
            flat[section] = part
    return merged(base, flat)


def with_settings(base: Recipe, settings: Sequence[str]) -> Recipe:
    """``base`` with command-line settings ``section.key=value``; a bare word is a string."""
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise RecipeError(f"--set {setting}: write it as section.key=value.")
        try:
            values[name.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[name.strip()] = text.strip()
    return merged(base, values)


def with_folders(base: Recipe, labelled: Path | None, unlabelled: Path | None) -> Recipe:
    """``base`` on the data in these folders; None leaves its own."""
    folders = {"data.labelled": labelled, "data.unlabelled": unlabelled}
    return merged(base, {key: str(path.resolve()) for key, path in folders.items() if path})


def to_toml(recipe: Recipe) -> str:
    """The whole recipe, so that a stored one does not depend on later defaults."""
    lines: list[str] = []
    for name, _, value in keys(recipe):
        section, _, leaf = name.partition(".")
        if f"[{section}]" not in lines:
            lines += ["", f"[{section}]"]
        lines.append(f"{leaf} = {_literal(value)}")
    return "\n".join(lines[1:]) + "\n"


def differences(former: Recipe, latter: Recipe) -> list[str]:
    """``key (former value, now latter value)`` for every key that differs."""
    return [
        f"{name} ({_literal(before)}, now {_literal(after)})"
        for (name, _, before), (_, _, after) in zip(keys(former), keys(latter), strict=True)
        if before != after
    ]


def reference() -> str:
    """Every key in a Markdown table: the one in docs/training.md."""
    demo = {name: value for name, _, value in keys(PRESETS["demo"])}
    rows = ["| key | paper | demo | meaning |", "|---|---|---|---|"]
    for name, field, value in keys(PRESETS["paper"]):
        other = "" if demo[name] == value else f"`{_literal(demo[name])}`"
        rows.append(f"| `{name}` | `{_literal(value)}` | {other} | {describe(field)} |")
    return "\n".join(rows) + "\n"


def listing() -> str:
    """The same for --help."""
    demo = {name: value for name, _, value in keys(PRESETS["demo"])}
    lines: list[str] = []
    for name, field, value in keys(PRESETS["paper"]):
        values = dict.fromkeys((_literal(value), _literal(demo[name])))
        text = f"{describe(field)} [{'; '.join(values)}]"
        lines += textwrap.wrap(text, 98, initial_indent=f"  {name:34}", subsequent_indent=" " * 36)
    return "\n".join(lines)


def describe(field: dataclasses.Field[Any]) -> str:
    """A key's meaning and range in words."""
    choices = field.metadata["choices"]
    doc: str = field.metadata["doc"]
    return doc + (f" ({_listed(choices)})" if choices else "")


def _check_optimizer(recipe: Recipe) -> None:
    training = recipe.training
    switching = training.strategy in ("curriculum", "alternating")
    if training.turn == "step" and not switching:
        raise RecipeError(
            f"training.turn = step is for curriculum and alternating; {training.strategy} takes "
            "training.turn = epoch."
        )
    one = training.strategy in ("joint", "mean_teacher", "cps", "pseudo_label")
    if recipe.supervised.optimizer == "lbfgs" and (one or training.turn == "step"):
        what = f"training.strategy = {training.strategy}" if one else "training.turn = step"
        raise RecipeError(
            f"{what} goes from batch to batch, which L-BFGS cannot; set supervised.optimizer = "
            "adam."
        )


def _check_folds(data: Data) -> None:
    if data.scheme and data.fold >= SCHEMES[data.scheme]:
        raise RecipeError(
            f"data.fold = {data.fold}: scheme {data.scheme} has the folds 0 to "
            f"{SCHEMES[data.scheme] - 1}."
        )
    if not data.scheme and (data.fold or data.split_by != "patient"):
        raise RecipeError(
            "data.fold and data.split_by belong to folds: set data.scheme to 20, 50 or 80 too."
        )


def _check_range(name: str, field: dataclasses.Field[Any], value: Any) -> None:
    limits = field.metadata
    if limits["choices"] and value not in limits["choices"]:
        raise RecipeError(f"{name} = {value!r} must be {_listed(limits['choices'])}.")
    if value == ():
        raise RecipeError(f"{name} must not be empty.")
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, str):
            continue
        if not math.isfinite(number):
            raise RecipeError(f"{name} = {number} must be finite.")
        if limits["low"] is not None and number < limits["low"]:
            raise RecipeError(f"{name} = {number} must be at least {limits['low']:g}.")
        if limits["above"] is not None and number <= limits["above"]:
            raise RecipeError(f"{name} = {number} must be above {limits['above']:g}.")
        if limits["high"] is not None and number > limits["high"]:
            raise RecipeError(f"{name} = {number} must be at most {limits['high']:g}.")


def _converted(name: str, kind: Any, value: Any) -> Any:
    """``value`` from TOML as the annotation ``kind`` wants it."""
    if isinstance(kind, types.GenericAlias):  # tuple[int, ...] or tuple[float, float]
        inner = get_args(kind)
        fixed = None if inner[-1] is ... else len(inner)
        if not isinstance(value, list) or (fixed is not None and len(value) != fixed):
            count = "" if fixed is None else f"{fixed} "
            raise RecipeError(f"{name} = {value!r} must be a list of {count}numbers, as [1, 2].")
        return tuple(_converted(name, inner[0], item) for item in value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:  # type(), as True is an int to isinstance
        word = {int: "a whole number", float: "a number", str: "a string"}[kind]
        raise RecipeError(f"{name} = {value!r} must be {word}.")
    return value


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, str):  # JSON's escapes are TOML's, except that TOML also bars DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _listed(choices: Sequence[str | int]) -> str:
    *others, last = map(str, choices)
    return ", ".join(others) + " or " + last


PRESETS = {
    "demo": Recipe(
        training=Training(epochs=20),
        model=Model((8, 16, 32, 64)),
        supervised=Supervised(batch_size=8),
        unsupervised=Unsupervised(batch_size=8),
        curriculum=Curriculum(k=10.0),
        lbfgs=LBFGS(max_iter=10),
        adam=Adam(1e-3),
        data=Data(size=128, train=0.25, validation=0.15, test=0.6),
        phantom=Phantom(patients=100, unlabelled=40, slices=6, size=256),
    ),
    "paper": Recipe(training=Training(checkpoint_every=10)),
}
