"""Whether a network still learns, told by what it calls blood in the slices it is trained on.

A pure overlap loss is 1 where no blood is found, and its gradient is as small as the largest
probability: once the sigmoids have saturated, nothing brings the network back. On 56 slices of 7
patients of CT-ICH, by Adam at 2e-3 in batches of 4, soft Jaccard was above 0.9999 with no pixel
called blood in one epoch, recovered, and from the ninth epoch on stayed above 0.99999 to the end.
The sound runs on the same slices began at 0.96 to 0.99 and called a fifth of all pixels blood.

Beside cross-entropy a gradient is left, and a sound run passes through such a phase: three epochs
of eight updates, in which the loss fell by 3 % an epoch. So there it has to last four times as
long, without the loss falling.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ichfast.errors import DivergedError
from ichfast.team import Team
from ichfast.training.checkpoint import Progress
from ichfast.training.recipe import Recipe
from ichfast.training.steps import EpochResult, Step, SupervisedLoss

CEILING = 0.9999
"""an overlap loss above it finds nothing"""
FEW = 1e-3
"""of the pixels with blood, or of those that are not called blood: as good as none"""
PATIENCE = 4
"""times training.grace, where a gradient is left"""
FALL = 0.01
"""share by which a loss falls in that time, if anything is learned"""


class Watch:
    """Counts, in an epoch of training, the pixels of labelled slices, those with blood and those
    called blood: from what the supervised losses are given, without another pass."""

    def __init__(self, steps: Iterable[Step], device: torch.device, team: Team) -> None:
        self.team = team
        self.counts = torch.zeros(3, dtype=torch.int64, device=device)
        for step in steps:
            for loss in find_losses(step):
                loss.register_forward_hook(self._count)

    def _count(self, _: nn.Module, arguments: tuple[Any, ...], __: Tensor) -> None:
        logits, target = arguments[:2]
        with torch.no_grad():
            self.counts[0] += logits.numel()
            self.counts[1] += target.count_nonzero()
            self.counts[2] += (logits > 0).count_nonzero()

    def is_blank(self) -> bool | None:
        """Whether nothing, or everything, was called blood since it was last asked; None where no
        supervised loss was taken."""
        pixels, blood, called = self.team.sum(self.counts).tolist()
        self.counts.zero_()
        if not pixels:
            return None
        return bool(called <= FEW * blood or pixels - called <= FEW * (pixels - blood))


def find_losses(step: Step) -> Iterator[SupervisedLoss]:
    """Of a step, and of the steps that it is made of, the loss of labelled slices, which goes by
    the name ``loss``: others may be of what another network guesses."""
    for name, part in vars(step).items():
        if name == "loss" and isinstance(part, SupervisedLoss):
            yield part
        elif isinstance(part, Step):
            yield from find_losses(part)


def check_alive(
    progress: Progress, recipe: Recipe, blank: bool | None, outcome: EpochResult
) -> None:
    """Raise where this epoch is one too many that was ``blank``."""
    if blank is None:
        return
    if not blank:
        progress.blank = []
        return
    grace = recipe.training.grace
    losses = [*progress.blank, outcome.parts.get("supervised", outcome.loss)][-PATIENCE * grace :]
    progress.blank = losses
    told = "no pixel, or every pixel, of the labelled slices was called blood in the last"
    overlap_alone = recipe.supervised.cross_entropy == 0
    if overlap_alone and len(losses) >= grace and min(losses[-grace:]) > CEILING:
        raise DivergedError(
            f"{told} {grace} epochs, at an overlap loss of {losses[-1]:.5f}, where it has no "
            "gradient left: set supervised.cross_entropy = 1, which keeps one"
        )
    if len(losses) == PATIENCE * grace and losses[-1] > (1 - FALL) * losses[0]:
        raise DivergedError(
            f"{told} {len(losses)} epochs, and the supervised loss did not fall: from "
            f"{losses[0]:.4g} to {losses[-1]:.4g}. If it is only slow, raise training.grace; else "
            "show it more blood (supervised.positive = 0.5)"
        )
