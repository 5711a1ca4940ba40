"""What a plan will take: passes as the recipes say them, times seconds measured here and now."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from ichfast import models
from ichfast.losses import JaccardLoss
from ichfast.reproduce.plan import Cell
from ichfast.training import Recipe
from ichfast.training.forward import choose_precision
from ichfast.training.settings import ModelSettings
from ichfast.training.steps import FORWARD, Step
from ichfast.training.strategy import make_strategy

PIXELS = 8 * 9 * 4
"""bytes a pixel of the examples: eight slices, up to nine float32 maps"""


@dataclass(frozen=True)
class Sizes:
    """Slices of a cell's parts."""

    train: int
    validation: int
    test: int
    unlabelled: int = 0


@dataclass(frozen=True)
class Cost:
    passes: float
    """over the labelled training slices, forward and backward"""
    seconds: float
    """of one core"""
    kept: int
    """bytes of the finished run"""
    running: int
    """bytes of its checkpoint beside that, until it has ended"""


def estimate_cost(cell: Cell, sizes: Sizes) -> Cost:
    recipe = cell.recipe
    lbfgs = recipe.supervised.optimizer == "lbfgs"
    precision = torch.float32 if lbfgs else choose_precision(recipe, torch.device("cpu"))
    each, parameters = _measure(recipe.model, recipe.data.size, precision)
    passes, slices = 0.0, 0.0
    drawn = recipe.supervised.draws or sizes.train
    for step, epochs in _count_steps(recipe).items():
        size = sizes.unlabelled if step.over == "unlabelled" else drawn
        slices += epochs * step.estimate_cost(recipe) * size
        if step.over == "labelled":
            passes += epochs * step.count_passes(recipe) * drawn / sizes.train
    looked = recipe.training.epochs // recipe.training.validate_every * sizes.validation
    looked += sizes.validation + sizes.test
    slices += FORWARD * looked
    copies = 2 * recipe.lbfgs.history + 6  # weights, best weights, both optimizers
    return Cost(
        passes, slices * each, 8 * parameters + PIXELS * recipe.data.size**2,
        4 * parameters * copies,
    )  # fmt: skip


@cache
def _count_steps(recipe: Recipe) -> Mapping[type[Step], int]:
    """Epochs by step."""
    strategy = make_strategy(recipe)
    drawn = (strategy.draw(epoch).step for epoch in range(recipe.training.epochs))
    return Counter(strategy.steps[name] for name in drawn)


@cache
def _measure(model: ModelSettings, size: int, precision: torch.dtype) -> tuple[float, int]:
    """Seconds of one core for a slice forward and backward, and the number of parameters."""
    net = models.build("unet", model.channels, 0, model.convolutions)
    image = torch.rand(8, 1, size, size)
    loss = JaccardLoss(sigmoid=True, batch=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = []
        for _ in range(3):  # the first one warms up
            start = time.process_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
                logits = net.segment(image)
            loss(logits.float(), image > 0.9).backward()
            times.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    seconds = min(times) / len(image)
    return seconds, sum(parameter.numel() for parameter in net.parameters())


def add_up(costs: Sequence[Cost], jobs: int) -> tuple[float, int]:
    """Seconds with ``jobs`` side by side, and bytes at most."""
    seconds = max(sum(cost.seconds for cost in costs) / jobs, max(c.seconds for c in costs))
    running = sorted((cost.running for cost in costs), reverse=True)[:jobs]
    return seconds, sum(cost.kept for cost in costs) + sum(running)
