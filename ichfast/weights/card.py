"""The card of weights that ship: what they were made of, how good they are, what they are for."""

from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from ichfast.errors import CheckpointError
from ichfast.evaluation.calibration import ScanScore
from ichfast.records import Record, describe_fault

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]


class Data(Record):
    """A data set that weights were trained on, and what its licence asks to be said."""

    name: Text
    version: Text
    layout: Text
    """ichfast's name of it"""
    patients: Count
    slices: Count
    licence: Text
    attribution: Text


class Score(Record):
    """A score with its 95 % interval over patients; None where there is none."""

    label: Text
    unit: str = ""
    estimate: float | None
    low: float | None
    high: float | None


class CrossValidation(Record):
    """What models trained in the same way are worth on patients that they have not seen: these
    weights themselves have seen all."""

    about: Text
    differences: tuple[str, ...]
    """what else those models' recipe has than that of the weights, beside who is trained on"""
    scores: dict[str, Score]
    scan: ScanScore | None = None
    """of those models' masks, each on scans that it had not seen"""


class Card(Record):
    """Everything that has to be said of weights."""

    name: Text
    data: Data
    fingerprint: Text
    """sha256 of the slices trained on, as they were read"""
    recipe: Text
    """TOML, as in a run's recipe.toml, without the data's folder"""
    ichfast: Text
    commit: str | None
    """of ichfast's checkout; None where it was none, and with "+" where it had been changed"""
    size: Count
    """side of the slices in pixels"""
    window: tuple[float, float]
    """level and width in HU"""
    threshold: Annotated[float, Field(ge=0, le=1)]
    """probability above which a pixel is haemorrhage"""
    cross_validation: CrossValidation | None
    intended_use: Text
    not_for: Text

    @model_validator(mode="after")
    def check(self) -> Self:
        if self.window[1] <= 1:
            raise ValueError(f"window: its width {self.window[1]:g} must be above 1 HU")
        return self


def parse_card(text: str, source: Any) -> Card:
    """The card in a JSON text; CheckpointError that names ``source`` where it is not one."""
    try:
        return Card.model_validate_json(text)
    except ValidationError as error:
        raise CheckpointError(
            f"{source}: the card of these weights is not valid: "
            f"{describe_fault(error, 'the card')}."
        ) from error
