"""The scan score of weights that have seen everybody: of models trained alike on all folds."""

import json
from pathlib import Path

import numpy as np

from ichfast.errors import DataError
from ichfast.evaluation.calibrate import Scans, fit_scan_score
from ichfast.evaluation.calibration import ScanScore
from ichfast.training import Recipe, recipe
from ichfast.training.folder import RECIPE, SLICES
from ichfast.weights.card import Card

FOLDS = "scheme80/fold*/supervised-seed0"


def read_scan_score(runs: Path, card: Card) -> ScanScore:
    """From the ``slices.json`` of Table 1's five folds of the baseline below ``runs``: the mask of
    each patient by the one model that was not trained on them."""
    pixels: dict[int, list[int]] = {}
    blood: dict[int, bool] = {}
    folders = sorted(runs.glob(FOLDS))
    for folder in folders:
        try:
            columns = json.loads((folder / SLICES).read_text(encoding="utf-8"))
            keys = ("patient", "tp", "fp", "fn", "subtypes")
            rows = list(zip(*(columns[key] for key in keys), strict=True))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder / SLICES} has no slices of a run ({error}).") from error
        check_recipe(folder, card)
        if pixels.keys() & {row[0] for row in rows}:
            raise DataError(f"{folder}: its patients are tested in another fold, too.")
        for patient, tp, fp, fn, kinds in rows:
            pixels.setdefault(patient, []).append(tp + fp)
            blood[patient] = blood.get(patient, False) or bool(kinds) or tp + fn > 0
    if len(pixels) != card.data.patients:
        raise DataError(
            f"{runs}: {len(folders)} folds ({FOLDS}) test {len(pixels)} patients, and the weights "
            f"were trained on {card.data.patients}; give the folder of a whole Table 1."
        )
    masks = np.array([np.mean(own) for own in pixels.values()])
    volumes = np.column_stack([masks] * 4)
    scans = Scans(np.array(list(blood.values())), volumes, np.full_like(volumes, np.nan))
    score = fit_scan_score(scans)
    if isinstance(score, str):
        raise DataError(f"{runs}: no scan score: {score}.")
    return score


def check_recipe(folder: Path, card: Card) -> None:
    """Raise unless the fold's masks are of the card's size, window and threshold."""
    own = recipe.read(folder / RECIPE, Recipe())
    found = own.data.size, own.data.window, own.evaluation.threshold
    wanted = card.size, card.window, card.threshold
    if found != wanted:
        raise DataError(
            f"{folder} has size, window and threshold {found}, and the weights have {wanted}; give "
            "runs of the same recipe."
        )
