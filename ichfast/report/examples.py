"""The examples of a run in the viewer, where the window and the threshold can be moved."""

from collections.abc import Sequence

import numpy as np

from ichfast.report.run import Run
from ichfast.viewer import StudyPage, quantise, render_page


def find_threshold(run: Run) -> float:
    """Above which a probability is blood in this run's test."""
    return float((run.metrics.get("test") or {}).get("threshold", 0.5))


def render_examples(run: Run, dice: Sequence[str]) -> str:
    """A page with the slices of ``examples.safetensors``, of which these are the scores."""
    threshold = find_threshold(run)
    level, width = run.window
    image, mask = (_read_unit(run.examples[name]) for name in ("image", "mask"))
    labels = [f"Dice {score}" for score in dice]
    if len(labels) > 1:
        labels[0] += ", the worst"
        labels[-1] += ", the best"
    return render_page(
        StudyPage(
            title=f"Examples of {run.name}",
            hu=np.round(level + (image - 0.5) * width).astype(np.int16),
            probability=quantise(mask, threshold),
            threshold=threshold,
            window=run.window,
            target=run.examples["target"][:, 0] > 0,
            labels=labels,
            one_scan=False,
            facts=[
                ("Slices", "of the test part, at evenly spaced ranks of Dice; none is hand-picked"),
                ("HU", f"cut off beyond the run's window, {level:g} ± {width / 2:g}"),
            ],
            credit="Made by ichfast from the run folder alone; this file needs no network.",
        )
    )


def _read_unit(values: np.ndarray) -> np.ndarray:
    """(N, H, W) of (N, 1, H, W) in [0, 1]; what is not a number is 0."""
    unit: np.ndarray = np.nan_to_num(values[:, 0].astype(np.float32)).clip(0, 1)
    return unit
