"""What a band of HU alone reaches, tuned on the training side of a fold: no model is worth its
training below that."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ichfast.data import SliceSet
from ichfast.evaluation import Evaluation, tabulate
from ichfast.evaluation.surface import TOLERANCES, Surface
from ichfast.evaluation.thresholds import tune_thresholds
from ichfast.reproduce.plan import Cell
from ichfast.training.parts import Load, load_parts


def measure_floor(cell: Cell, out: Path, load: Load) -> dict[str, Any]:
    """Columns as those of a ``slices.json``, without outlines, of the cell's test slices: blood is
    what the band calls so that has the best pooled Dice on its labelled training slices."""
    parts = load_parts(cell.recipe, out, load)
    hu, masks = _read_pixels(parts.train)
    band = tune_thresholds(hu, masks)["band"]
    hu, masks = _read_pixels(parts.test)
    called = (hu >= band["low"]) & (hu < (np.inf if band["high"] is None else band["high"]))
    counts = [
        (called & masks).sum((1, 2)),
        (called & ~masks).sum((1, 2)),
        (~called & masks).sum((1, 2)),
    ]
    unknown = Surface(np.full(len(hu), np.nan), np.full((len(hu), len(TOLERANCES)), np.nan))
    areas = torch.from_numpy(called.sum((1, 2), dtype=np.float64))
    found = Evaluation(torch.from_numpy(np.stack(counts, 1)), areas, {}, None, unknown)
    return tabulate(parts.test, found, parts.whole)


def _read_pixels(slices: SliceSet) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """(N, S, S) HU and masks."""
    assert slices.masks is not None
    return slices.hu[slices.rows].numpy(), slices.masks[slices.rows].numpy().astype(bool)
