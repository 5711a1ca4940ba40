"""What a run's weights say about themselves in their file."""

from pathlib import Path
from typing import Any

import ichfast
from ichfast.evaluation.calibration import Calibration
from ichfast.inference.description import DataSet, Description
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
