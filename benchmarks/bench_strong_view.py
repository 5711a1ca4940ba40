"""Strong views of a batch: blur, gamma and noise.

``eager`` is the same with torch's operators as one would write them: a separable blur by grouped
``conv2d``, a power, ``randn``, ``clamp``. ``eager tight`` blurs by adding up shifted images, the
fastest form for so few taps that we found on a CPU; ``torch.compile`` gets that one too.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from benchmarks.devices import Device, Run
from benchmarks.harness import OURS, Case, Target, compile_static, name_dtype, name_shape
from benchmarks.passes import QUICK_SIZE, Inputs, make_input_sets
from benchmarks.registry import Benchmark
from ichfast.ops.strong_view import strong_view

GAMMA, BLUR, NOISE = (0.7, 1.5), (0.0, 1.5), (0.01, 0.03)  # drawn for each image between these


@dataclass(frozen=True)
class ViewPlan:
    size: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    in_graph: bool = False
    targets: tuple[Target, ...] = ()


FIVE_TIMES = (Target("eager", 5.0),)
PLANS = {
    "cpu": (
        ViewPlan((8, 1, 128, 128), targets=FIVE_TIMES),
        ViewPlan((16, 1, 256, 256), targets=FIVE_TIMES),
    ),
    "cuda": (
        ViewPlan((16, 1, 256, 256), in_graph=True, targets=FIVE_TIMES),
        ViewPlan((1024, 1, 256, 256)),
        ViewPlan((1024, 1, 256, 256), torch.bfloat16),
    ),
}


def list_cases(device: Device, quick: bool) -> list[Callable[[], Iterable[Case]]]:
    plans = (ViewPlan(QUICK_SIZE),) if quick else PLANS[device.kind]
    return [partial(_make_cases, device, plan) for plan in plans]


BENCHMARK = Benchmark(list_cases, order=5)


def _make_cases(device: Device, plan: ViewPlan) -> Iterator[Case]:
    batch = plan.size[0]

    def inputs(generator: torch.Generator) -> Inputs:
        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(batch, generator=generator)

        image = torch.rand(plan.size, generator=generator).to(plan.dtype)
        seed = torch.randint(0, 2**62, (batch,), generator=generator)
        return Inputs((image, uniform(*GAMMA), uniform(*BLUR), uniform(*NOISE), seed))

    def fused(image: Tensor, gamma: Tensor, blur: Tensor, noise: Tensor, seed: Tensor) -> Tensor:
        return strong_view(image, gamma=gamma, blur=blur, noise=noise, seed=seed)

    def run(function: Callable[..., Tensor], one: Inputs) -> Run:
        return lambda: (function(*one.arguments),)

    tight = partial(_view, _blur_by_shifts)
    implementations: dict[str, Callable[..., Tensor]] = {
        OURS: fused,
        "eager": partial(_view, _blur_by_convolution),
        "eager tight": tight,
        "compile": compile_static(tight),
    }
    sets = make_input_sets(inputs, device)
    image = sets[0].arguments[0]
    yield Case(
        op="strong_view",
        work="blur, gamma, noise",
        shape=name_shape(image),
        dtype=name_dtype(plan.dtype),
        contenders={
            name: [run(function, one) for one in sets] for name, function in implementations.items()
        },
        read=(image,),
        written=(torch.empty_like(image),),
        # Everybody's noise is another: √2 · 0.03 at most beside grey levels around 0.5.
        tolerance=0.1,
        in_graph=tuple(implementations) if plan.in_graph else (),
        images=batch,
        targets=plan.targets,
    )


def _view(
    blurred: Callable[[Tensor, Tensor], Tensor],
    image: Tensor,
    gamma: Tensor,
    blur: Tensor,
    noise: Tensor,
    seed: Tensor,
) -> Tensor:
    """Half types are blurred and raised as they are; the noise comes from torch's own generator."""
    gamma, noise = (x.to(image.dtype).view(-1, 1, 1, 1) for x in (gamma, noise))
    x = blurred(image, _weights(blur).to(image.dtype)) ** gamma
    return torch.addcmul(x, noise, torch.randn_like(x)).clamp_(0, 1)


def _weights(blur: Tensor) -> Tensor:
    """Of each image, (B, 2·radius + 1), where the radius is that of the largest blur to be drawn:
    to look at the numbers would stall a GPU's stream."""
    radius = -int(-3 * BLUR[1] // 1)
    distance = torch.arange(-radius, radius + 1, device=blur.device)
    sigma = blur[:, None].clamp(min=1e-3)
    weights = torch.exp(-0.5 * (distance / sigma) ** 2) * (distance.abs() <= (3 * sigma).ceil())
    return weights / weights.sum(1, keepdim=True)


def _blur_by_convolution(image: Tensor, weights: Tensor) -> Tensor:
    batch, taps = weights.shape
    margin = taps // 2
    x = image.transpose(0, 1)  # a channel per image
    x = pad(x, (margin, margin, margin, margin), mode="replicate")
    x = conv2d(x, weights.view(batch, 1, taps, 1), groups=batch)
    return conv2d(x, weights.view(batch, 1, 1, taps), groups=batch).transpose(0, 1)


def _blur_by_shifts(image: Tensor, weights: Tensor) -> Tensor:
    batch, taps = weights.shape
    margin = taps // 2
    factors = weights.t().reshape(taps, batch, 1, 1, 1)
    x = pad(image, (margin, margin, margin, margin), mode="replicate")
    for dim in (2, 3):
        n = image.shape[dim]
        total = factors[0] * x.narrow(dim, 0, n)
        for k in range(1, taps):
            total.addcmul_(factors[k], x.narrow(dim, k, n))
        x = total
    return x
