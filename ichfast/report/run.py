"""A run folder as the report reads it. Everything is checked here; the page only formats."""

import json
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ichfast.errors import DataError, OutputError

WINDOW = (40.0, 120.0)
"""of recipes that do not say theirs"""


@dataclass(frozen=True)
class Epoch:
    """One line of ``log.jsonl``; a number that was null there is NaN here."""

    epoch: int
    step: str
    probability: float
    losses: dict[str, float]  # by kind: "supervised", "unsupervised", "classification"
    validated: bool
    validation_loss: float
    validation_dice: float
    validation_jaccard: float


@dataclass(frozen=True)
class Run:
    """What a run folder says. Only ``recipe.toml`` must be there: a run that was killed has no
    metrics, one that has just begun has no log."""

    name: str
    recipe: str
    window: tuple[float, float]  # level, width in HU
    log: tuple[Epoch, ...]
    metrics: dict[str, Any]  # empty where the run wrote none
    examples: dict[str, NDArray[Any]]  # empty where the run wrote none


def read_run(folder: Path) -> Run:
    """Read a run folder, or that of an external test, whose model.toml stands for the recipe; a
    missing or broken file is an error that names it."""
    names = [folder / name for name in ("recipe.toml", "model.toml")]
    path = next((name for name in names if name.is_file()), None)
    if path is None:
        raise OutputError(
            f"{folder} is not a run folder: it has no recipe.toml. "
            "Give the folder that training wrote (its --out)."
        )
    recipe = _read_text(path)
    metrics = _read_metrics(folder / "metrics.json")
    # A run that was tested, extended and stopped has examples of its former weights.
    tested = not metrics or metrics.get("test") is not None
    return Run(
        name=folder.resolve().name,
        recipe=recipe,
        window=_find_window(recipe, path),
        log=_read_log(folder / "log.jsonl"),
        metrics=metrics,
        examples=_read_examples(folder / "examples.safetensors") if tested else {},
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error


def _find_window(recipe: str, path: Path) -> tuple[float, float]:
    try:
        level, width = tomllib.loads(recipe).get("data", {}).get("window", WINDOW)
        return float(level), float(width)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is no recipe with data.window = [level, width] ({error}). "
            "Restore the file as it was written."
        ) from error


def _read_log(path: Path) -> tuple[Epoch, ...]:
    """Epochs in order. A last line without its newline was cut off by a kill and is left out; of an
    epoch that was run again after a resume the later line counts."""
    if not path.exists():
        return ()
    epochs: dict[int, Epoch] = {}
    for i, line in enumerate(_read_text(path).split("\n")[:-1], start=1):
        if not line.strip():
            continue
        try:
            epoch = _parse_epoch(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"{path}, line {i}, is not an epoch of ichfast ({error!r}). "
                "Delete the line, or resume the run, and make the report again."
            ) from error
        epochs[epoch.epoch] = epoch
    return tuple(epochs[key] for key in sorted(epochs))


def _parse_epoch(record: dict[str, Any]) -> Epoch:
    validation = record.get("validation") or {}
    step = str(record["step"])
    losses = record.get("parts") or {step: record["loss"]}
    return Epoch(
        epoch=int(record["epoch"]),
        step=step,
        probability=to_float(record.get("probability")),
        losses={str(kind): to_float(loss) for kind, loss in losses.items()},
        validated=bool(validation),
        validation_loss=to_float(validation.get("loss")),
        validation_dice=to_float(validation.get("dice")),
        validation_jaccard=to_float(validation.get("jaccard")),
    )


def to_float(value: Any) -> float:
    """A JSON value as a float: null, and a NaN written as text, are NaN."""
    return math.nan if value is None else float(value)


def _read_metrics(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    fix = "Delete it to see the curves alone, or resume the run so that it is written again."
    try:
        metrics = json.loads(_read_text(path))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}). {fix}") from error
    if not isinstance(metrics, dict) or "status" not in metrics:
        raise DataError(f"{path} is not the metrics file of a run: it has no status. {fix}")
    return metrics


def _read_examples(path: Path) -> dict[str, NDArray[Any]]:
    if not path.exists():
        return {}
    fix = "Delete it to make the report without pictures."
    try:
        examples: dict[str, NDArray[Any]] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read ({error}). {fix}") from error
    missing = {"image", "target", "mask", "dice"} - examples.keys()
    if missing:
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}. {fix}")
    return examples
