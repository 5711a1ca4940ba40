"""The unsupervised loss L_u, forward and backward, with the mask differentiated ("flow") or not."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch

from benchmarks.devices import Device
from benchmarks.harness import COPY, OURS, Case, Target, compile_static
from benchmarks.passes import (
    APART,
    BACKWARD,
    BANDWIDTH_TARGET,
    Inputs,
    PassPlan,
    choose_plans,
    make_input_sets,
    make_pass_cases,
)
from benchmarks.registry import Benchmark
from ichfast.ops.attention_wmse import attention_wmse
from ichfast.ops.reference.attention_wmse import attention_wmse as plain_attention_wmse

LARGE = (64, 1, 1024, 1024)
ON_CPU = (Target("eager", 6.0), Target("compile", 1.7))
ON_GPU = (Target("eager", 6.0), Target("compile", 1.5), Target("eager", 10.0, graph=True))
CPU_PLANS = (
    PassPlan((8, 1, 256, 256), torch.float32, targets=ON_CPU),
    PassPlan((32, 1, 512, 512), torch.float32, targets=(*ON_CPU, Target(COPY, 1.6))),
    PassPlan((32, 1, 512, 512), torch.bfloat16),
)
SMALL_ON_GPU = PassPlan((32, 1, 256, 256), torch.float32, in_graph=True, targets=ON_GPU)
FLOW, STOP = True, False
PLANS = {
    ("cpu", FLOW): CPU_PLANS,
    ("cpu", STOP): CPU_PLANS,
    ("cuda", FLOW): (
        PassPlan((8, 1, 256, 256), torch.float32, in_graph=True),
        SMALL_ON_GPU,
        PassPlan(LARGE, torch.float32, APART, targets_apart=BANDWIDTH_TARGET),
        PassPlan(LARGE, torch.bfloat16, APART, targets_apart=BANDWIDTH_TARGET),
    ),
    ("cuda", STOP): (  # whose forward pass is the same
        SMALL_ON_GPU,
        PassPlan(LARGE, torch.float32, (BACKWARD,), targets_apart=BANDWIDTH_TARGET),
    ),
}


def list_cases(device: Device, quick: bool) -> list[Callable[[], Iterable[Case]]]:
    return [
        partial(_make_cases, device, plan, flow)
        for flow in (FLOW, STOP)
        for plan in choose_plans(PLANS[device.kind, flow], quick)
    ]


BENCHMARK = Benchmark(list_cases, order=1, memory=True)


def _make_cases(device: Device, plan: PassPlan, flow: bool) -> Iterator[Case]:
    size = plan.size
    pair = (size[0], 2, *size[2:])

    def inputs(generator: torch.Generator) -> Inputs:
        image = torch.rand(size, generator=generator).to(plan.dtype)
        logits = torch.randn(size, generator=generator).to(plan.dtype).requires_grad_(flow)
        reconstruction = torch.randn(pair, generator=generator).to(plan.dtype).requires_grad_()
        wanted = (logits, reconstruction) if flow else (reconstruction,)
        incoming = torch.ones(size[0])
        return Inputs((image, logits, reconstruction), wanted, incoming)

    implementations = {
        OURS: attention_wmse,
        "eager": plain_attention_wmse,
        "compile": compile_static(plain_attention_wmse),
    }
    note = f', "{"flow" if flow else "stop"}"'
    sets = make_input_sets(inputs, device)
    yield from make_pass_cases("attention_wmse", plan, sets, implementations, note=note)
