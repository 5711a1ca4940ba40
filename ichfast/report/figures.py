"""Curves and pictures as inline SVG whose colours are CSS variables, so one figure serves a light
screen, a dark one and paper."""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import matplotlib as mpl
import numpy as np
from contourpy import contour_generator
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ichfast.report.run import Epoch

# Matplotlib wants real colours: each stands for the CSS variable that takes its place in the SVG.
COLOURS = {
    "ink": "#010101",
    "muted": "#020202",
    "rule": "#030303",
    "supervised": "#040404",
    "unsupervised": "#050505",
    "validation": "#060606",
    "validation-2": "#070707",
}
CAPTIONS = {
    "classification": "Labels of the unlabelled set's slices.",
    "supervised": "Labelled slices.",
    "unsupervised": "The unlabelled slices.",
}
"""of the losses, in reading order; a step with another loss has a panel without one"""
MARKED_POINTS = 60  # up to this many points a line shows each of them


@dataclass(frozen=True)
class Plot:
    title: str
    svg: Markup
    caption: str


def draw_plots(log: Sequence[Epoch], best_epoch: int | None) -> list[Plot]:
    """The panels that the log has data for, in reading order."""
    end = log[-1].epoch if log else 0
    kinds = dict.fromkeys(kind for epoch in log for kind in epoch.losses)
    panels = [
        _draw_supervised_loss(log, end)
        if kind == "supervised"
        else _draw_loss(log, end, kind, CAPTIONS.get(kind, ""))
        for kind in sorted(kinds, key=_rank_loss)
    ]
    if any(epoch.validated for epoch in log):
        panels.append(_draw_validation(log, end, best_epoch))
    if {"turns", "unsupervised"} & {epoch.step for epoch in log}:
        panels.append(_draw_schedule(log, end))
    return panels


def _rank_loss(kind: str) -> int:
    """Those that have a caption in its order, others after them as the log has them."""
    known = list(CAPTIONS)
    return known.index(kind) if kind in known else len(known)


def _draw_supervised_loss(log: Sequence[Epoch], end: int) -> Plot:
    figure, axes = _make_epoch_axes("loss", end)
    for colour, label, points in (
        ("supervised", "training", _select_losses(log, "supervised")),
        ("validation", "validation", [(e.epoch, e.validation_loss) for e in log if e.validated]),
    ):
        if points:
            epochs, losses = zip(*points, strict=True)
            _draw_line(axes, epochs, losses, colour, label)
    return Plot("Supervised loss", finish(figure, axes, "supervised"), CAPTIONS["supervised"])


def _draw_loss(log: Sequence[Epoch], end: int, kind: str, caption: str) -> Plot:
    figure, axes = _make_epoch_axes("loss", end)
    epochs, losses = zip(*_select_losses(log, kind), strict=True)
    _draw_line(axes, epochs, losses, "unsupervised", "training")
    return Plot(f"{kind.replace('_', ' ').capitalize()} loss", finish(figure, axes, kind), caption)


def _select_losses(log: Sequence[Epoch], kind: str) -> list[tuple[int, float]]:
    return [(epoch.epoch, epoch.losses[kind]) for epoch in log if kind in epoch.losses]


def _draw_validation(log: Sequence[Epoch], end: int, best_epoch: int | None) -> Plot:
    log = [epoch for epoch in log if epoch.validated]
    figure, axes = _make_epoch_axes("score", end)
    epochs = [epoch.epoch for epoch in log]
    dice = [epoch.validation_dice for epoch in log]
    _draw_line(axes, epochs, dice, "validation", "Dice")
    jaccard = [epoch.validation_jaccard for epoch in log]
    _draw_line(axes, epochs, jaccard, "validation-2", "Jaccard", "--")
    caption = "Counts pooled over all validation slices."
    if best_epoch in epochs:
        score = dice[epochs.index(best_epoch)]
        axes.plot(best_epoch, score, "o", ms=8, mfc="none", mec=COLOURS["ink"], mew=1.2)
        caption += f" The circle is the epoch that was kept: {best_epoch}, Dice {score:.3f}."
    axes.set_ylim(0, 1)
    return Plot("Validation", finish(figure, axes, "validation"), caption)


def _draw_schedule(log: Sequence[Epoch], end: int) -> Plot:
    figure, axes = _make_epoch_axes("probability", end)
    epochs = [epoch.epoch for epoch in log]
    _draw_line(axes, epochs, [epoch.probability for epoch in log], "ink", "P(supervised)")
    # One path of separate strokes per kind: thousands of epochs stay a small file.
    for name, low, high in (("supervised", 1.04, 1.12), ("unsupervised", -0.12, -0.04)):
        drawn = [epoch.epoch for epoch in log if epoch.step == name]
        x = np.repeat(np.asarray(drawn, float), 3)
        y = np.tile([low, high, np.nan], len(drawn))
        if drawn:
            axes.plot(x, y, color=COLOURS[name], lw=max(0.3, min(1.5, 180 / len(log))), label=name)
    axes.set_ylim(-0.16, 1.16)
    axes.set_yticks([0, 0.5, 1])
    turns = any(epoch.step == "turns" for epoch in log)
    caption = (
        "Probability that an update is supervised."
        if turns
        else "Probability that an epoch is supervised; ticks are the epochs as drawn: "
        "supervised above, unsupervised below."
    )
    return Plot("Schedule", finish(figure, axes, "curriculum"), caption)


def _make_epoch_axes(ylabel: str, end: int) -> tuple[Figure, Axes]:
    """Empty axes over all epochs, so that the panels line up."""
    figure, axes = make_axes("epoch", ylabel)
    margin = 0.02 * max(end, 1)
    axes.set_xlim(-margin, end + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10]))
    return figure, axes


def make_axes(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 2.7))
    axes = figure.add_axes((0.115, 0.175, 0.875, 0.72))  # left, bottom, width, height
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(COLOURS["rule"])
    axes.tick_params(color=COLOURS["rule"], labelcolor=COLOURS["muted"])
    axes.grid(axis="y", color=COLOURS["rule"], lw=0.5)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(COLOURS["muted"])
    return figure, axes


def _draw_line(
    axes: Axes, x: Sequence[int], y: Sequence[float], colour: str, label: str, style: str = "-"
) -> None:
    """A line with a gap, and a cross at the top, wherever a value is not finite."""
    values = np.asarray(y, float)
    finite = np.isfinite(values)
    marker = "o" if len(x) <= MARKED_POINTS else ""
    axes.plot(
        x,
        np.where(finite, values, np.nan),
        style,
        color=COLOURS[colour],
        marker=marker,
        ms=3,
        lw=1.4,
        label=label,
    )
    if not finite.all():
        lost = np.asarray(x)[~finite]
        axes.plot(
            lost,
            np.full(len(lost), 0.97),
            "x",
            color=COLOURS["unsupervised"],
            ms=5,
            transform=axes.get_xaxis_transform(),
            label=f"{label}: not finite",
        )


def finish(figure: Figure, axes: Axes, name: str, columns: int = 4) -> Markup:
    """The figure as SVG for the page, with a legend where there are several lines; ``name`` is
    unique on the page."""
    if axes.get_ylabel() == "loss":
        low, high = axes.dataLim.intervaly
        if low > 0 and 30 * low < high < np.inf:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_ylabel("loss (log scale)")
    if len(axes.get_legend_handles_labels()[1]) > 1:
        legend = axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=columns,
            frameon=False,
            borderaxespad=0.1,
            handlelength=1.6,
            labelcolor=COLOURS["ink"],
        )
        for line in legend.get_lines():
            line.set_linewidth(1.5)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):  # ids differ per figure
        figure.savefig(buffer, format="svg", transparent=True)
    return _inline(buffer.getvalue())


def _inline(svg: str) -> Markup:
    """Matplotlib's SVG document as a fragment for HTML: no prologue, metadata, style or generic ids
    (which would repeat from figure to figure), colours as CSS variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[A-Za-z]+[\w.]*_\d+"', "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg)
    svg = re.sub(r'font-family: [^;"]*;?', "", svg)  # the page's own
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return Markup(svg)


def encode_picture(values: ArrayLike) -> str:
    """A map with values in [0, 1] as the data URI of a grey PNG; what is not a number is black."""
    grey = np.nan_to_num(np.asarray(values, np.float32)).clip(0, 1) * 255
    buffer = io.BytesIO()
    Image.fromarray(grey.round().astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def trace_outline(values: ArrayLike, level: float) -> str:
    """SVG path data around everything above ``level``, in pixels with (0, 0) the image's corner."""
    padded: NDArray[np.float32] = np.pad(np.nan_to_num(np.asarray(values, np.float32)), 1)
    lines = cast(list[NDArray[np.float64]], contour_generator(z=padded).lines(level))
    # Padding shifts by one, and the value of a pixel belongs to its centre: −1 + ½.
    return "".join(
        "M" + "L".join(f"{x - 0.5:.1f} {y - 0.5:.1f}" for x, y in line) + "Z" for line in lines
    )
