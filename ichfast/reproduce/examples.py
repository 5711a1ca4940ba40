"""The same test slices through several rows' models, from the worst to the best: Figure 3."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ichfast import metrics, models
from ichfast.evaluation.evaluate import switch_to_inference
from ichfast.evaluation.examples import rank_evenly
from ichfast.reproduce.collect import read_json
from ichfast.reproduce.plan import Cell, Plan, has_ended
from ichfast.reproduce.studies import BASELINE
from ichfast.training.folder import SLICES, WEIGHTS
from ichfast.training.parts import Load, load_parts

COUNT = 6


@dataclass(frozen=True)
class Examples:
    """N slices of a fold's test side, of evenly spaced ranks of the method's Dice."""

    protocol: str
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
    method = plan.study.method
    columns = sorted(plan.study.list_columns(), key=lambda column: -column.scheme)
    for protocol, scheme in columns:
        for first in plan.select(method, scheme, protocol=protocol):
            place = (first.fold, first.seed)
            cells = {
                row: cell
                for row in plan.study.shown
                for cell in plan.select(row, scheme, protocol=protocol)
                if (cell.fold, cell.seed) == place and _is_tested(cell, out)
            }
            if method in cells and BASELINE in cells:
                return _predict(cells, method, out, load)
    return None


def _is_tested(cell: Cell, out: Path) -> bool:
    """Whether its slices and its weights are there."""
    return has_ended(cell, out) and all((out / cell.path / n).exists() for n in (SLICES, WEIGHTS))


def _predict(cells: dict[str, Cell], chosen: str, out: Path, load: Load) -> Examples:
    counts = {row: _read_counts(read_json(out / cell.path / SLICES)) for row, cell in cells.items()}
    scores = {row: metrics.dice(one) for row, one in counts.items()}
    method = cells[chosen]
    tp, _, fn = counts[chosen].unbind(1)
    with_blood = (tp + fn > 0).nonzero()[:, 0]
    index, _ = rank_evenly(with_blood, scores[chosen], COUNT)
    test = load_parts(method.recipe, out, load).test
    images, targets = test.batch(index)
    assert targets is not None
    predictions = {}
    for row, cell in cells.items():
        model = models.load(out / cell.path / WEIGHTS)
        with switch_to_inference(model):
            predictions[row] = torch.sigmoid(model.segment(images))[:, 0].numpy()
    return Examples(
        method.protocol,
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
