"""The supervised loss."""

import math
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from ichfast.losses import TverskyBCELoss, TverskyLoss
from ichfast.team import ALONE, Team
from ichfast.training.recipe import Recipe


class SupervisedLoss(nn.Module):
    """1 − TP / (TP + α·FP + β·FN) of the whole batch at once: sums are pooled before the ratio, as
    in the pooled score that the best epoch is chosen by, so a slice weighs as much as its blood.
    α = β = 1 is the soft Jaccard loss L_s, smoothed as :class:`ichfast.losses.JaccardLoss` is.
    ``cross_entropy`` times the mean binary cross-entropy is added. With ``group``, the batch is
    that of all its processes.
    """

    def __init__(
        self,
        alpha: float,
        beta: float,
        cross_entropy: float = 0.0,
        *,
        group: "dist.ProcessGroup | None" = None,
    ) -> None:
        super().__init__()
        shared: dict[str, Any] = {
            "alpha": alpha,
            "beta": beta,
            "smooth_nr": 5e-6,
            "smooth_dr": 5e-6,
            "batch": True,
            "group": group,
        }
        self.overlap = TverskyLoss(sigmoid=True, **shared)
        self.sum = TverskyBCELoss(lambda_ce=cross_entropy, **shared)

    def forward(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """A scalar of (B, 1, *S) logits and target. ``mask`` (B, 1, *S), bool, uint8 or weights in
        [0, 1], says which pixels count, in both parts."""
        loss: Tensor
        if mask is None and not self.sum.lambda_ce:
            loss = self.overlap(logits, target)
        else:
            loss = self.sum(logits, target, mask)
        return loss


def make_supervised_loss(recipe: Recipe, team: Team = ALONE) -> SupervisedLoss:
    """The recipe's, of the batch of the whole team."""
    settings = recipe.supervised
    return SupervisedLoss(settings.alpha, settings.beta, settings.cross_entropy, group=team.group)


def make_pseudo_loss(recipe: Recipe, team: Team = ALONE) -> SupervisedLoss:
    """The recipe's for pseudo labels. These always have a cross-entropy, of weight 1 where the
    recipe has none: most are of slices without blood, of which an overlap learns nothing."""
    settings = recipe.supervised
    weight = settings.cross_entropy or 1.0
    return SupervisedLoss(settings.alpha, settings.beta, weight, group=team.group)


def bound_blank_loss(recipe: Recipe) -> float:
    """What the supervised loss is at most for a network that gives every pixel the probability
    ½: 1 for the overlap, ln 2 for the cross-entropy."""
    return 1 + recipe.supervised.cross_entropy * math.log(2)
