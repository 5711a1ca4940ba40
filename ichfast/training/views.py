"""What a network is shown of a slice: how views of slices are drawn for an epoch, and made.

A view is drawn for all of an epoch's slices at once and from the epoch's number alone, so that
neither the batch size, nor a resume, nor the number of processes changes it.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ichfast.data import SliceSet, Warp
from ichfast.ops.paste import paste
from ichfast.ops.strong_view import strong_view
from ichfast.training.augmentation import draw, make_theta, to_tensor
from ichfast.training.recipe import Recipe
from ichfast.training.seeding import make_generator
from ichfast.training.settings import AugmentationSettings

FEATHER = 1.0
"""standard deviation of a pasted lesion's soft edge, in pixels: about what resampling and the
scanner's own blur leave of a sharp one"""
TISSUE = (0.1, 0.95)
"""Grey levels of an image that a lesion may be pasted over. In the paper's window they are −8 to
94 HU: liquor, brain and blood, but neither air and fat below nor bone above; in any window they
leave out what it clips."""


class Greys(NamedTuple):
    """How the grey levels of N images change: what `strong_view` takes."""

    gamma: Tensor  # (N,) float32, exponents
    blur: Tensor  # (N,) float32, standard deviations in pixels
    noise: Tensor  # (N,) float32, standard deviations in widths of the window
    seed: Tensor  # (N,) int64

    def select(self, places: NDArray[np.int64]) -> "Greys":
        return Greys(*(values[torch.from_numpy(places)] for values in self))


class Donors(NamedTuple):
    """Whose lesions are pasted into N images."""

    places: NDArray[np.int64]  # (N,) in the labelled set; −1: nobody's
    theta: Tensor  # (N, 2, 3), how the donor is placed

    def select(self, places: NDArray[np.int64]) -> "Donors":
        return Donors(self.places[places], self.theta[torch.from_numpy(places)])


class View(NamedTuple):
    """How each of some slices is shown. What is None is left as it is."""

    warp: Warp | None = None
    donors: Donors | None = None
    greys: Greys | None = None

    def select(self, places: NDArray[np.int64]) -> "View":
        """The views of some of the slices."""
        warp, donors, greys = self
        return View(
            warp and warp.select(places),
            donors and donors.select(places),
            greys and greys.select(places),
        )


def draw_view(recipe: Recipe, step: str, epoch: int, count: int) -> View | None:
    """Of ``count`` unlabelled slices, in their order; None where the recipe changes nothing."""
    warp = draw(recipe, step, epoch, count)
    return None if warp is None else View(warp)


def draw_labelled_view(
    labelled: SliceSet, places: NDArray[np.int64], recipe: Recipe, epoch: int
) -> View | None:
    """Of the epoch's labelled slices, in the order in which they are drawn: ``places`` (N,) in
    ``labelled``, where a slice may come several times, each with a view of its own. None where the
    recipe changes nothing."""
    if recipe.augmentation == AugmentationSettings():
        return None
    random = make_generator(recipe.training.seed, "pasted", epoch)
    pasted = random.random(len(places)) < recipe.augmentation.paste
    return draw_masked_view(labelled, places, pasted, recipe, "supervised", epoch)


def draw_masked_view(
    labelled: SliceSet,
    places: NDArray[np.int64],
    pasted: NDArray[np.bool_],
    recipe: Recipe,
    step: str,
    epoch: int,
) -> View:
    """Of N slices whose masks are known, ``places`` (N,) in ``labelled`` or −1: with lesions of
    ``labelled`` in those that are ``pasted`` (N,)."""
    count = len(places)
    warp = draw(recipe, step, epoch, count) or Warp.plain(recipe.data.window, count)
    donors = draw_donors(labelled, places, pasted, recipe, step, epoch) if pasted.any() else None
    return View(warp, donors, draw_greys(recipe, step, epoch, warp.windows[:, 0, 1]))


def draw_donors(
    labelled: SliceSet,
    places: NDArray[np.int64],
    pasted: NDArray[np.bool_],
    recipe: Recipe,
    step: str,
    epoch: int,
) -> Donors:
    """For each of the ``pasted`` of N images a slice with haemorrhage, another one than the image's
    own at ``places``. Each is mirrored, turned and zoomed as augmentation says, and shifted by up
    to ``paste_shift``: without, its lesions come where they are in their own head."""
    limits, count = recipe.augmentation, len(places)
    positive = np.flatnonzero(labelled.positive.numpy())
    random = make_generator(recipe.training.seed, f"donors {step}", epoch)
    drawn = random.integers(len(positive), size=count)
    drawn += positive[drawn] == places
    chosen = np.where(pasted, positive[drawn % len(positive)], -1)
    theta = make_theta(limits, limits.paste_shift, *random.uniform(-1, 1, (5, count)))
    return Donors(chosen, theta)


def draw_greys(recipe: Recipe, step: str, epoch: int, widths: Tensor) -> Greys | None:
    """Of N labelled images in windows of ``widths`` (N,) HU: the exponent log-uniform, no blur for
    half of them, the other half's and the noise uniform."""
    limits, count = recipe.augmentation, len(widths)
    if (limits.gamma, limits.blur, limits.noise) == (1, 0, 0):
        return None
    random = make_generator(recipe.training.seed, f"greys {step}", epoch)
    exponent, blur, noise = random.uniform(-1, 1, (3, count))
    return make_greys(
        limits.gamma**exponent,
        limits.blur * blur.clip(0),
        limits.noise * abs(noise),
        random.integers(2**62, size=count),
        widths,
    )


def make_greys(
    gamma: NDArray[np.float64],
    blur: NDArray[np.float64],
    noise: NDArray[np.float64],
    seed: NDArray[np.int64],
    widths: Tensor,
) -> Greys:
    """From numbers (N,); the noise's are in HU, and the images' windows ``widths`` (N,) HU wide."""
    noise_deviation = to_tensor(noise) / widths
    return Greys(to_tensor(gamma), to_tensor(blur), noise_deviation, torch.from_numpy(seed))


def render(
    slices: SliceSet,
    places: NDArray[np.int64],
    view: View | None = None,
    *,
    donors: SliceSet | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Images (B, 1, S, S) float32 in [0, 1] and masks (B, 1, S, S) uint8 (None where there are
    none) of the slices at ``places`` (B,), as ``view`` shows them. Lesions come from ``donors``
    (None: from the slices themselves); without masks, the slices are then taken for empty ones."""
    view = view or View()
    images, masks = slices.batch(places, view.warp)
    if view.donors is not None:
        assert view.warp is not None
        masks = torch.zeros_like(images, dtype=torch.uint8) if masks is None else masks
        images, masks = paste_lesions(
            images, masks, donors or slices, view.donors, view.warp.windows
        )
    if view.greys is not None:
        images = change_greys(images, view.greys)
    return images, masks


def paste_lesions(
    images: Tensor, masks: Tensor, labelled: SliceSet, donors: Donors, windows: Tensor
) -> tuple[Tensor, Tensor]:
    """The images and masks with the lesions of their donors, whose slices are seen through the
    images' own ``windows`` (B, 1, 2)."""
    chosen = np.flatnonzero(donors.places >= 0)
    if not len(chosen):  # of this process's share
        return images, masks
    pasted = torch.from_numpy(chosen)
    warp = Warp(donors.theta[pasted], windows[pasted])
    sources, lesions = labelled.batch(donors.places[chosen], warp)
    assert lesions is not None
    own = pasted.to(images.device, non_blocking=True)
    feather = torch.full((len(pasted),), FEATHER, device=images.device)
    image, mask = paste(
        images[own],
        masks[own],
        sources,
        lesions,
        lesions,
        feather=feather,
        low=TISSUE[0],
        high=TISSUE[1],
    )
    assert mask is not None
    return images.index_copy(0, own, image), masks.index_copy(0, own, mask)


def change_greys(images: Tensor, greys: Greys) -> Tensor:
    """The images with the exponents, blurs and noise."""
    gamma, blur, noise, seed = (v.to(images.device, non_blocking=True) for v in greys)
    return strong_view(images, gamma=gamma, blur=blur, noise=noise, seed=seed)
