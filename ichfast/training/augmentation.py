"""Augmentation as the recipe says, drawn anew each epoch. It is drawn for all of the epoch's slices
at once and from the epoch's number alone, so that neither the batch size nor a resume changes it.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from ichfast.data import Warp
from ichfast.ops.pool_batch import augmentation
from ichfast.training.recipe import Recipe
from ichfast.training.seeding import make_generator
from ichfast.training.settings import AugmentationSettings


def draw(recipe: Recipe, step: str, epoch: int, count: int) -> Warp | None:
    """For the ``count`` slices of an epoch, in their order; None where the recipe has none.

    Angle, shifts and level are uniform within their limits either way, zoom and the window's width
    uniform in their logarithm.
    """
    if recipe.augmentation == AugmentationSettings():
        return None
    limits, (level, width) = recipe.augmentation, recipe.data.window
    random = make_generator(recipe.training.seed, f"augmentation {step}", epoch)
    flip, angle, scale, right, down, shifted, widened = random.uniform(-1, 1, (7, count))

    def tensor(values: NDArray[np.float64]) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32))

    theta = augmentation(
        torch.from_numpy(flip < 2 * limits.flip - 1),
        tensor(math.radians(limits.rotation) * angle),
        tensor(limits.scale**scale),
        tensor(limits.shift * np.stack([right, down], 1)),
    )
    windows = [level + limits.level * shifted, width * limits.width**widened]
    return Warp(theta, tensor(np.stack(windows, 1)[:, None]))
