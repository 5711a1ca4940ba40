"""The supervised loss: what it is, with and without cross-entropy and mask."""

import math

import pytest
import torch
from tiny_runs import tiny
from torch.nn import functional as F

from ichfast.losses import TverskyLoss
from ichfast.training.steps import bound_blank_loss, make_supervised_loss


def images() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, target and mask (4, 1, 9, 8), more than half of the mask set."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 1, 9, 8, generator=generator, requires_grad=True)
    target, mask = (torch.rand(4, 1, 9, 8, generator=generator) for _ in range(2))
    return logits, (target > 0.7).to(torch.uint8), mask > 0.4


def compute(
    logits: torch.Tensor, target: torch.Tensor, weight: float, alpha: float, beta: float
) -> torch.Tensor:
    """The formula, over whatever pixels are given."""
    p, t = logits.double().sigmoid(), target.double()
    tp, fp, fn = (p * t).sum(), (p * (1 - t)).sum(), ((1 - p) * t).sum()
    overlap = 1 - (tp + 5e-6) / (tp + alpha * fp + beta * fn + 5e-6)
    return overlap + weight * F.binary_cross_entropy_with_logits(logits.double(), t)


def test_without_cross_entropy_it_is_the_overlap_alone() -> None:
    logits, target, _ = images()
    expected = TverskyLoss(
        sigmoid=True, alpha=0.3, beta=0.7, smooth_nr=5e-6, smooth_dr=5e-6, batch=True
    )(logits, target)
    loss = make_supervised_loss(tiny("supervised.alpha=0.3", "supervised.beta=0.7"))
    assert loss(logits, target).equal(expected)


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("masked", [False, True])
def test_it_is_the_formula(weight: float, masked: bool) -> None:
    logits, target, mask = images()
    settings = (f"supervised.cross_entropy={weight}", "supervised.alpha=0.3", "supervised.beta=0.7")
    loss = make_supervised_loss(tiny(*settings))(logits, target, mask if masked else None)
    chosen = mask if masked else torch.ones_like(mask)
    expected = compute(logits[chosen], target[chosen], weight, 0.3, 0.7)
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, wanted, atol=1e-6, rtol=1e-4)
    assert bool((gradient[~chosen] == 0).all())


def test_where_no_pixel_counts_nothing_is_learnt() -> None:
    logits, target, mask = images()
    loss = make_supervised_loss(tiny("supervised.cross_entropy=1"))(logits, target, mask & False)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss == 0
    assert bool((gradient == 0).all())


@pytest.mark.parametrize("weight", [0.0, 1.5])
def test_the_loss_of_a_network_that_knows_nothing(weight: float) -> None:
    recipe = tiny(f"supervised.cross_entropy={weight}")
    assert bound_blank_loss(recipe) == pytest.approx(1 + weight * math.log(2))
    _, target, _ = images()
    blank = make_supervised_loss(recipe)(torch.zeros(target.shape), target)
    assert blank < bound_blank_loss(recipe)
