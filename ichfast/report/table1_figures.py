"""The plots of the table's page: Dice against labels, unlabelled slices and passes."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ichfast.report.figures import COLOURS, Plot, finish, make_axes
from ichfast.report.run import to_float

PALETTE = ("supervised", "unsupervised", "validation", "validation-2", "ink")
STYLES = ("-", "--", ":")
SCORE = "dice.pooled"


def draw_label_curve(protocol: Mapping[str, Any]) -> Plot | None:
    """Every row's Dice against the share of labels; None where there is a single one."""
    schemes = [int(scheme) for scheme in protocol["schemes"]]
    lines = {
        row["name"]: [
            (float(scheme), entry["scores"][SCORE])
            for scheme, entry in row["schemes"].items()
            if entry["scores"]
        ]
        for row in protocol["rows"]
    }
    trained = {x for name, points in lines.items() if name != "floor" for x, _ in points}
    if len(trained) < 2:
        return None
    figure, axes = make_axes("patients with labels, %", "Dice, pooled")
    figure.set_size_inches(5.2, 4)
    axes.set_position((0.115, 0.12, 0.875, 0.66))  # a legend of several lines above
    for i, (name, points) in enumerate(lines.items()):
        # Side by side, as the intervals would hide each other.
        beside = [(x + (i - len(lines) / 2) * 0.7, score) for x, score in points]
        _draw_line(axes, beside, PALETTE[i % len(PALETTE)], STYLES[i // len(PALETTE)], name)
    axes.set_xticks(schemes)
    axes.set_xlim(min(schemes) - 10, max(schemes) + 10)
    return Plot(
        "Labelled patients",
        finish(figure, axes, f"labels-{protocol['name']}", columns=3),
        "Slices with blood; bars are 95 % intervals over patients.",
    )


def draw_unlabelled_curve(result: dict[str, Any]) -> Plot | None:
    """The method's Dice against the unlabelled slices it has seen; None without a second amount."""
    points = [
        (one["slices"], one["scores"][SCORE]) for one in result["unlabelled_curve"] if one["scores"]
    ]
    if len(points) < 2:
        return None
    figure, axes = make_axes("unlabelled slices", "Dice, pooled")
    _draw_line(axes, points, "unsupervised", "-", "20 % of the patients labelled")
    axes.set_xlim(left=-0.03 * max(x for x, _ in points))
    caption = "None: supervised training. Bars are 95 % intervals over patients."
    return Plot("Unlabelled slices", finish(figure, axes, "amounts"), caption)


def _draw_line(
    axes: Axes, points: Sequence[tuple[float, dict[str, Any]]], colour: str, style: str, label: str
) -> None:
    x = [place for place, _ in points]
    estimates = np.array([to_float(score["estimate"]) for _, score in points])
    low = np.array([to_float(score["low"]) for _, score in points])
    high = np.array([to_float(score["high"]) for _, score in points])
    ends = np.nan_to_num(np.stack([estimates - low, high - estimates])).clip(0)
    axes.errorbar(
        x,
        estimates,
        ends,
        fmt=f"o{style}",
        ms=3.5,
        lw=1.4,
        elinewidth=0.8,
        color=COLOURS[colour],
        label=label,
    )


def draw_training_curves(result: dict[str, Any]) -> list[Plot]:
    """One panel per row, of each of its runs: validation Dice or, where nothing is validated, the
    loss on the labelled slices."""
    labels = {row["name"]: row["label"] for each in result["protocols"] for row in each["rows"]}
    panels = (_draw_training(name, label, result) for name, label in labels.items())
    return [panel for panel in panels if panel]


def _draw_training(name: str, label: str, result: dict[str, Any]) -> Plot | None:
    runs = [run for run in result["runs"] if run["row"] == name and run["unlabelled"] == 100]
    if not runs:
        return None
    validated = any(run["curve"] for run in runs)
    figure, axes = make_axes(
        "passes over the labelled slices", "validation Dice" if validated else "loss on them"
    )
    columns = list(dict.fromkeys((run["protocol"], run["scheme"]) for run in result["runs"]))
    several = len({protocol for protocol, _ in columns}) > 1
    named: set[str] = set()
    for run in runs:
        diverged = run["status"] == "diverged"
        curve = run["curve" if validated else "losses"]
        values = [to_float(point[1]) for point in curve]
        place = columns.index((run["protocol"], run["scheme"]))
        text = f"{run['protocol']} " * several + f"{run['scheme']} %"
        axes.plot(
            [point[0] for point in curve],
            values,
            "--" if diverged else "-",
            color=COLOURS[PALETTE[place % len(PALETTE)]],
            lw=1.1,
            label=None if text in named else text,
        )
        named.add(text)
        if diverged:
            last = values[-1] if values and math.isfinite(values[-1]) else 0
            axes.plot(
                [run["passes"]],
                [last],
                "x",
                color=COLOURS["ink"],
                ms=8,
                mew=1.6,
                label=None if "x" in named else "diverged",
            )
            named.add("x")
    if validated:
        axes.set_ylim(-0.03, 1)
    counts = Counter((run["protocol"], run["scheme"]) for run in runs)
    caption = "Runs: " + ", ".join(
        f"{n} of {f'{protocol}, ' * several}{scheme} %" for (protocol, scheme), n in counts.items()
    )
    caption += "."
    if lost := sum(run["status"] == "diverged" for run in runs):
        caption += f" Diverged: {lost} (dashed, to the cross)."
    return Plot(label, finish(figure, axes, f"row-{name}", columns=3), caption)
