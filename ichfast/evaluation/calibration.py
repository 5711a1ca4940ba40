"""What validation patients say of a model's numbers: how sure its probabilities are, how far its
volumes are off, and from which volume on a scan is called positive.

Every part may be missing, and `Calibration.reasons` then says why: nothing is made up for a model
that had nobody to calibrate on. ``docs/metrics.md`` has the methods.
"""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ichfast.records import Record

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Unit = Literal["mL", "pixels per slice"]
"""of a scan's volume: pixels of the network's own grid, where mL are not known; their mean over
slices, so that it matters little how thick these are"""


class VolumeInterval(Record):
    """A conformal interval for the volume of a scan's haemorrhage in mL.

    The model gives two volumes: that of the voxels it is sure of, and that of those it cannot rule
    out. ``margin`` is what has to be added to both ends so that the share ``level`` of scans has
    its true volume between them (conformalized quantile regression: Romano et al., NeurIPS 2019;
    with a network's thresholds: Lambert et al., MICCAI 2024), on the scale of the cube root of
    volumes, on which the error hardly grows with the size of a bleed.
    """

    level: Share
    thresholds: tuple[Share, Share]
    """calibrated probabilities: of the voxels that the model is sure of, and cannot rule out"""
    margin: float
    scans: Count
    """that it was fitted on, one of each patient: with blood, or where the model sees some"""

    @model_validator(mode="after")
    def check(self) -> Self:
        if self.thresholds[0] < self.thresholds[1]:
            raise ValueError("thresholds: the sure one must come first and be the higher")
        return self

    def find(self, sure: float, possible: float) -> tuple[float, float]:
        """The ends of the interval from the volumes above the two thresholds, in mL."""
        low = max(math.cbrt(sure) - self.margin, 0.0) ** 3
        return low, max(math.cbrt(possible) + self.margin, math.cbrt(low)) ** 3


class ScanScore(Record):
    """Whether there is any blood in a scan, by the volume of its mask."""

    unit: Unit
    threshold: Annotated[float, Field(ge=0)]
    """volume above which a scan is called positive"""
    sensitivity: Share
    specificity: Share
    """of patients whose own scan had no part in choosing the threshold (leave-one-out)"""
    positive: Count
    negative: Count
    """scans of these two shares, one of each patient"""
    intercept: float
    slope: float
    """of the logistic regression of blood on the cube root of the volume"""

    def estimate_probability(self, volume: float) -> float:
        """That there is blood in a scan with a mask of this volume, among scans of which as many
        have blood as among those that it was fitted on."""
        logit = self.intercept + self.slope * math.cbrt(volume)
        return 0.5 * (1 + math.tanh(logit / 2))  # the sigmoid, without overflow


class Calibration(Record):
    """Fitted on patients that a model was not trained on."""

    temperature: Annotated[float, Field(gt=0)] | None
    """what logits are divided by; the probabilities that a mask is made of move with it, and so
    does the threshold, so that the mask stays"""
    volume: VolumeInterval | None
    scan: ScanScore | None
    patients: Count
    reasons: dict[str, str]
    """of each part that is None: why"""
    source: str = "validation patients of the training"
    """whose scans these are"""

    @classmethod
    def make_empty(cls, reason: str) -> Self:
        """Where there is none."""
        return cls(
            temperature=None,
            volume=None,
            scan=None,
            patients=0,
            reasons=dict.fromkeys(("temperature", "volume", "scan"), reason),
        )

    @model_validator(mode="after")
    def check(self) -> Self:
        missing = {
            name for name in ("temperature", "volume", "scan") if getattr(self, name) is None
        }
        if missing != self.reasons.keys():
            raise ValueError("reasons: must be those of the parts that are missing")
        return self

    @property
    def thresholds(self) -> tuple[float, float] | None:
        """The probabilities above which `interval` wants the volumes."""
        return None if self.volume is None else self.volume.thresholds

    def interval(self, volumes: tuple[float, float]) -> tuple[float, float] | None:
        """The ends of the interval from the volumes above the two `thresholds`; None without."""
        return None if self.volume is None else self.volume.find(*volumes)

    def move_threshold(self, threshold: float) -> float:
        """The calibrated probability of what had this one before."""
        if self.temperature is None or threshold in (0.0, 0.5, 1.0):
            return threshold
        logit = math.log(threshold / (1 - threshold)) / self.temperature
        return 0.5 * (1 + math.tanh(logit / 2))
