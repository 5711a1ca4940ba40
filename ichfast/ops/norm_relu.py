"""Batch normalisation and the ReLU, 2×2 max-pooling or concatenation behind it, in one pass."""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from ichfast.ops._autograd import is_transforming
from ichfast.ops._checks import require_floating, require_one_device
from ichfast.ops.reference.norm_relu import norm_relu as plain_norm_relu
from ichfast.ops.reference.norm_relu import norm_relu_pool as plain_norm_relu_pool
from ichfast.team import sum_over

__all__ = ["norm_relu", "norm_relu_pool"]


def norm_relu(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    *,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
    relu: bool = True,
    beside: Tensor | None = None,
    group: "dist.ProcessGroup | None" = None,
) -> Tensor:
    """``F.relu(F.batch_norm(input, …))`` of channels-last images::

        y = max(0, (x − μ)·γ/√(σ² + eps) + β)

    Backward reads the input again and keeps nothing else. Images in another layout are copied
    into channels-last first.

    Args:
        input: (N, C, H, W); float64, float32, float16 or bfloat16, which is computed in float32.
        weight: γ, (C,).
        bias: β, (C,).
        running_mean: μ of inference, (C,); moved by ``training``, where it is given.
        running_var: σ² of inference, (C,); in training the unbiased variance moves it.
        training: μ and σ² are those of the batch, and the gradient flows through them.
        momentum: the share that the batch has in the new running statistics.
        eps: what keeps the root from 0.
        relu: without it, batch normalisation alone.
        beside: (N, C′, H, W) of the input's dtype: the result is ``torch.cat([beside, y], 1)``.
        group: in training, statistics are of the images of all processes of this group, in one
            all-reduce each way. The gradients of weight and bias are this process's part.

    Returns:
        (N, C′ + C, H, W), channels-last, in the input's dtype.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit; one value per channel in
            training; no statistics in inference.
    """
    tensors = _check("norm_relu", input, weight, bias, running_mean, running_var, training)
    if beside is not None:
        require_floating("norm_relu", beside=beside)
        require_one_device("norm_relu", input=input, beside=beside)
        if beside.ndim != 4 or _but_channels(beside) != _but_channels(input):
            raise ValueError(
                "norm_relu: beside must have the shape of input but for its channels, not "
                f"{tuple(beside.shape)} beside {tuple(input.shape)}"
            )
        if beside.dtype != input.dtype:
            raise TypeError(
                f"norm_relu: beside must be {input.dtype} as input is, not {beside.dtype}"
            )
    if _takes_plain_form(group):
        return plain_norm_relu(
            *tensors,
            running_mean,
            running_var,
            training=training,
            momentum=momentum,
            eps=eps,
            relu=relu,
            beside=beside,
        )
    statistics = _choose_statistics(input, running_mean, running_var, training, momentum, group)
    options = _Options(eps, relu, False, training, group)
    output: Tensor = _NormReLU.apply(*tensors, beside, *statistics, options)
    return output


def norm_relu_pool(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    *,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
    group: "dist.ProcessGroup | None" = None,
) -> tuple[Tensor, Tensor]:
    """:func:`norm_relu` and ``F.max_pool2d(…, 2)`` of its result, in one pass.

    Of equal values in a window the first gets the gradient, and NaN is the largest, as in torch;
    values of a half type are compared before they are rounded to it. Deterministic on every device.

    Args:
        input, weight, bias, running_mean, running_var, training, momentum, eps, group: as for
            :func:`norm_relu`; the sides of the input must be even.

    Returns:
        (N, C, H, W) and (N, C, H/2, W/2), channels-last, in the input's dtype.

    Raises:
        ValueError, TypeError: as :func:`norm_relu`; a side is odd.
    """
    tensors = _check("norm_relu_pool", input, weight, bias, running_mean, running_var, training)
    if input.shape[2] % 2 or input.shape[3] % 2:
        raise ValueError(
            f"norm_relu_pool: the sides of input must be even, not {tuple(input.shape[2:])}; pad it"
        )
    if _takes_plain_form(group):
        return plain_norm_relu_pool(
            *tensors, running_mean, running_var, training=training, momentum=momentum, eps=eps
        )
    statistics = _choose_statistics(input, running_mean, running_var, training, momentum, group)
    options = _Options(eps, True, True, training, group)
    output, pooled = _NormReLU.apply(*tensors, None, *statistics, options)
    return output, pooled


def _takes_plain_form(group: "dist.ProcessGroup | None") -> bool:
    """Inside transforms of torch.func, under which tensors have no layout to ask for."""
    return group is None and not torch.compiler.is_compiling() and is_transforming()


def _but_channels(tensor: Tensor) -> tuple[int, ...]:
    return (tensor.shape[0], *tensor.shape[2:])


def _check(
    op: str,
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    statistics = {"running_mean": running_mean, "running_var": running_var}
    others = {name: tensor for name, tensor in statistics.items() if tensor is not None}
    if not others and not training:
        raise ValueError(f"{op}: give running_mean and running_var, or training=True")
    if len(others) == 1:
        raise ValueError(f"{op}: give running_mean and running_var both, or neither")
    own = {"input": input, "weight": weight, "bias": bias, **others}
    require_floating(op, **own)
    require_one_device(op, **own)
    if input.ndim != 4:
        raise ValueError(f"{op}: input must be (N, C, H, W), not {tuple(input.shape)}")
    for name, tensor in own.items():
        if name != "input" and tensor.shape != input.shape[1:2]:
            raise ValueError(
                f"{op}: {name} must be ({input.shape[1]},), a number per channel of input, not "
                f"{tuple(tensor.shape)}"
            )
    return input, weight, bias


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _count(input: Tensor) -> int:
    """Values of a channel."""
    return input.shape[0] * input.shape[2] * input.shape[3]


def _choose_statistics(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float | Tensor,
    group: "dist.ProcessGroup | None",
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mean and variance, and with a group the number of values on all its processes; in training
    those of the batch, by which the running ones move."""
    wide = _wide(input)
    if not training:
        assert running_mean is not None
        assert running_var is not None
        return running_mean.detach().to(wide), running_var.detach().to(wide), None
    own = _count(input)
    if own == 1 and group is None:
        raise ValueError(
            f"norm_relu: expected more than 1 value per channel when training, got input size "
            f"{tuple(input.shape)}"
        )
    total: Tensor | None = None
    mean, variance = torch.ops.ichfast.norm_relu_moments(input.detach())
    if group is None:
        unbiased = variance * (own / max(own - 1, 1))
    else:
        # In float64 the difference of squares loses nothing that the values have.
        mean, variance = mean.double(), variance.double()
        count = mean.new_full((1,), own)
        if own == 0:
            mean, variance = torch.zeros_like(mean), torch.zeros_like(variance)
        parts = torch.cat([own * mean, own * (variance + mean.square()), count])
        channels = input.shape[1]
        mean, square, total = sum_over(parts, group).split([channels, channels, 1])
        mean = mean / total
        variance = (square / total - mean.square()).clamp(min=0)
        unbiased = variance * total / (total - 1)
    if running_mean is not None and running_var is not None:
        for running, value in ((running_mean, mean), (running_var, unbiased)):
            running.lerp_(value.to(running.dtype), momentum)
    return mean.to(wide), variance.to(wide), total


class _Options(NamedTuple):
    eps: float
    relu: bool
    pool: bool
    training: bool
    group: "dist.ProcessGroup | None"


class _NormReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor,
        beside: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        total: Tensor | None,
        options: _Options,
    ) -> Any:
        ctx.save_for_backward(input, weight, bias, mean, variance, total)
        ctx.set_materialize_grads(False)
        ctx.options, ctx.before = options, 0 if beside is None else beside.shape[1]
        wide = _wide(input)
        output, pooled = torch.ops.ichfast.norm_relu(
            input,
            weight.to(wide),
            bias.to(wide),
            mean,
            variance,
            beside,
            options.eps,
            options.relu,
            options.pool,
        )
        return (output, pooled) if options.pool else output

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, grad_pooled: Tensor | None = None
    ) -> tuple[Tensor | None, ...]:
        if grad is None and grad_pooled is None:
            return (None,) * 8
        to_beside = None
        if ctx.before and grad is not None:
            to_beside = grad[:, : ctx.before] if ctx.needs_input_grad[3] else None
            grad = grad[:, ctx.before :]
        if torch.is_grad_enabled():  # double backward: differentiate the plain form instead
            of_tensors = _differentiate_plain(ctx, grad, grad_pooled)
        else:
            of_tensors = _differentiate(ctx, grad, grad_pooled)
        return *of_tensors, to_beside, *[None] * 4


def _differentiate(
    ctx: Any, grad: Tensor | None, grad_pooled: Tensor | None
) -> list[Tensor | None]:
    input, weight, bias, mean, variance, total = ctx.saved_tensors
    eps, relu, _, training, group = ctx.options
    wide = _wide(input)
    arguments = (input, weight.to(wide), bias.to(wide), mean, variance)
    want_input, want_weight, want_bias = ctx.needs_input_grad[:3]
    sums: Any = None
    to_weight, to_bias, to_input = None, None, None
    if training or want_weight or want_bias:
        sums = torch.ops.ichfast.norm_relu_sums_backward(grad, grad_pooled, *arguments, eps, relu)
    if want_weight:
        to_weight = sums[1].to(weight.dtype)
    if want_bias:
        to_bias = sums[0].to(bias.dtype)
    if want_input:
        if not training:
            sums = None
        elif total is not None:  # the op divides by the number of its own values
            sums = sum_over(sums, group) * (_count(input) / total)
        to_input = torch.ops.ichfast.norm_relu_backward(
            grad, grad_pooled, *arguments, sums, eps, relu
        )
    return [to_input, to_weight, to_bias]


def _differentiate_plain(
    ctx: Any, grad: Tensor | None, grad_pooled: Tensor | None
) -> list[Tensor | None]:
    input, weight, bias, mean, variance, _ = ctx.saved_tensors
    eps, relu, pool, training, group = ctx.options
    if group is not None:
        raise NotImplementedError(
            "norm_relu: no double backward over a group; leave group out for that"
        )
    statistics = (None, None) if training else (mean, variance)
    options: dict[str, Any] = {"training": training, "eps": eps}
    outputs: tuple[Tensor, ...]
    if pool:
        outputs = plain_norm_relu_pool(input, weight, bias, *statistics, **options)
    else:
        outputs = (plain_norm_relu(input, weight, bias, *statistics, relu=relu, **options),)
    arrived = [
        (output, one)
        for output, one in zip(outputs, (grad, grad_pooled), strict=False)
        if one is not None
    ]
    tensors = (input, weight, bias)
    wanted = [one for one, want in zip(tensors, ctx.needs_input_grad, strict=False) if want]
    found = iter(
        torch.autograd.grad(
            [output for output, _ in arrived],
            wanted,
            [one for _, one in arrived],
            create_graph=True,
        )
    )
    return [next(found) if want else None for want in ctx.needs_input_grad[:3]]


def _empty_pixels(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    """The twin of csrc/common/pixels.h."""
    return torch.empty(
        (like.shape[0], channels, height, width),
        dtype=like.dtype,
        device=like.device,
        memory_format=torch.channels_last,
    )


@torch.library.register_fake("ichfast::norm_relu_moments")
def _(input: Tensor) -> tuple[Tensor, Tensor]:
    mean = input.new_empty((input.shape[1],), dtype=_wide(input))
    return mean, torch.empty_like(mean)


@torch.library.register_fake("ichfast::norm_relu")
def _(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    beside: Tensor | None,
    eps: float,
    relu: bool,
    pool: bool,
) -> tuple[Tensor, Tensor]:
    _, channels, height, width = input.shape
    before = 0 if beside is None else beside.shape[1]
    output = _empty_pixels(input, before + channels, height, width)
    if not pool:
        return output, input.new_empty((0,))
    return output, _empty_pixels(input, channels, height // 2, width // 2)


@torch.library.register_fake("ichfast::norm_relu_sums_backward")
def _(grad: Tensor | None, grad_pooled: Tensor | None, input: Tensor, *others: Any) -> Tensor:
    return input.new_empty((2, input.shape[1]), dtype=torch.float64)


@torch.library.register_fake("ichfast::norm_relu_backward")
def _(grad: Tensor | None, grad_pooled: Tensor | None, input: Tensor, *others: Any) -> Tensor:
    return _empty_pixels(input, *input.shape[1:])
