"""From a run folder to its page: how each number is written, and what must be said with it."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, UndefinedError

from ichfast.errors import DataError
from ichfast.files import write_whole
from ichfast.metrics import AGGREGATIONS
from ichfast.report.figures import outline, picture, plots
from ichfast.report.run import Run, number, read_run

PARTS = ("test", "validation")
NO_NUMBER = "–"
EMPTY_RULES = {
    "nan": "has no Dice and is left out of the means",
    "one": "counts as 1 in the means",
    "zero": "counts as 0 in the means",
}


@dataclass(frozen=True)
class Example:
    """A slice as the page shows it: pictures as data URIs, outlines as SVG path data."""

    dice: str
    size: tuple[int, int]  # height, width
    image: str
    target: str
    prediction: str
    maps: tuple[str, ...]  # in the order of `_map_names`


def write_report(run: Path) -> Path:
    """Write ``report.html`` into the run folder, from the files in it and nothing else."""
    path = run / "report.html"
    try:
        html = render(read_run(run))
    except UndefinedError as error:
        raise DataError(
            f"{run / 'metrics.json'} lacks what the page shows ({error}). Was it written by "
            "another version of ichfast? Delete it to see the curves alone."
        ) from error
    fix = f"Make room or allow writing there, then run python -m ichfast.report {run}."
    write_whole(path, html.encode(), lasting=False, fix=fix)
    return path


def render(run: Run) -> str:
    """The page of a run as HTML."""
    metrics = run.metrics
    return _template().render(
        run=run,
        metrics=metrics,
        status=metrics.get("status", "unfinished"),
        note=_note(run),
        parts={part: metrics[part] for part in PARTS if metrics.get(part)},
        aggregations=AGGREGATIONS,
        outlines=outlines,
        empty_rules=EMPTY_RULES,
        plots=plots(run.log, metrics.get("best_epoch")),
        examples=_examples(run),
        map_names=_map_names(run),
        steps=Counter(epoch.step for epoch in run.log),
        reconstructs=any(epoch.step in RECONSTRUCTING for epoch in run.log),
        data=_data(metrics.get("data") or {}),
    )


RECONSTRUCTING = ("unsupervised", "turns", "joint")
"""steps that train the reconstruction path"""


@cache
def _template() -> Template:
    return template("template.html", score=score, duration=duration)


def template(name: str, **filters: Callable[..., str]) -> Template:
    """One of this package's pages, with filters beside `count`."""
    environment = Environment(
        loader=PackageLoader("ichfast.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=count, **filters)
    return environment.get_template(name)


def outlines(part: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The scores of outlines that a part has: name -> means by aggregation."""
    if "hd95" not in part:
        return {}
    nsd = {f"NSD, {tolerance}": means for tolerance, means in part["nsd"].items()}
    return {"HD95 (mm)": part["hd95"]} | nsd


def score(value: Any) -> str:
    """A score with three digits; one that does not exist is a dash, never a number."""
    value = number(value)
    return f"{value:.3f}" if math.isfinite(value) else NO_NUMBER


def count(value: Any) -> str:
    """A whole number with thin spaces between thousands."""
    return NO_NUMBER if value is None else f"{value:,}".replace(",", "\u2009")


def duration(value: Any) -> str:
    """Seconds in the two largest units that matter."""
    seconds = number(value)
    if not math.isfinite(seconds):
        return NO_NUMBER
    if seconds < 59.95:  # what one decimal does not round to 60
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _note(run: Run) -> str:
    """What a reader must know about a run that did not simply finish, before any number."""
    metrics = run.metrics
    if not metrics:
        return (
            "No metrics yet: the run is still going on, or was stopped before it could evaluate. "
            "The curves show what it has logged."
        )
    notes = []
    if (metrics.get("data") or {}).get("split_by") == "slice":
        notes.append(
            "Slice-wise folds: slices of one patient are on both sides, so the scores are too good."
        )
    if metrics["status"] != "finished":
        ending = {
            "interrupted": "Training was interrupted; resume the run to finish it",
            "diverged": "Training diverged",
        }.get(metrics["status"], f"The run ended as {metrics['status']}")
        reason = metrics.get("reason")
        notes.append(f"{ending}{f': {reason}' if reason else ''}.")
        notes.append(
            "The scores are those of the best weights before that."
            if metrics.get("test")
            else "It was not evaluated."
        )
    if len(run.log) > (metrics.get("epochs") or 0):
        notes.append(
            f"The run has gone on since: the scores are of {metrics.get('epochs')} epochs, "
            f"the curves of {len(run.log)}."
        )
    return " ".join(notes)


def _map_names(run: Run) -> list[str]:
    """The rows of maps that the examples have, named as in the paper's Equation 1."""
    names = []
    if "attention" in run.examples:
        names += ["background x(1−m)", "foreground x·m"]
    if "reconstruction" in run.examples:
        names += ["reconstructed background", "reconstructed foreground"]
    return names


def _examples(run: Run) -> list[Example]:
    if not run.examples:
        return []
    pictures = run.examples
    threshold = (run.metrics.get("test") or {}).get("threshold", 0.5)
    maps = [pictures[key] for key in ("attention", "reconstruction") if key in pictures]
    return [
        Example(
            dice=score(pictures["dice"][i]),
            size=pictures["image"].shape[-2:],
            image=picture(pictures["image"][i, 0]),
            target=outline(pictures["target"][i, 0], 0.5),
            prediction=outline(pictures["mask"][i, 0], threshold),
            maps=tuple(picture(channel) for group in maps for channel in group[i]),
        )
        for i in range(len(pictures["dice"]))
    ]


def _data(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the data section says, apart by shape: a table of parts, and single facts."""
    parts = {name: value for name, value in data.items() if isinstance(value, Mapping)}
    return {
        "parts": parts,
        "columns": list(dict.fromkeys(column for part in parts.values() for column in part)),
        "facts": {name: value for name, value in data.items() if name not in parts},
    }
