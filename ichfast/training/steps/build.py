"""From a strategy's steps to those of a run."""

from collections.abc import Mapping

import torch

from ichfast.data import SliceSet
from ichfast.models import ReducedUNet
from ichfast.team import ALONE, Team
from ichfast.training.recipe import Recipe
from ichfast.training.steps.average import MovingAverage
from ichfast.training.steps.base import Step


def build_steps(
    classes: Mapping[str, type[Step]],
    model: ReducedUNet,
    labelled: SliceSet,
    unlabelled: SliceSet | None,
    recipe: Recipe,
    device: torch.device,
    team: Team = ALONE,
    average: MovingAverage | None = None,
) -> dict[str, Step]:
    """A step of each class, on one model."""
    steps = {
        name: step(model, labelled, recipe, device, team, unlabelled=unlabelled, average=average)
        for name, step in classes.items()
    }
    for step in steps.values():
        for size in step.list_batch_sizes():  # now, and not in an hour
            team.share(size)
    return steps
