"""The unsupervised loss L_u, forward and backward, with the mask differentiated ("flow") or not, in
both balances: the paper's by area, and by region."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Literal

import torch
from torch import Tensor

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
Balance = Literal["paper", "region"]
FLOW, STOP = True, False
PLANS: dict[tuple[str, bool, Balance], tuple[PassPlan, ...]] = {
    ("cpu", FLOW, "paper"): CPU_PLANS,
    ("cpu", STOP, "paper"): CPU_PLANS,
    ("cpu", FLOW, "region"): CPU_PLANS,
    ("cpu", STOP, "region"): CPU_PLANS,
    ("cuda", FLOW, "paper"): (
        PassPlan((8, 1, 256, 256), torch.float32, in_graph=True),
        SMALL_ON_GPU,
        PassPlan(LARGE, torch.float32, APART, targets_apart=BANDWIDTH_TARGET),
        PassPlan(LARGE, torch.bfloat16, APART, targets_apart=BANDWIDTH_TARGET),
    ),
    ("cuda", STOP, "paper"): (  # whose forward pass is the same
        SMALL_ON_GPU,
        PassPlan(LARGE, torch.float32, (BACKWARD,), targets_apart=BANDWIDTH_TARGET),
    ),
    ("cuda", FLOW, "region"): (
        SMALL_ON_GPU,
        PassPlan(LARGE, torch.float32, APART, targets_apart=BANDWIDTH_TARGET),
        PassPlan(LARGE, torch.bfloat16, APART, targets_apart=BANDWIDTH_TARGET),
    ),
}


def list_cases(device: Device, quick: bool) -> list[Callable[[], Iterable[Case]]]:
    return [
        partial(_make_cases, device, plan, flow, balance)
        for (kind, flow, balance), plans in PLANS.items()
        if kind == device.kind
        for plan in choose_plans(plans, quick)
    ]


BENCHMARK = Benchmark(list_cases, order=1, memory=True)


def _make_cases(device: Device, plan: PassPlan, flow: bool, balance: Balance) -> Iterator[Case]:
    size = plan.size
    pair = (size[0], 2, *size[2:])

    def inputs(generator: torch.Generator) -> Inputs:
        image = torch.rand(size, generator=generator).to(plan.dtype)
        logits = torch.randn(size, generator=generator).to(plan.dtype).requires_grad_(flow)
        reconstruction = torch.randn(pair, generator=generator).to(plan.dtype).requires_grad_()
        wanted = (logits, reconstruction) if flow else (reconstruction,)
        incoming = torch.ones(size[0])
        return Inputs((image, logits, reconstruction), wanted, incoming)

    plain = partial(plain_attention_wmse, balance=balance)
    implementations: dict[str, Callable[..., Tensor]] = {
        OURS: partial(attention_wmse, balance=balance),
        "eager": plain,
        "compile": compile_static(plain),
    }
    note = f', "{"flow" if flow else "stop"}"' + (', "region"' if balance == "region" else "")
    sets = make_input_sets(inputs, device)
    yield from make_pass_cases("attention_wmse", plan, sets, implementations, note=note)
