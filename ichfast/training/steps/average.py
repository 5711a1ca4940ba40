"""Moving averages of weights."""

import torch
from torch import nn

from ichfast.models import ReducedUNet


class MovingAverage:
    """average ← m·average + (1 − m)·source after each update, with m = ``decay``; at first with a
    smaller m, that makes it the plain mean of all so far, so that the start is soon forgotten.

    Statistics of batch normalisation are averaged alike. In the first layer, which is linear in its
    weights, the mean under averaged weights is exactly the average of the means.
    """

    def __init__(self, average: ReducedUNet, source: nn.Module, decay: float) -> None:
        self.average, self.source, self.decay = average, source, decay
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        keep = min(1 - 1 / (self.updates + 1), self.decay)
        own, theirs = self.average.state_dict(), self.source.state_dict()
        for name, value in own.items():
            if value.is_floating_point():
                value.lerp_(theirs[name], 1 - keep)
            else:
                value.copy_(theirs[name])
