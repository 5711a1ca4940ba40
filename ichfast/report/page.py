"""From a run folder to its page: how each number is written, and what has to be said with it."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template, UndefinedError

from ichfast.errors import DataError
from ichfast.files import report_errors, write_whole
from ichfast.metrics import AGGREGATIONS
from ichfast.report.examples import find_threshold, render_examples
from ichfast.report.figures import draw_plots, encode_picture, trace_outline
from ichfast.report.page_template import NO_NUMBER, load_template
from ichfast.report.run import Run, read_run, to_float

PARTS = ("test", "native", "validation")
EXAMPLES = "examples.html"
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
    """Write ``report.html`` and, where there are examples, ``examples.html`` into the run folder,
    from the files in it and nothing else."""
    path = run / "report.html"
    contents = read_run(run)
    try:
        html = render(contents)
    except UndefinedError as error:
        raise DataError(
            f"{run / 'metrics.json'} lacks what the page shows ({error}). Was it written by "
            "another version of ichfast? Delete it to see the curves alone."
        ) from error
    fix = f"Make room or allow writing there, then run python -m ichfast.report {run}."
    if contents.examples:
        dice = [format_score(score) for score in contents.examples["dice"]]
        slices = render_examples(contents, dice)
        write_whole(run / EXAMPLES, slices.encode(), lasting=False, fix=fix)
    else:
        with report_errors(run / EXAMPLES, fix):
            (run / EXAMPLES).unlink(missing_ok=True)  # of weights that are no longer the run's
    write_whole(path, html.encode(), lasting=False, fix=fix)
    return path


def render(run: Run) -> str:
    """The page of a run as HTML."""
    metrics = run.metrics
    return _load_page().render(
        run=run,
        metrics=metrics,
        status=metrics.get("status", "unfinished"),
        note=_write_note(run),
        parts={part: metrics[part] for part in PARTS if metrics.get(part)},
        aggregations=AGGREGATIONS,
        overlaps=list_overlap_scores,
        outlines=list_outline_scores,
        empty_rules=EMPTY_RULES,
        plots=draw_plots(run.log, metrics.get("best_epoch")),
        examples=_make_examples(run),
        map_names=_name_maps(run),
        external="model" in metrics,
        steps=Counter(epoch.step for epoch in run.log),
        reconstructs=any("unsupervised" in epoch.losses for epoch in run.log),
        data=_split_data(metrics.get("data") or {}),
    )


@cache
def _load_page() -> Template:
    return load_template(
        "template.html", score=format_score, range=format_range, duration=format_duration
    )


def list_overlap_scores(part: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], Any]]:
    """Dice and Jaccard of a part's slices with blood and, where it has others, of all: name, scores
    by aggregation, their intervals."""
    ranges = part["intervals"]
    groups = [("with blood", part["positive"], ranges["positive"])]
    if part["detection"]["negative"]:
        groups.append(("all slices", part, ranges))
    return [
        (f"{name.capitalize()}, {which}", scores[name], own[name])
        for which, scores, own in groups
        for name in ("dice", "jaccard")
    ]


def list_outline_scores(part: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The scores of outlines that a part has: name -> means by aggregation."""
    if "hd95" not in part:
        return {}
    nsd = {f"NSD, {tolerance}": means for tolerance, means in part["nsd"].items()}
    return {"HD95 (mm)": part["hd95"]} | nsd


def format_score(value: Any) -> str:
    """A score with three digits; one that does not exist is a dash, never a number."""
    value = to_float(value)
    return f"{value:.3f}" if math.isfinite(value) else NO_NUMBER


def format_range(ends: Sequence[float] | None) -> str:
    """An interval, or nothing where there is none."""
    return f"[{format_score(ends[0])}, {format_score(ends[1])}]" if ends else ""


def format_duration(value: Any) -> str:
    """Seconds in the two largest units that matter."""
    seconds = to_float(value)
    if not math.isfinite(seconds):
        return NO_NUMBER
    if seconds < 59.95:  # what one decimal does not round to 60
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _write_note(run: Run) -> str:
    """What a reader must know before any number of a run that did not simply finish."""
    metrics = run.metrics
    if not metrics:
        return (
            "No metrics yet: the run is still going on, or was stopped before it could evaluate. "
            "The curves show what it has logged."
        )
    notes = list(metrics.get("notes") or ())
    if (metrics.get("data") or {}).get("split_by") == "slice":
        notes.append(
            "Slice-wise folds: slices of one patient are on both sides, so the scores are too high."
        )
    if metrics["status"] != "finished":
        ending = {
            "interrupted": "Training was interrupted; resume the run to finish it",
            "diverged": "Training diverged",
            "unfinished": "The run has not come to its end",
        }.get(metrics["status"], f"The run ended as {metrics['status']}")
        reason = metrics.get("reason")
        notes.append(f"{ending}{f': {reason}' if reason else ''}.")
        notes.append(
            "The scores are those of the weights it had kept by then."
            if metrics.get("test")
            else "It was not evaluated."
        )
    if "model" not in metrics and len(run.log) > (metrics.get("epochs") or 0):
        notes.append(
            f"The run has continued since: the scores are of {metrics.get('epochs')} epochs, "
            f"the curves of {len(run.log)}."
        )
    return " ".join(notes)


def _name_maps(run: Run) -> list[str]:
    """The rows of maps that the examples have, named as in the paper's Equation 1."""
    names = []
    if "attention" in run.examples:
        names += ["background x(1−m)", "foreground x·m"]
    if "reconstruction" in run.examples:
        names += ["reconstructed background", "reconstructed foreground"]
    return names


def _make_examples(run: Run) -> list[Example]:
    if not run.examples:
        return []
    pictures = run.examples
    threshold = find_threshold(run)
    maps = [pictures[key] for key in ("attention", "reconstruction") if key in pictures]
    return [
        Example(
            dice=format_score(pictures["dice"][i]),
            size=pictures["image"].shape[-2:],
            image=encode_picture(pictures["image"][i, 0]),
            target=trace_outline(pictures["target"][i, 0], 0.5),
            prediction=trace_outline(pictures["mask"][i, 0], threshold),
            maps=tuple(encode_picture(channel) for group in maps for channel in group[i]),
        )
        for i in range(len(pictures["dice"]))
    ]


def _split_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data section, split by shape: a table of parts, and single facts."""
    parts = {name: value for name, value in data.items() if isinstance(value, Mapping)}
    return {
        "parts": parts,
        "columns": list(dict.fromkeys(column for part in parts.values() for column in part)),
        "facts": {name: value for name, value in data.items() if name not in parts},
    }
