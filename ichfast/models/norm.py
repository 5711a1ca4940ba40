"""Batch normalisation with what stands behind it in a U-Net: ReLU, max-pooling, concatenation.

Channels-last features go through ``ichfast.ops.norm_relu``, in one pass each way; others, and all
inside :func:`plain_modules`, through torch's own modules.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ichfast._native import NO_CUDA
from ichfast.ops._autograd import is_transforming
from ichfast.ops.norm_relu import norm_relu, norm_relu_pool

if TYPE_CHECKING:  # some builds of torch have none of it
    from torch.distributed import ProcessGroup

_plain = False


@contextmanager
def plain_modules() -> Iterator[None]:
    """Inside, every network uses torch's modules."""
    global _plain
    former, _plain = _plain, True
    try:
        yield
    finally:
        _plain = former


class BatchNorm(nn.BatchNorm2d):
    """torch's, with the same entries in a state dict; its call says what stands behind it."""

    @property
    def group(self) -> "ProcessGroup | None":
        """Over whose images training normalises; None: this process's. Nothing that is kept, since
        networks are copied and a group cannot be."""
        return None

    def forward(  # type: ignore[override]
        self,
        input: Tensor,
        *,
        relu: bool = False,
        pool: bool = False,
        beside: Tensor | None = None,
    ) -> Any:
        """With ``pool`` also what 2×2 max-pooling makes of the result; ``beside`` comes before its
        channels."""
        if not _has_kernels(input, beside):
            return _follow(self.normalise(input), relu, pool, beside)
        own_statistics = self.running_mean is None
        statistics, momentum = self._count_batch()
        options: dict[str, Any] = {
            "training": self.training or own_statistics,
            "momentum": momentum,
            "eps": self.eps,
            "group": self.group if self.training else None,
        }
        if pool:
            return norm_relu_pool(input, self.weight, self.bias, *statistics, **options)
        return norm_relu(
            input, self.weight, self.bias, *statistics, relu=relu, beside=beside, **options
        )

    def normalise(self, input: Tensor) -> Tensor:
        return super().forward(input)

    def _count_batch(self) -> tuple[tuple[Tensor | None, Tensor | None], float | Tensor]:
        """The statistics to use or to move, and by how much; in training one more batch."""
        statistics = self.running_mean, self.running_var
        momentum: float | Tensor = 0.0 if self.momentum is None else self.momentum
        if not self.training:
            return statistics, momentum
        if not self.track_running_stats or self.num_batches_tracked is None:
            return (None, None), momentum
        self.num_batches_tracked.add_(1)
        if self.momentum is None:  # the plain mean over all batches
            momentum = 1 / self.num_batches_tracked
        return statistics, momentum


def _has_kernels(*features: Tensor | None) -> bool:
    if _plain or (not torch.compiler.is_compiling() and is_transforming()):
        return False
    return all(
        one is None
        or (
            (one.device.type == "cpu" or (one.is_cuda and not NO_CUDA))
            and one.is_contiguous(memory_format=torch.channels_last)
        )
        for one in features
    )


def _follow(output: Tensor, relu: bool, pool: bool, beside: Tensor | None) -> Any:
    output = F.relu(output) if relu else output
    if beside is not None:
        output = concatenate(beside, output)
    return (output, max_pool(output)) if pool else output


def max_pool(x: Tensor) -> Tensor:
    """2×2 max-pooling, of even sides."""
    if x.is_cuda and torch.are_deterministic_algorithms_enabled():
        return max_pool_deterministic(x)  # torch's has no deterministic backward there
    return F.max_pool2d(x, 2)


def max_pool_deterministic(x: Tensor) -> Tensor:
    """``F.max_pool2d(x, 2)`` to the bit, with its gradient: the first of equal values
    gets it, and the last of several NaN."""
    best = x[..., ::2, ::2]
    for row, column in ((0, 1), (1, 0), (1, 1)):
        other = x[..., row::2, column::2]
        best = torch.where((other > best) | other.isnan(), other, best)
    return best


def concatenate(a: Tensor, b: Tensor) -> Tensor:
    """``torch.cat([a, b], 1)``, with gradients that have no gaps; torch's own inside transforms of
    torch.func, under which tensors have no layout to ask for."""
    if not torch.compiler.is_compiling() and is_transforming():
        return torch.cat([a, b], 1)
    joined: Tensor = _Concatenate.apply(a, b)
    return joined


class _Concatenate(torch.autograd.Function):
    """``torch.cat([a, b], 1)``. The gradients of torch's are views into that of the whole; batch
    normalisation and convolutions have their fast paths for tensors without gaps only."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.channels = a.shape[1], b.shape[1]
        return torch.cat([a, b], 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        layout = (
            torch.channels_last
            if grad.is_contiguous(memory_format=torch.channels_last)
            else torch.contiguous_format
        )
        to_a, to_b = grad.split(ctx.channels, 1)
        return to_a.contiguous(memory_format=layout), to_b.contiguous(memory_format=layout)
