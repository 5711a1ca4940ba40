"""From a strategy's steps to those of a run."""

from collections.abc import Mapping

import torch

from ichfast.data import SliceSet
from ichfast.errors import RecipeError
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
            check_statistics(size, recipe)
    return steps


def check_statistics(batch_size: int, recipe: Recipe) -> None:
    """Raise where batch normalisation would have one value of a channel, which has no variance."""
    side = recipe.data.size // 2 ** (len(recipe.model.channels) - 1)
    if batch_size * side**2 == 1:
        raise RecipeError(
            f"data.size = {recipe.data.size} with {len(recipe.model.channels)} levels of "
            "model.channels and batches of one slice leaves batch normalisation one value per "
            "channel at the deepest; raise data.size or the batch sizes, or take fewer levels."
        )
