"""Strong views: drawn within the recipe's limits, and what they show."""

import numpy as np
import pytest
import torch
from tiny_runs import tiny
from tiny_steps import make_pair, make_step

from ichfast.data import Warp
from ichfast.training.recipe import Recipe
from ichfast.training.strong import Strong, cut_and_mix, draw_boxes, draw_strong, mark_boxes
from ichfast.training.views import View

ALL = (
    "strong.level=30",
    "strong.width=1.5",
    "strong.gamma=1.5",
    "strong.blur=1.2",
    "strong.noise=20",
    "strong.cutmix=0.7",
)


def draw(recipe: Recipe, count: int = 4000, purpose: str = "0", epoch: int = 3) -> Strong:
    return draw_strong(recipe, None, purpose, epoch, count)


def test_within_the_limits_and_over_all_of_them() -> None:
    warp, greys, boxes, _ = draw(tiny(*ALL))
    level, width = warp.windows[:, 0].T
    assert (level - 500.5).abs().max() == pytest.approx(30, abs=0.5)
    assert (level - 500.5).mean() == pytest.approx(0, abs=1)
    assert width.max() / 1001 == pytest.approx(1.5, rel=0.005)
    assert width.min() / 1001 == pytest.approx(1 / 1.5, rel=0.005)
    assert 1.49 < greys.gamma.max() < 1.5
    assert (greys.gamma < 1).double().mean() == pytest.approx(0.5, abs=0.03)
    assert (greys.blur == 0).double().mean() == pytest.approx(0.5, abs=0.03)
    assert 1.15 < greys.blur.max() < 1.2
    torch.testing.assert_close(greys.noise, 20 / width)
    assert (boxes.any(1)).double().mean() == pytest.approx(0.7, abs=0.03)


def test_on_top_of_the_slice_s_own_augmentation() -> None:
    theta, windows = torch.rand(3, 2, 3), torch.tensor([[[40.0, 100]], [[50, 100]], [[60, 200]]])
    plain = draw_strong(tiny(), View(Warp(theta, windows)), "0", 0, 3)
    assert plain.warp.theta.equal(theta)
    assert plain.warp.windows.equal(windows)
    strong = draw_strong(tiny("strong.level=5"), View(Warp(theta, windows)), "0", 0, 3)
    moved = strong.warp.windows[:, 0, 0] - windows[:, 0, 0]
    assert (moved != 0).all()
    assert (moved.abs() <= 5).all()
    assert strong.warp.windows[:, 0, 1].equal(windows[:, 0, 1])


def test_every_view_has_numbers_of_its_own() -> None:
    first = draw(tiny(*ALL))
    assert torch.equal(first.boxes, draw(tiny(*ALL)).boxes)
    for other in (
        draw(tiny(*ALL), purpose="1"),
        draw(tiny(*ALL), epoch=4),
        draw(tiny(*ALL, "training.seed=1")),
    ):
        for one, another in zip(first[1:], other[1:], strict=True):
            assert not all(map(torch.equal, one, another))


def test_rectangles() -> None:
    left, top, right, bottom = draw_boxes(np.random.default_rng(0), 4000).T
    assert (np.stack([left, top]) >= 0).all()
    assert (np.stack([right, bottom]) <= 1 + 1e-9).all()
    area, aspect = (right - left) * (bottom - top), (bottom - top) / (right - left)
    assert 0.02 <= area.min() < 0.025
    assert area.max() == pytest.approx(0.4, abs=0.005)
    assert area.mean() == pytest.approx(0.21, abs=0.01)
    assert aspect.min() == pytest.approx(0.3, abs=0.1)
    assert aspect.max() == pytest.approx(1 / 0.3, abs=0.1)
    covered = mark_boxes(torch.tensor(np.stack([left, top, right, bottom], 1)), 64).double()
    assert covered.mean() == pytest.approx(0.21, abs=0.01)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_partners_are_others_and_each_is_one_s_partner(count) -> None:
    partners = draw(tiny(), count).partners.tolist()
    assert sorted(partners) == list(range(count))
    assert count == 1 or all(partner != i for i, partner in enumerate(partners))


def test_the_pixels_of_a_rectangle() -> None:
    marked = mark_boxes(torch.tensor([[0.25, 0.5, 0.75, 1.0], [0, 0, 0, 0]]), 4)
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[2:4, 1:3] = True
    assert marked.dtype == torch.bool
    assert marked[0, 0].equal(expected)
    assert not marked[1].any()


def test_image_and_target_are_mixed_alike() -> None:
    images, targets = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    boxes = torch.tensor([[0.25, 0.5, 0.75, 1.0], [0, 0, 0, 0]])
    image, target = cut_and_mix(images, targets, (images[[1, 0]], targets[[1, 0]]), boxes)
    inside = mark_boxes(boxes, 8)
    for mixed, own in ((image, images), (target, targets)):
        assert mixed.equal(torch.where(inside, own[[1, 0]], own))


@pytest.mark.parametrize("setting", [*ALL[:4], "strong.noise=20", "strong.cutmix=1"])
def test_every_key_changes_the_student_s_view(setting) -> None:
    off = "strong.noise=0"
    plain, step = make_step("pseudo_label", off), make_step("pseudo_label", off, setting)
    pair = make_pair(step)
    guess = torch.rand(pair.unlabelled.shape)
    image, target = step.perturb(pair, guess)
    same, same_target = plain.perturb(pair, guess)
    assert same.equal(pair.unlabelled)
    assert same_target.equal(guess)
    assert not image.equal(pair.unlabelled)
    assert target.equal(guess) is (setting != "strong.cutmix=1")
    again, _ = step.perturb(pair, guess)
    assert again.equal(image)
    assert not step.perturb(pair._replace(update=1), guess)[0].equal(image)
    assert not step.perturb(pair, guess, 1)[0].equal(image)
