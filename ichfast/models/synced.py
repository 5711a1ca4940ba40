"""Batch normalisation over the batch of all processes.

torch's own SyncBatchNorm has no CPU form and is not a BatchNorm2d. This one is, with the same
entries in a state dict, on every device, with one all-reduce forward and one backward. What does
not go through ``ichfast.ops.norm_relu`` is made of torch's kernels.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from ichfast.models.norm import BatchNorm
from ichfast.team import Team, sum_over


def synchronise(model: nn.Module, team: Team) -> None:
    """Let the batch normalisation in ``model`` see the batches of the whole team from now on."""
    if team.size == 1:
        return
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is BatchNorm:
                setattr(parent, name, SyncedBatchNorm2d.from_norm(child))


class SyncedBatchNorm2d(BatchNorm):
    """As torch's, but the images are those of all processes of the default group."""

    @classmethod
    def from_norm(cls, norm: nn.BatchNorm2d) -> "SyncedBatchNorm2d":
        """With the parameters and statistics of ``norm``, the same tensors."""
        synced = cls(norm.num_features, norm.eps, norm.momentum)
        synced.__dict__.update(norm.__dict__)
        return synced

    @property
    def group(self) -> "dist.ProcessGroup | None":
        return dist.group.WORLD

    def normalise(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().normalise(input)
        self._check_input_dim(input)
        mean, variance, count = compute_moments(input.detach())
        (running_mean, running_var), momentum = self._count_batch()
        if running_mean is not None and running_var is not None:
            unbiased = variance * count / (count - 1)
            for running, value in ((running_mean, mean), (running_var, unbiased)):
                running.lerp_(value.to(running.dtype), momentum)
        wide = self.weight.dtype
        output: Tensor = _Normalise.apply(
            input, self.weight, self.bias, mean.to(wide), variance.to(wide), count, self.eps
        )
        return output


def compute_moments(input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance (C,) of each channel over all processes' images, and the number of values:
    float64, in which the difference of squares loses nothing that the values have."""
    wide = input.to(torch.promote_types(input.dtype, torch.float32))
    channels, own = input.shape[1], input.numel() // input.shape[1]
    mean, variance = (m.double() for m in torch.batch_norm_update_stats(wide, None, None, 0.0))
    count = mean.new_full((1,), own)
    total = sum_over(torch.cat([own * mean, own * (variance + mean.square()), count]))
    mean, square, count = total.split([channels, channels, 1])
    mean = mean / count
    return mean, (square / count - mean.square()).clamp(min=0), count


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, *others: Any) -> Tensor:
        weight, bias, mean, variance, count, eps = others
        ctx.save_for_backward(input, weight, mean, variance, count)
        ctx.eps = eps
        return F.batch_norm(input, mean, variance, weight, bias, eps=eps)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, mean, variance, count = ctx.saved_tensors
        # As if mean and variance were constants; then what comes through them. With x̂ the
        # normalised input: ∂L/∂x = γ/σ · (g − mean(g) − x̂ · mean(g·x̂)).
        constant, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            grad, input, weight, mean, variance, None, None, False, ctx.eps, [True] * 3
        )
        means = sum_over(torch.cat([to_bias, to_weight]).double()) / count
        inverse = (variance.double() + ctx.eps).rsqrt()
        of_g, of_gx = (means.view(2, -1) * weight * inverse).to(mean.dtype)[:, :, None, None]
        shift, scale = mean[:, None, None], inverse.to(mean.dtype)[:, None, None]
        result = constant - of_g - (input - shift) * (of_gx * scale)
        return result.to(input.dtype), to_weight, to_bias, *[None] * 4
