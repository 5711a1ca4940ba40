"""What a file of weights says about its model beside the weights: enough to use it alone."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from ichfast.errors import CheckpointError
from ichfast.evaluation.calibration import Calibration
from ichfast.models import ReducedUNet
from ichfast.records import Record, describe_fault
from ichfast.weights.card import Card, parse_card

Text = Annotated[str, Field(min_length=1)]
NAME = r"[^\x00-\x1f/\\]+"
"""what may be part of the names of files, and of DICOM"""
LARGEST = 4096
"""pixels of a slice's side, beyond which no memory would do"""
FARTHEST_HU = 1e6


class DataSet(Record):
    """A set of slices that a model was trained with."""

    name: Text
    """of its folder, without the way there"""
    patients: Annotated[int, Field(ge=0)]
    slices: Annotated[int, Field(ge=0)]


class Description(Record):
    """In the metadata of ``model.safetensors``, under "ichfast", beside the architecture."""

    size: Annotated[int, Field(ge=1, le=LARGEST)]
    """side of the slices in pixels"""
    window: tuple[float, float]
    """level and width in HU"""
    threshold: Annotated[float, Field(ge=0, le=1)]
    """probability above which a pixel is haemorrhage, before any calibration"""
    ichfast: Text
    """version that trained it"""
    strategy: Text
    data: dict[str, DataSet]
    """by part of the training: "train", "validation", "unlabelled" """
    calibration: Calibration
    name: Annotated[str, Field(pattern=rf"\A{NAME}\z")] | None = None
    licence: Text | None = None
    attribution: Text | None = None

    @model_validator(mode="after")
    def check(self) -> Self:
        if self.window[1] <= 1:
            raise ValueError(f"window: its width {self.window[1]:g} must be above 1 HU")
        if max(map(abs, self.window)) > FARTHEST_HU:
            raise ValueError(f"window: {self.window} is beyond {FARTHEST_HU:g} HU")
        return self


def describe(model: ReducedUNet, about: Mapping[str, Any], path: Path) -> Description:
    """From what a file says about its model. CheckpointError where that is not enough, or wrong."""
    if "card" in about:
        description = describe_card(parse_card(json.dumps(about["card"]), path))
    elif not about:
        raise CheckpointError(
            f"{path} does not say which size and window its model takes, as weights of before do "
            "not; give its run folder, or make a file that stands alone of that by python -m "
            "ichfast.export RUN."
        )
    else:
        description = parse(json.dumps(about), path)
    check_size(model, description.size, path)
    return description


def describe_run(model: ReducedUNet, recipe: Path, name: str) -> Description:
    """From the recipe.toml of a run whose weights say nothing about themselves."""
    try:
        sections = tomllib.loads(recipe.read_text(encoding="utf-8"))
        data = sections["data"]
        values = {
            "size": data["size"],
            "window": data["window"],
            "threshold": sections["evaluation"]["threshold"],
            "ichfast": "unknown",
            "strategy": sections["training"]["strategy"],
            "data": {},
            "name": name,
            "calibration": Calibration.make_empty(
                "the run is of a version of ichfast that did not calibrate"
            ).model_dump(),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{recipe} is not the recipe of a run, which has data.size, data.window, "
            "evaluation.threshold and training.strategy; give the folder of a run as it was "
            "written."
        ) from error
    description = parse(json.dumps(values), recipe)
    check_size(model, description.size, recipe)
    return description


def describe_card(card: Card) -> Description:
    """Of weights that ship."""
    data = DataSet(
        name=f"{card.data.name} {card.data.version}",
        patients=card.data.patients,
        slices=card.data.slices,
    )
    return Description(
        size=card.size,
        window=card.window,
        threshold=card.threshold,
        ichfast=card.ichfast,
        strategy=tomllib.loads(card.recipe).get("training", {}).get("strategy", "unknown"),
        data={"train": data},
        calibration=calibrate_card(card),
        name=card.name,
        licence=card.data.licence,
        attribution=card.data.attribution,
    )


def calibrate_card(card: Card) -> Calibration:
    """What can be said of weights that have seen all patients."""
    empty = Calibration.make_empty(
        f"trained on all {card.data.patients} patients of {card.data.name}, so nobody was left to "
        "calibrate on"
    )
    scan = card.cross_validation and card.cross_validation.scan
    if not scan:
        return empty
    return Calibration(
        temperature=None,
        volume=None,
        scan=scan,
        patients=scan.positive + scan.negative,
        reasons={name: why for name, why in empty.reasons.items() if name != "scan"},
        source=f"{card.data.name}, judged by models trained alike on other patients",
    )


def parse(text: str, path: Path) -> Description:
    """The description in a JSON text; CheckpointError that names ``path`` where it is not one."""
    try:
        return Description.model_validate_json(text)
    except ValidationError as error:
        raise CheckpointError(
            f"{path} does not describe a model of this version of ichfast: "
            f"{describe_fault(error, 'the description')}; make the file again with python -m "
            "ichfast.export RUN."
        ) from error


def check_size(model: ReducedUNet, size: int, path: Path) -> None:
    multiple = 2 ** (len(model.channels) - 1)
    if size % multiple:
        raise CheckpointError(
            f"{path}: size {size} is no multiple of {multiple}, as the poolings of its model need; "
            "give the file as it was written."
        )
