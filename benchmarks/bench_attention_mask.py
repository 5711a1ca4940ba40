"""The two attention-masked images, forward and backward."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch

from benchmarks.devices import Device
from benchmarks.harness import OURS, Case, compile_static
from benchmarks.passes import (
    APART,
    BANDWIDTH_TARGET,
    Inputs,
    PassPlan,
    choose_plans,
    make_input_sets,
    make_pass_cases,
)
from benchmarks.registry import Benchmark
from ichfast.ops.attention_mask import attention_mask
from ichfast.ops.reference.attention_mask import attention_mask as plain_attention_mask

LARGE = (64, 1, 1024, 1024)
PLANS = {
    "cpu": (
        PassPlan((8, 1, 256, 256), torch.float32),
        PassPlan((32, 1, 512, 512), torch.float32),
    ),
    "cuda": (
        PassPlan((8, 1, 256, 256), torch.float32, in_graph=True),
        PassPlan((32, 1, 256, 256), torch.float32, in_graph=True),
        PassPlan(LARGE, torch.float32, APART, targets_apart=BANDWIDTH_TARGET),
        PassPlan(LARGE, torch.bfloat16, APART, targets_apart=BANDWIDTH_TARGET),
    ),
}


def list_cases(device: Device, quick: bool) -> list[Callable[[], Iterable[Case]]]:
    return [partial(_make_cases, device, plan) for plan in choose_plans(PLANS[device.kind], quick)]


BENCHMARK = Benchmark(list_cases)


def _make_cases(device: Device, plan: PassPlan) -> Iterator[Case]:
    size = plan.size
    pair = (size[0], 2, *size[2:])

    def inputs(generator: torch.Generator) -> Inputs:
        image = torch.rand(size, generator=generator).to(plan.dtype)
        logits = torch.randn(size, generator=generator).to(plan.dtype).requires_grad_()
        return Inputs(
            (image, logits), (logits,), torch.randn(pair, generator=generator).to(plan.dtype)
        )

    implementations = {
        OURS: attention_mask,
        "eager": plain_attention_mask,
        "compile": compile_static(plain_attention_mask),
    }
    sets = make_input_sets(inputs, device)
    yield from make_pass_cases("attention_mask", plan, sets, implementations, returns_images=True)
