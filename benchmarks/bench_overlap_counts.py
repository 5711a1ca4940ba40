"""TP, FP and FN per image."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch

from benchmarks.devices import Device
from benchmarks.harness import OURS, Case, compiled
from benchmarks.passes import (
    FORWARD,
    OWED_BANDWIDTH,
    Inputs,
    Plan,
    input_sets,
    pass_cases,
    plans,
)
from ichfast import ops
from ichfast.ops import reference

WORKS = (FORWARD,)
PLANS = {
    "cpu": (
        Plan((8, 1, 256, 256), torch.float32, WORKS),
        Plan((32, 1, 512, 512), torch.float32, WORKS),
    ),
    "cuda": (
        Plan((8, 1, 256, 256), torch.float32, WORKS, in_graph=True),
        Plan((32, 1, 256, 256), torch.float32, WORKS, in_graph=True),
        Plan((128, 1, 1024, 1024), torch.float32, WORKS, owed_apart=OWED_BANDWIDTH),
        Plan((256, 1, 1024, 1024), torch.bfloat16, WORKS, owed_apart=OWED_BANDWIDTH),
    ),
}


def cases(device: Device, quick: bool) -> list[Callable[[], Iterable[Case]]]:
    return [partial(_cases, device, plan) for plan in plans(PLANS[device.kind], quick)]


def _cases(device: Device, plan: Plan) -> Iterator[Case]:
    def inputs(generator: torch.Generator) -> Inputs:
        prediction = torch.rand(plan.size, generator=generator).to(plan.dtype)
        target = torch.rand(plan.size, generator=generator) > 0.9
        return Inputs((prediction, target.to(torch.uint8)))

    implementations = {
        OURS: ops.overlap_counts,
        "eager": reference.overlap_counts,
        "compile": compiled(reference.overlap_counts),
    }
    sets = input_sets(inputs, device)
    yield from pass_cases("overlap_counts", plan, sets, implementations, tolerance=0.0)
