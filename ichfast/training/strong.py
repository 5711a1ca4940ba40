"""The strong view of an unlabelled slice, from which a network learns what another view of the same
slice tells: on top of the slice's own augmentation, its window moves, its grey levels change, and a
rectangle of it comes from another slice of the batch (CutMix; Yun et al., ICCV 2019)."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ichfast.data import Warp
from ichfast.ops.paste import paste
from ichfast.training.augmentation import to_tensor
from ichfast.training.recipe import Recipe
from ichfast.training.seeding import make_generator
from ichfast.training.views import Greys, View, make_greys

AREA = (0.02, 0.4)
"""share of the image that a rectangle takes; UniMatch's (Yang et al., CVPR 2023), as the next"""
ASPECT = (0.3, 1 / 0.3)
"""height / width of a rectangle"""


class Strong(NamedTuple):
    """How each of the N images of a batch is shown to a student."""

    warp: Warp
    greys: Greys
    boxes: Tensor  # (N, 4) float32: left, top, right, bottom in sides of the image; empty: none
    partners: Tensor  # (N,) int64: of which image of the batch the rectangle is

    def select(self, places: NDArray[np.int64]) -> "Strong":
        """Those of some of the images; their partners are still counted in the whole batch."""
        chosen = torch.from_numpy(places)
        return Strong(
            self.warp.select(places),
            self.greys.select(places),
            self.boxes[chosen],
            self.partners[chosen],
        )


def draw_strong(recipe: Recipe, view: View | None, purpose: str, epoch: int, count: int) -> Strong:
    """Of the ``count`` images of a batch, which ``view`` shows to the teacher."""
    limits = recipe.strong
    random = make_generator(recipe.training.seed, f"strong {purpose}", epoch)
    shift, factor, exponent, blur = random.uniform(-1, 1, (4, count))
    theta, windows = (view and view.warp) or Warp.plain(recipe.data.window, count)
    level, width = windows.unbind(-1)
    level = level + to_tensor(limits.level * shift)[:, None]
    width = width * to_tensor(limits.width**factor)[:, None]
    greys = make_greys(
        limits.gamma**exponent,
        limits.blur * blur.clip(0),
        np.full(count, limits.noise),
        random.integers(2**62, size=count),
        width[:, 0],
    )
    boxes = draw_boxes(random, count)
    boxes[random.random(count) >= limits.cutmix] = 0
    partners = torch.from_numpy(draw_partners(random, count))
    return Strong(Warp(theta, torch.stack([level, width], -1)), greys, to_tensor(boxes), partners)


def draw_boxes(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    """(N, 4), as of :class:`Strong`: area and aspect uniform within their limits, no side longer
    than the image's, placed uniformly inside."""
    area, aspect = random.uniform(*AREA, count), random.uniform(*ASPECT, count)
    width, height = np.sqrt(area / aspect).clip(max=1), np.sqrt(area * aspect).clip(max=1)
    left, top = random.random((2, count)) * (1 - np.stack([width, height]))
    return np.stack([left, top, left + width, top + height], 1)


def draw_partners(random: np.random.Generator, count: int) -> NDArray[np.int64]:
    """(N,) a partner for each image, another one where there is one: the next in a circle."""
    circle = random.permutation(count)
    partners = np.empty_like(circle)
    partners[circle] = np.roll(circle, -1)
    return partners


def mark_boxes(boxes: Tensor, size: int) -> Tensor:
    """(B, 1, S, S) bool: the pixels whose centres are inside."""
    centres = (torch.arange(size, device=boxes.device) + 0.5) / size
    left, top, right, bottom = boxes[:, :, None].unbind(1)
    columns = (centres >= left) & (centres < right)
    rows = (centres >= top) & (centres < bottom)
    return (rows[:, :, None] & columns[:, None])[:, None]


def cut_and_mix(
    images: Tensor, targets: Tensor, others: tuple[Tensor, Tensor], boxes: Tensor
) -> tuple[Tensor, Tensor]:
    """Images and targets (B, 1, S, S), floating, with those of their partners in the boxes."""
    region = mark_boxes(boxes.to(images.device, non_blocking=True), images.shape[-1])
    sharp = torch.zeros(len(images), device=images.device)
    image, target = paste(images, targets, *others, region, feather=sharp)
    assert target is not None
    return image, target
