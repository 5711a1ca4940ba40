"""TP, FP and FN per image."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch

from benchmarks.devices import Device
from benchmarks.harness import OURS, Case, compile_static
from benchmarks.passes import (
    BANDWIDTH_TARGET,
    FORWARD,
    Inputs,
    PassPlan,
    choose_plans,
    make_input_sets,
    make_pass_cases,
)
from benchmarks.registry import Benchmark
from ichfast.ops.overlap_counts import overlap_counts
from ichfast.ops.reference.overlap_counts import overlap_counts as plain_overlap_counts

WORKS = (FORWARD,)
PLANS = {
    "cpu": (
        PassPlan((8, 1, 256, 256), torch.float32, WORKS),
        PassPlan((32, 1, 512, 512), torch.float32, WORKS),
    ),
    "cuda": (
        PassPlan((8, 1, 256, 256), torch.float32, WORKS, in_graph=True),
        PassPlan((32, 1, 256, 256), torch.float32, WORKS, in_graph=True),
        PassPlan((128, 1, 1024, 1024), torch.float32, WORKS, targets_apart=BANDWIDTH_TARGET),
        PassPlan((256, 1, 1024, 1024), torch.bfloat16, WORKS, targets_apart=BANDWIDTH_TARGET),
    ),
}


def list_cases(device: Device, quick: bool) -> list[Callable[[], Iterable[Case]]]:
    return [partial(_make_cases, device, plan) for plan in choose_plans(PLANS[device.kind], quick)]


BENCHMARK = Benchmark(list_cases)


def _make_cases(device: Device, plan: PassPlan) -> Iterator[Case]:
    def inputs(generator: torch.Generator) -> Inputs:
        prediction = torch.rand(plan.size, generator=generator).to(plan.dtype)
        target = torch.rand(plan.size, generator=generator) > 0.9
        return Inputs((prediction, target.to(torch.uint8)))

    implementations = {
        OURS: overlap_counts,
        "eager": plain_overlap_counts,
        "compile": compile_static(plain_overlap_counts),
    }
    sets = make_input_sets(inputs, device)
    yield from make_pass_cases("overlap_counts", plan, sets, implementations, tolerance=0.0)
