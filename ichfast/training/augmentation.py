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
    limits = recipe.augmentation
    random = make_generator(recipe.training.seed, f"augmentation {step}", epoch)
    *placing, shifted, widened = random.uniform(-1, 1, (7, count))
    theta = make_theta(limits, limits.shift, *placing)
    return Warp(theta, make_windows(recipe, limits.level * shifted, limits.width**widened))


def make_theta(
    limits: AugmentationSettings,
    shift: float,
    flip: NDArray[np.float64],
    angle: NDArray[np.float64],
    scale: NDArray[np.float64],
    right: NDArray[np.float64],
    down: NDArray[np.float64],
) -> torch.Tensor:
    """(N, 2, 3), as `pool_batch` takes it, from numbers (N,) in [−1, 1]; ``shift`` is the largest,
    as a share of the side."""
    return augmentation(
        torch.from_numpy(flip < 2 * limits.flip - 1),
        to_tensor(math.radians(limits.rotation) * angle),
        to_tensor(limits.scale**scale),
        to_tensor(shift * np.stack([right, down], 1)),
    )


def make_windows(
    recipe: Recipe, shift: NDArray[np.float64], factor: NDArray[np.float64]
) -> torch.Tensor:
    """(N, 1, 2), as `pool_batch` takes them: the recipe's window, its level moved by ``shift`` (N,)
    HU and its width multiplied by ``factor`` (N,)."""
    level, width = recipe.data.window
    return to_tensor(np.stack([level + shift, width * factor], 1)[:, None])


def to_tensor(values: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))
