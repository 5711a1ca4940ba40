"""What a network is shown of a slice: how views of slices are drawn for an epoch, and made.

A view is drawn for all of an epoch's slices at once and from the epoch's number alone, so that
neither the batch size, nor a resume, nor the number of processes changes it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ichfast.data import SliceSet, Warp
from ichfast.training import augmentation
from ichfast.training.recipe import Recipe


class View(NamedTuple):
    """How each of some slices is shown. What is None is left as it is."""

    warp: Warp | None = None

    def select(self, places: NDArray[np.int64]) -> "View":
        """The views of some of the slices."""
        return View(*(part and part.select(places) for part in self))


def draw_view(recipe: Recipe, step: str, epoch: int, count: int) -> View | None:
    """Of ``count`` unlabelled slices, in their order; None where the recipe changes nothing."""
    warp = augmentation.draw(recipe, step, epoch, count)
    return None if warp is None else View(warp)


def draw_labelled_view(
    labelled: SliceSet, places: NDArray[np.int64], recipe: Recipe, epoch: int
) -> View | None:
    """Of the epoch's labelled slices, in the order in which they are drawn: ``places`` (N,) in
    ``labelled``, where a slice may come several times, each with a view of its own."""
    return draw_view(recipe, "supervised", epoch, len(places))


def render(
    slices: SliceSet, places: NDArray[np.int64], view: View | None = None
) -> tuple[Tensor, Tensor | None]:
    """Images (B, 1, S, S) float32 in [0, 1] and masks (B, 1, S, S) uint8 (None where there are
    none) of the slices at ``places`` (B,), as ``view`` shows them."""
    view = view or View()
    return slices.batch(places, view.warp)
