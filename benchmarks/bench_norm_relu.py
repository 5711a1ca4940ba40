"""Batch normalisation and ReLU of a layer in training, with 2×2 max-pooling behind it or not.

Eager is what a network would call: ``F.batch_norm`` in the input's own dtype with float32 weights.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.devices import Device, Run
from benchmarks.harness import BANDWIDTH, OURS, Case, Target, compile_static, name_dtype, name_shape
from benchmarks.passes import BOTH
from benchmarks.registry import Benchmark
from ichfast.ops.norm_relu import norm_relu, norm_relu_pool

SIZE = {"cpu": (16, 64, 128, 128), "cuda": (16, 64, 256, 256)}
QUICK = (2, 8, 16, 16)
CHANNELS_LAST = torch.channels_last
TARGETS = {
    "cpu": (Target("eager", 2.0), Target("compile", 1.0)),
    "cuda": (Target(BANDWIDTH, 0.85),),
}

Layer = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]


def ours(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    return (norm_relu(x, weight, bias, training=True),)


def ours_pooled(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    return norm_relu_pool(x, weight, bias, training=True)


def plain(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    return (F.relu(F.batch_norm(x, None, None, weight, bias, training=True)),)


def plain_pooled(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    (output,) = plain(x, weight, bias)
    return output, F.max_pool2d(output, 2)


def list_cases(device: Device, quick: bool) -> list[Callable[[], Iterable[Case]]]:
    return [
        partial(_make_case, device, dtype, pooled, quick)
        for dtype in (torch.float32, torch.bfloat16)
        for pooled in (False, True)
    ]


BENCHMARK = Benchmark(list_cases)


def _make_case(device: Device, dtype: torch.dtype, pooled: bool, quick: bool) -> Iterator[Case]:
    own, other = (ours_pooled, plain_pooled) if pooled else (ours, plain)
    compiled: Layer = compile_static(other)  # type: ignore[arg-type, assignment]
    layers: dict[str, Layer] = {OURS: own, "eager": other, "compile": compiled}
    size = QUICK if quick else SIZE[device.kind]
    generator = torch.Generator(device.place).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device.place)

    x = draw(*size).to(dtype).contiguous(memory_format=CHANNELS_LAST).requires_grad_()
    weight, bias = draw(size[1]).requires_grad_(), draw(size[1]).requires_grad_()
    arriving = tuple(draw(*y.shape).to(y) for y in other(x, weight, bias))
    arriving = tuple(g.contiguous(memory_format=CHANNELS_LAST) for g in arriving)

    def both(layer: Layer) -> Run:
        def run() -> list[Tensor]:
            results = layer(x, weight, bias)
            gradients = torch.autograd.grad(results, (x, weight, bias), arriving)
            return [*(y.detach() for y in results), *gradients]

        return run

    yield Case(
        op="norm_relu",
        work=BOTH + (", pooled" if pooled else ""),
        shape=name_shape(x),
        dtype=name_dtype(dtype),
        contenders={name: [both(layer)] for name, layer in layers.items()},
        # Forward reads the input for its moments and for the result, backward input and gradient
        # for two sums and for the gradient.
        read=(x, x, x, x, *arriving, *arriving),
        written=(*arriving, x),
        tolerance=1e-2 if dtype == torch.float32 else 3e-2,  # torch sums in float32
        targets=() if quick else TARGETS[device.kind],
    )
