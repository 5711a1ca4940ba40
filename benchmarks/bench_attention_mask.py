"""The two attention-masked images, forward and backward."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch

from benchmarks.devices import Device
from benchmarks.harness import OURS, Case, compiled
from benchmarks.passes import (
    APART,
    OWED_BANDWIDTH,
    Inputs,
    Plan,
    input_sets,
    pass_cases,
    plans,
)
from ichfast import ops
from ichfast.ops import reference

LARGE = (64, 1, 1024, 1024)
PLANS = {
    "cpu": (
        Plan((8, 1, 256, 256), torch.float32),
        Plan((32, 1, 512, 512), torch.float32),
    ),
    "cuda": (
        Plan((8, 1, 256, 256), torch.float32, in_graph=True),
        Plan((32, 1, 256, 256), torch.float32, in_graph=True),
        Plan(LARGE, torch.float32, APART, owed_apart=OWED_BANDWIDTH),
        Plan(LARGE, torch.bfloat16, APART, owed_apart=OWED_BANDWIDTH),
    ),
}


def cases(device: Device, quick: bool) -> list[Callable[[], Iterable[Case]]]:
    return [partial(_cases, device, plan) for plan in plans(PLANS[device.kind], quick)]


def _cases(device: Device, plan: Plan) -> Iterator[Case]:
    size = plan.size
    pair = (size[0], 2, *size[2:])

    def inputs(generator: torch.Generator) -> Inputs:
        image = torch.rand(size, generator=generator).to(plan.dtype)
        logits = torch.randn(size, generator=generator).to(plan.dtype).requires_grad_()
        return Inputs(
            (image, logits), (logits,), torch.randn(pair, generator=generator).to(plan.dtype)
        )

    implementations = {
        OURS: ops.attention_mask,
        "eager": reference.attention_mask,
        "compile": compiled(reference.attention_mask),
    }
    sets = input_sets(inputs, device)
    yield from pass_cases("attention_mask", plan, sets, implementations, returns_images=True)
