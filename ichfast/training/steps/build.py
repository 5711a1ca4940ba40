"""From a strategy's steps to those of a run."""

from collections.abc import Mapping

import numpy as np
import torch

from ichfast.data import SliceSet
from ichfast.models import ReducedUNet
from ichfast.models.synced import synchronise
from ichfast.team import ALONE, Team
from ichfast.training.recipe import Recipe
from ichfast.training.steps.base import Step, split_evenly


def build_steps(
    classes: Mapping[str, type[Step]],
    model: ReducedUNet,
    labelled: SliceSet,
    unlabelled: SliceSet | None,
    recipe: Recipe,
    device: torch.device,
    team: Team = ALONE,
) -> dict[str, Step]:
    """A step of each class, on one model."""
    synchronise(model, team)
    if team.size > 1:
        sizes = [recipe.supervised.batch_size]
        sizes += [] if unlabelled is None else [recipe.unsupervised.batch_size]
        for size in sizes:  # now, and not in an hour
            team.share(min(map(len, split_evenly(np.arange(len(labelled)), size))))
    return {
        name: step(model, labelled, recipe, device, team, unlabelled=unlabelled)
        for name, step in classes.items()
    }
