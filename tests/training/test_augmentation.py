"""Augmentation: drawn within the recipe's limits, the same again for the same epoch, and off by
default."""

import math

import numpy as np
import pytest
import torch
from slice_sets import WINDOW, slice_set
from tiny_runs import state_of, synthetic, tiny

from ichfast import models
from ichfast.training import augmentation
from ichfast.training.steps.supervised import SupervisedAdam, SupervisedLBFGS
from ichfast.training.steps.unsupervised import UnsupervisedStep
from ichfast.training.views import draw_view

CPU = torch.device("cpu")
ALL = (
    "augmentation.flip=0.3",
    "augmentation.rotation=20",
    "augmentation.scale=1.5",
    "augmentation.shift=0.1",
    "augmentation.level=30",
    "augmentation.width=1.2",
)


def test_off_by_default() -> None:
    assert augmentation.draw(tiny(), "supervised", 3, 5) is None


def test_within_the_limits_and_over_all_of_them() -> None:
    warp = augmentation.draw(tiny(*ALL), "supervised", 3, 4000)
    assert warp is not None
    linear = warp.theta[:, :, :2].double()
    mirrored = torch.det(linear) < 0
    assert float(mirrored.double().mean()) == pytest.approx(0.3, abs=0.03)
    zoom = torch.det(linear).abs().rsqrt()
    assert (zoom.min() > 1 / 1.501) & (zoom.max() < 1.501)
    assert (zoom.min() < 0.68) & (zoom.max() > 1.48)
    angle = torch.atan2(linear[:, 1, 0], linear[:, 1, 1]).abs()
    assert math.radians(19.5) < angle.max() < math.radians(20.001)
    shift = torch.linalg.solve(linear, warp.theta[:, :, 2].double()).abs() / 2
    assert 0.098 < shift.max() < 0.1001
    level, width = warp.windows[:, 0].T
    assert (level - WINDOW[0]).abs().max() == pytest.approx(30, abs=0.5)
    assert float(width.max() / WINDOW[1]) == pytest.approx(1.2, rel=0.005)
    assert float(width.min() * 1.2 / WINDOW[1]) == pytest.approx(1, rel=0.005)


def test_each_epoch_and_step_has_its_own_whatever_the_batches() -> None:
    def theta(step: str, epoch: int, count: int = 7, seed: int = 0) -> torch.Tensor:
        warp = augmentation.draw(tiny(*ALL, f"training.seed={seed}"), step, epoch, count)
        assert warp is not None
        return warp.theta

    first = theta("supervised", 0)
    assert torch.equal(first, theta("supervised", 0))
    for other in (
        theta("supervised", 1),
        theta("unsupervised", 0),
        theta("supervised", 0, seed=1),
    ):
        assert not torch.equal(first, other)


def test_masks_follow_their_images() -> None:
    """Blood that a mask outlines stays inside the outline."""
    slices = synthetic("train", 12, size=64)
    blood = slice_set(slices.masks[:, None].double(), slices.masks[:, None], slices.patients)
    warp = augmentation.draw(tiny(*ALL[:4]), "supervised", 0, 12)
    assert warp is not None
    image, mask = blood.batch(torch.arange(12), warp)
    plain, _ = blood.batch(torch.arange(12))
    assert not torch.equal(image, plain)
    clear = (image == 0) | (image == 1)  # between lie the pixels on the outline
    assert clear.double().mean() > 0.8
    assert torch.equal(image.bool()[clear], mask.bool()[clear])


@pytest.mark.parametrize("step_class", [SupervisedLBFGS, SupervisedAdam, UnsupervisedStep])
def test_every_step_learns_from_augmented_slices(step_class) -> None:
    losses = []
    for settings in ((), ALL):
        model = models.build("multitask", (2, 3, 4), 0)
        pool = synthetic("unlabelled", 5, masks=False)
        step = step_class(model, synthetic("train", 5), tiny(*settings), CPU, unlabelled=pool)
        losses.append(step.run(0, moved=False).loss)
    assert losses[0] != losses[1]


def test_lbfgs_keeps_to_one_augmentation_an_epoch_and_to_no_pair_across_two() -> None:
    model = models.build("unet", (2, 3, 4), 0)
    step = SupervisedLBFGS(model, synthetic("train", 7), tiny(*ALL), CPU)
    step.optimizer.param_groups[0].update(max_iter=1, max_eval=9)  # one pair an epoch
    state = step.optimizer.state[next(model.parameters())]
    for epoch in range(3):
        step.run(epoch, moved=False)
        assert not state.get("old_dirs")
    view = draw_view(tiny(*ALL), "supervised", 0, 7)
    model.train()
    assert step.run_full_pass(gradient=False, view=view) == step.run_full_pass(
        gradient=True, view=view
    )
    assert step.run_full_pass(gradient=False, view=view) != step.run_full_pass(gradient=False)


def test_resumed_as_if_never_stopped(start, tmp_path) -> None:
    for optimizer in ("lbfgs", "adam"):
        settings = (*ALL, f"supervised.optimizer={optimizer}")
        start(tmp_path / f"whole {optimizer}", *settings, "training.epochs=6")
        start(tmp_path / f"parts {optimizer}", *settings, "training.epochs=3")
        start(tmp_path / f"parts {optimizer}", *settings, "training.epochs=6")
        whole, parts = (state_of(tmp_path / f"{name} {optimizer}") for name in ("whole", "parts"))
        for name, value in whole["model"].items():
            assert torch.equal(value, parts["model"][name]), name


def test_warps_are_chosen_with_their_slices() -> None:
    warp = augmentation.draw(tiny(*ALL), "supervised", 0, 7)
    assert warp is not None
    some = warp.select(np.array([4, 1]))
    assert torch.equal(some.theta, warp.theta[[4, 1]])
    assert torch.equal(some.windows, warp.windows[[4, 1]])
