"""The same test slices through several rows' models, from the worst to the best: Figure 3."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ichfast import metrics, models
from ichfast.data import SCHEMES
from ichfast.evaluation.evaluate import switch_to_inference
from ichfast.evaluation.examples import rank_evenly
from ichfast.reproduce.collect import read_json
from ichfast.reproduce.plan import Cell, Plan, has_ended
from ichfast.reproduce.rows import BASELINE, METHOD, SHOWN
from ichfast.training.folder import SLICES, WEIGHTS
from ichfast.training.parts import Load, load_parts

COUNT = 6


@dataclass(frozen=True)
class Examples:
    """N slices of a fold's test side, of evenly spaced ranks of the method's Dice."""

    scheme: int
    fold: int
    seed: int
    images: NDArray[np.float32]  # (N, S, S)
    targets: NDArray[np.uint8]
    predictions: dict[str, NDArray[np.float32]]  # row -> (N, S, S) probabilities
    dice: dict[str, list[float]]  # row -> N
    threshold: float


def make_examples(plan: Plan, out: Path, load: Load) -> Examples | None:
    """Of the largest scheme that has a fold with both method and baseline; None where none has."""
    for scheme in sorted(SCHEMES, reverse=True):
        for first in plan.select(METHOD, scheme):
            place = (first.fold, first.seed)
            cells = {
                row: cell
                for row in SHOWN
                for cell in plan.select(row, scheme)
                if (cell.fold, cell.seed) == place and _is_tested(cell, out)
            }
            if METHOD in cells and BASELINE in cells:
                return _predict(cells, out, load)
    return None


def _is_tested(cell: Cell, out: Path) -> bool:
    return has_ended(cell, out) and (out / cell.path / SLICES).exists()


def _predict(cells: dict[str, Cell], out: Path, load: Load) -> Examples:
    counts = {row: _read_counts(read_json(out / cell.path / SLICES)) for row, cell in cells.items()}
    scores = {row: metrics.dice(one) for row, one in counts.items()}
    method = cells[METHOD]
    tp, _, fn = counts[METHOD].unbind(1)
    with_blood = (tp + fn > 0).nonzero()[:, 0]
    index, _ = rank_evenly(with_blood, scores[METHOD], COUNT)
    test = load_parts(method.recipe, out, load).test
    images, targets = test.batch(index)
    assert targets is not None
    predictions = {}
    for row, cell in cells.items():
        model = models.load(out / cell.path / WEIGHTS)
        with switch_to_inference(model):
            predictions[row] = torch.sigmoid(model.segment(images))[:, 0].numpy()
    return Examples(
        method.scheme,
        method.fold,
        method.seed,
        images[:, 0].numpy(),
        targets[:, 0].numpy(),
        predictions,
        {row: values[index].tolist() for row, values in scores.items()},
        method.recipe.evaluation.threshold,
    )


def _read_counts(columns: dict[str, Any]) -> Tensor:
    """(N, 3) TP, FP, FN of a run's ``slices.json``."""
    return torch.tensor([columns[name] for name in ("tp", "fp", "fn")]).T
