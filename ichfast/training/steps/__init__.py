"""The steps an epoch can take. A step knows its loss, its slices and its optimizer; running it for
one epoch changes the weights and its own state and nothing else, and depends on the epoch's number
and the recipe's seed alone, so that a resumed run repeats it exactly."""

from ichfast.training.steps.average import MovingAverage
from ichfast.training.steps.base import FORWARD, EpochResult, Step
from ichfast.training.steps.build import build_steps
from ichfast.training.steps.loss import (
    SupervisedLoss,
    bound_blank_loss,
    make_supervised_loss,
)

__all__ = [
    "FORWARD",
    "EpochResult",
    "MovingAverage",
    "Step",
    "SupervisedLoss",
    "bound_blank_loss",
    "build_steps",
    "make_supervised_loss",
]
