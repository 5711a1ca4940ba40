"""Views: drawn within the recipe's limits, the same whatever the batches, and what they show."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from slice_sets import WINDOW, slice_set
from tiny_runs import synthetic, tiny

from ichfast import models
from ichfast.data import SliceSet
from ichfast.team import Team
from ichfast.training.recipe import Recipe
from ichfast.training.steps.batches import draw_labelled_batches, take_share
from ichfast.training.steps.supervised import SupervisedAdam, SupervisedLBFGS
from ichfast.training.views import Donors, View, draw_labelled_view, draw_view, render

CPU = torch.device("cpu")
GREYS = ("augmentation.gamma=1.5", "augmentation.blur=1.2", "augmentation.noise=20")
PASTE = ("augmentation.paste=0.6", "augmentation.paste_shift=0.1")
ALL = ("augmentation.flip=0.5", "augmentation.width=1.2", *GREYS, *PASTE)


def draw(recipe: Recipe, count: int = 4000, epoch: int = 3, labelled: int = 9) -> View:
    view = draw_labelled_view(
        synthetic("train", labelled), np.arange(count) % labelled, recipe, epoch
    )
    assert view is not None
    return view


def test_nothing_by_default() -> None:
    slices, places = synthetic("train", 9), np.arange(9)
    assert draw_labelled_view(slices, places, tiny(), 3) is None
    for settings, parts in ((GREYS, (True, False)), (PASTE, (False, True))):
        view = draw(tiny(*settings))
        assert (view.greys is not None, view.donors is not None) == parts
    image, mask = render(slices, places, draw(tiny("augmentation.paste_shift=0.3"), 9))
    plain, plain_mask = slices.batch(places)
    assert image.equal(plain)
    assert mask.equal(plain_mask)


def test_greys_are_within_their_limits_and_over_all_of_them() -> None:
    gamma, blur, _, seed = draw(tiny(*ALL)).greys
    assert (gamma.min() > 1 / 1.5) & (gamma.max() < 1.5)
    assert (gamma < 1).double().mean() == pytest.approx(0.5, abs=0.03)
    assert (gamma < 1.5**-0.5).double().mean() == pytest.approx(0.25, abs=0.03)
    assert (blur == 0).double().mean() == pytest.approx(0.5, abs=0.03)
    assert blur[blur > 0].mean() == pytest.approx(0.6, abs=0.03)
    assert 1.15 < blur.max() < 1.2
    assert len(set(seed.tolist())) == 4000


def test_noise_is_in_hounsfield_units_of_the_slice_s_own_window() -> None:
    view = draw(tiny(*ALL))
    hu = view.greys.noise * view.warp.windows[:, 0, 1]
    assert hu.mean() == pytest.approx(10, abs=0.4)
    assert 19.8 < hu.max() < 20.001
    assert view.warp.windows[:, 0, 1].std() > 50


def test_a_donor_is_another_slice_with_haemorrhage() -> None:
    slices = synthetic("train", 9)
    slices.masks[[0, 4, 8]] = 0
    places = np.arange(4000) % 9
    donors = draw_labelled_view(slices, places, tiny(*ALL), 3).donors
    pasted = donors.places >= 0
    assert pasted.mean() == pytest.approx(0.6, abs=0.03)
    assert set(donors.places[pasted].tolist()) == {1, 2, 3, 5, 6, 7}
    assert not (donors.places == places).any()


def test_donors_are_shifted_by_paste_shift_alone() -> None:
    theta = draw(tiny(*PASTE, "augmentation.shift=0.5")).donors.theta
    assert 0.098 < theta[:, :, 2].abs().max() / 2 < 0.1001
    still = draw(tiny("augmentation.paste=1", "augmentation.shift=0.5")).donors.theta
    assert still.equal(torch.eye(2, 3).expand_as(still))


def test_every_epoch_and_seed_has_views_of_its_own() -> None:
    first = draw(tiny(*ALL))
    assert all(map(torch.equal, first.greys, draw(tiny(*ALL)).greys))
    for other in (draw(tiny(*ALL), epoch=4), draw(tiny(*ALL, "training.seed=1"))):
        assert not any(map(torch.equal, first.greys, other.greys))
        assert not np.array_equal(first.donors.places, other.donors.places)
        assert not torch.equal(first.donors.theta, other.donors.theta)


def square(size: int = 32, value: float = 0.4) -> SliceSet:
    """Two grey slices, of which the second has a bright square lesion."""
    images, masks = torch.full((2, 1, size, size), value), torch.zeros(2, 1, size, size)
    images[1, 0, 12:20, 8:16], masks[1, 0, 12:20, 8:16] = 0.8, 1
    return slice_set(images, masks.to(torch.uint8), ("a", "b"))


def paste_into_first(slices: SliceSet, theta: torch.Tensor | None = None) -> tuple:
    theta = torch.eye(2, 3) if theta is None else theta
    warp = draw_view(tiny("augmentation.shift=0.0001"), "supervised", 0, 1).warp
    warp = warp._replace(theta=torch.eye(2, 3)[None])
    view = View(warp, Donors(np.array([1]), theta[None]))
    return render(slices, np.array([0]), view)


def test_a_lesion_comes_with_its_mask_and_soft_edges() -> None:
    image, mask = paste_into_first(square())
    assert mask.equal(square().masks[1][None, None])
    assert image[0, 0, 16, 12] == pytest.approx(0.8, abs=1e-3)
    assert 0.5 < image[0, 0, 12, 12] < 0.75
    assert image[0, 0, 2, 2] == pytest.approx(0.4)


def test_a_lesion_goes_where_its_donor_is_moved() -> None:
    moved = torch.tensor([[1.0, 0, -0.5], [0, 1, 0]])  # a quarter of the side to the right
    _, mask = paste_into_first(square(), moved)
    assert mask[0, 0].nonzero().amin(0).tolist() == [12, 16]
    assert mask[0, 0].nonzero().amax(0).tolist() == [19, 23]


@pytest.mark.parametrize("value", [0.0, 0.05, 0.97, 1.0])
def test_no_lesion_in_air_or_bone(value) -> None:
    slices = square()
    slices.hu[0, 12:16] = round(1000 * value)
    image, mask = paste_into_first(slices)
    assert not mask[0, 0, 12:16].any()
    assert mask[0, 0, 16:20, 8:16].all()
    assert image[0, 0, 13, 12] == pytest.approx(value, abs=0.1)


def test_the_order_is_paste_then_greys() -> None:
    slices, places = square(), np.array([0, 0])
    recipe = tiny("augmentation.paste=1", "augmentation.gamma=2")
    view = draw_labelled_view(slices, places, recipe, 0)
    view = view._replace(greys=view.greys._replace(gamma=torch.tensor([2.0, 2.0])))
    image, _ = render(slices, places, view)
    pasted, _ = render(slices, places, view._replace(greys=None))
    assert (pasted > 0.75).any()
    torch.testing.assert_close(image, pasted**2)


def test_batches_of_any_size_show_the_same_slices_alike() -> None:
    slices = synthetic("train", 9)
    rendered = []
    for size in (2, 9):
        batches = draw_labelled_batches(slices, tiny(*ALL, f"supervised.batch_size={size}"), 1)
        parts = zip(*(render(slices, *batch) for batch in batches), strict=True)
        rendered.append([torch.cat(part) for part in parts])
    assert rendered[0][0].equal(rendered[1][0])
    assert rendered[0][1].equal(rendered[1][1])
    assert not rendered[0][1].equal(slices.batch(np.concatenate([p for p, _ in batches]))[1])


def test_processes_show_their_shares_of_a_batch() -> None:
    slices = synthetic("train", 9)
    (batch,) = draw_labelled_batches(slices, tiny(*ALL, "supervised.batch_size=9"), 1)
    whole = render(slices, *batch)
    shares = [render(slices, *take_share(Team(rank, 4), batch)) for rank in range(4)]
    for one, parts in zip(whole, zip(*shares, strict=True), strict=True):
        assert one.equal(torch.cat(parts))


@pytest.mark.parametrize("step_class", [SupervisedLBFGS, SupervisedAdam])
@pytest.mark.parametrize("settings", [(setting,) for setting in (*GREYS, PASTE[0])])
def test_every_supervised_step_learns_from_them(step_class, settings) -> None:
    losses = []
    for chosen in ((), settings):
        model = models.build("unet", (2, 3, 4), 0)
        step = step_class(model, synthetic("train", 5), tiny(*chosen), CPU)
        step.run(0, moved=False)
        losses.append(step.run(1, moved=False).loss)
    assert losses[0] != losses[1]


def test_masks_without_a_lesion_stay_empty() -> None:
    slices = square()
    slices = replace(slices, rows=torch.tensor([0, 0, 0, 1]))
    view = draw_labelled_view(slices, np.arange(3), tiny("augmentation.paste=0.0001"), 0)
    _, mask = render(slices, np.arange(3), view)
    assert not mask.any()
    assert WINDOW[1] == view.warp.windows[0, 0, 1]
