"""Lesions pasted into a batch with soft edges, and rectangles with sharp ones (CutMix).

``eager`` is the op's plain form: a convolution in which each image is a group with its own weights.
``eager tight`` is the fastest form that we found in torch's operators where all images have one
feather, which is known beforehand: of each image only the box around its lesion is blurred and
mixed, in a copy; rectangles are chosen by ``torch.where``. ``torch.compile`` gets sums of shifted
images, which it makes two or three loops of.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.devices import Device, Run
from benchmarks.harness import OURS, Case, Target, compile_static
from benchmarks.passes import Inputs, make_input_sets
from benchmarks.registry import Benchmark
from ichfast.ops.paste import paste
from ichfast.ops.reference.paste import paste as plain_paste

LESION, CUTMIX = "lesion", "CutMix"
SIGMA = {LESION: 1.0, CUTMIX: 0.0}
BOUNDS = {LESION: (0.1, 0.95), CUTMIX: (-math.inf, math.inf)}
QUICK_SIZE = (2, 1, 32, 32)


@dataclass(frozen=True)
class PastePlan:
    work: str
    size: tuple[int, int, int, int]
    in_graph: bool = False  # also as single calls and in a CUDA graph
    targets: tuple[Target, ...] = ()


FASTER = (Target("eager", 5.0), Target("eager tight", 5.0))
PLANS = {
    "cpu": (
        PastePlan(LESION, (8, 1, 128, 128), targets=FASTER),
        PastePlan(LESION, (16, 1, 256, 256), targets=FASTER),
        PastePlan(CUTMIX, (16, 1, 256, 256)),
    ),
    "cuda": (
        PastePlan(LESION, (16, 1, 256, 256), in_graph=True),
        PastePlan(LESION, (256, 1, 512, 512)),
        PastePlan(CUTMIX, (256, 1, 512, 512)),
    ),
}


def list_cases(device: Device, quick: bool) -> list[Callable[[], Iterable[Case]]]:
    if quick:
        graph = device.kind == "cuda"
        plans = tuple(PastePlan(work, QUICK_SIZE, in_graph=graph) for work in (LESION, CUTMIX))
    else:
        plans = PLANS[device.kind]
    return [partial(_make_cases, device, plan) for plan in plans]


BENCHMARK = Benchmark(list_cases, order=4.5)


def _make_cases(device: Device, plan: PastePlan) -> Iterator[Case]:
    batch, _, height, width = plan.size

    def inputs(generator: torch.Generator) -> Inputs:
        image, source = (torch.rand(plan.size, generator=generator) for _ in range(2))
        regions = [_REGIONS[plan.work](height, width, generator) for _ in range(batch)]
        region = torch.stack(regions)[:, None].to(torch.uint8)
        target = (torch.rand(plan.size, generator=generator) < 0.02).to(torch.uint8)
        return Inputs((image, target, source, region, region))

    low, high = BOUNDS[plan.work]
    feather = torch.full((batch,), SIGMA[plan.work], device=device.place)

    def run(function: Callable[..., Any], one: Inputs) -> Run:
        return lambda: function(*one.arguments, feather=feather, low=low, high=high)

    shifted: Callable[..., Any] = partial(_paste_shifted, sigma=SIGMA[plan.work])
    implementations: dict[str, Callable[..., Any]] = {
        OURS: paste,
        "eager": plain_paste,
        "eager tight": _TIGHT[plan.work],
        "compile": compile_static(shifted),
    }
    sets = make_input_sets(inputs, device)
    image, target, _, region, _ = sets[0].arguments
    yield Case(
        op="paste",
        work=plan.work,
        shape="×".join(map(str, plan.size)),
        dtype="float32, uint8",
        contenders={
            name: [run(function, one) for one in sets] for name, function in implementations.items()
        },
        # Of the source the region alone is needed, and its target there is the region.
        read=(image, target, region, image.flatten()[: int(region.sum())]),
        written=(image, target),
        tolerance=1e-6,
        in_graph=(OURS, "eager", "compile") if plan.in_graph else (),
        images=batch,
        targets=plan.targets,
    )


def _draw_ellipse(height: int, width: int, generator: torch.Generator) -> Tensor:
    """2 % of the image, as many lesions are; somewhere in the middle half."""
    y, x, ratio = (torch.rand(3, generator=generator) * torch.tensor([0.5, 0.5, 1.0])).tolist()
    ratio = 2.0 ** (2 * ratio - 1)
    radius = math.sqrt(0.02 / math.pi)
    rows = (torch.arange(height) + 0.5)[:, None] / height - 0.25 - y
    columns = (torch.arange(width) + 0.5) / width - 0.25 - x
    inside: Tensor = (rows / ratio).square() + (columns * ratio).square() < radius**2
    return inside


def _draw_rectangle(height: int, width: int, generator: torch.Generator) -> Tensor:
    """A quarter of the image."""
    y, x = torch.rand(2, generator=generator).tolist()
    region = torch.zeros(height, width, dtype=torch.bool)
    top, left = int(y * height / 2), int(x * width / 2)
    region[top : top + height // 2, left : left + width // 2] = True
    return region


_REGIONS = {LESION: _draw_ellipse, CUTMIX: _draw_rectangle}


def _weights(sigma: float) -> list[float]:
    """Of the pixel itself and of its neighbours on one side."""
    reach = math.ceil(3 * sigma)
    weights = [1.0, *(math.exp(-0.5 * (k / sigma) ** 2) for k in range(1, reach + 1))]
    total = weights[0] + 2 * sum(weights[1:])
    return [weight / total for weight in weights]


def _paste_in_boxes(
    image: Tensor,
    target: Tensor,
    source: Tensor,
    source_target: Tensor,
    region: Tensor,
    *,
    feather: Tensor,
    low: float,
    high: float,
    sigma: float,
) -> tuple[Tensor, Tensor]:
    middle, *side = _weights(sigma)
    reach = len(side)
    weights = torch.tensor([*side[::-1], middle, *side], device=image.device)
    pasted, moved = image.clone(), target.clone()
    inside = region[:, 0] != 0
    rows, columns = inside.any(2), inside.any(1)
    for b in range(len(image)):
        y, x = rows[b].nonzero(), columns[b].nonzero()
        top, bottom = max(int(y[0]) - reach, 0), int(y[-1]) + 1 + reach
        left, right = max(int(x[0]) - reach, 0), int(x[-1]) + 1 + reach
        box = (slice(b, b + 1), slice(None), slice(top, bottom), slice(left, right))
        under = image[box]
        chosen = (region[box] != 0) & (under >= low) & (under <= high)
        a = functional.conv2d(chosen.float(), weights.view(1, 1, 1, -1), padding="same")
        a = functional.conv2d(a, weights.view(1, 1, -1, 1), padding="same")
        torch.lerp(under, source[box], a, out=pasted[box])
        torch.where(chosen, source_target[box], target[box], out=moved[box])
    return pasted, moved


def _paste_shifted(
    image: Tensor,
    target: Tensor,
    source: Tensor,
    source_target: Tensor,
    region: Tensor,
    *,
    feather: Tensor,
    low: float,
    high: float,
    sigma: float,
) -> tuple[Tensor, Tensor]:
    chosen = region != 0
    if math.isfinite(low):
        chosen = chosen & (image >= low)
    if math.isfinite(high):
        chosen = chosen & (image <= high)
    moved = torch.where(chosen, source_target, target)
    if sigma == 0:
        return torch.where(chosen, source, image), moved
    middle, *side = _weights(sigma)
    reach = len(side)
    a = chosen.float()
    for dim, padding in ((3, (reach, reach)), (2, (0, 0, reach, reach))):
        padded, size = functional.pad(a, padding), a.shape[dim]
        a = middle * padded.narrow(dim, reach, size)
        for k, weight in enumerate(side, 1):
            before = padded.narrow(dim, reach - k, size)
            a = a + weight * (before + padded.narrow(dim, reach + k, size))
    return torch.lerp(image, source, a), moved


_TIGHT = {
    LESION: partial(_paste_in_boxes, sigma=SIGMA[LESION]),
    CUTMIX: partial(_paste_shifted, sigma=SIGMA[CUTMIX]),
}
