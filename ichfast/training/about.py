"""What a run's weights say about themselves in their file."""

from pathlib import Path
from typing import Any

import torch

import ichfast
from ichfast.data import SliceSet
from ichfast.evaluation.calibrate import calibrate
from ichfast.evaluation.calibration import Calibration
from ichfast.inference.description import DataSet, Description
from ichfast.models import ReducedUNet
from ichfast.team import Team
from ichfast.training.parts import Parts
from ichfast.training.recipe import Recipe

NOT_YET = "the run that made these weights has not come to its end"


def describe_weights(
    recipe: Recipe, parts: Parts, calibration: Calibration | None = None
) -> dict[str, Any]:
    """Ready for :func:`ichfast.models.to_bytes`. Where no ``calibration`` was made yet, that is
    said."""
    names = dict.fromkeys(("train", "validation"), recipe.data.labelled)
    names["unlabelled"] = recipe.data.unlabelled or recipe.data.labelled
    description = Description(
        size=recipe.data.size,
        window=recipe.data.window,
        threshold=recipe.evaluation.threshold,
        ichfast=ichfast.__version__,
        strategy=recipe.training.strategy,
        data={
            part: DataSet(
                name=Path(names[part]).name or "phantom",
                patients=len(set(slices.patients)),
                slices=len(slices),
            )
            for part, slices in parts.sets.items()
            if part in names
        },
        calibration=calibration or Calibration.make_empty(NOT_YET),
    )
    return description.model_dump(mode="json", exclude_none=False)


def calibrate_run(
    model: ReducedUNet, parts: Parts, recipe: Recipe, device: torch.device, team: Team
) -> Calibration:
    """On the run's validation patients, where that can be done."""
    slices = choose_scans(parts, recipe)
    if isinstance(slices, str):
        return Calibration.make_empty(slices)
    return calibrate(
        model,
        slices,
        threshold=recipe.evaluation.threshold,
        batch_size=recipe.evaluation.batch_size,
        device=device,
        team=team,
    )


def choose_scans(parts: Parts, recipe: Recipe) -> SliceSet | str:
    """Whole scans of the validation patients, or why there are none. Where a run trains on slices
    with haemorrhage alone, patients without any are in no part, unless they are tested on: they
    join, or nothing could be said of such scans."""
    if not len(parts.validation):
        return "the run had no validation patients (data.validation = 0)"
    if parts.split_by != "patient":
        return "the validation patients were trained on, too (data.split_by = slice)"
    if recipe.data.slices == "all":
        return parts.validation
    if recipe.data.test_slices != "all":
        return (
            "slices without haemorrhage were not read; data.slices = all or data.test_slices = all "
            "reads whole scans"
        )
    whole = parts.whole
    positive = {whole.patients[i] for i in whole.positive.nonzero()[:, 0].tolist()}
    taken = {*parts.train.patients, *parts.test.patients, *positive}
    if parts.unlabelled is not None:
        taken.update(parts.unlabelled.patients)
    chosen = (set(whole.patients) - taken) | set(parts.validation.patients)
    return whole.select([i for i, patient in enumerate(whole.patients) if patient in chosen])
