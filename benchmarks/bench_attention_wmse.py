"""The unsupervised loss L_u, forward and backward, with the mask differentiated ("flow") or not."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch

from benchmarks.devices import Device
from benchmarks.harness import COPY, OURS, Case, Owed, compiled
from benchmarks.passes import (
    APART,
    BACKWARD,
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
ON_CPU = (Owed("eager", 6.0), Owed("compile", 1.7))
ON_GPU = (Owed("eager", 6.0), Owed("compile", 1.5), Owed("eager", 10.0, graph=True))
CPU_PLANS = (
    Plan((8, 1, 256, 256), torch.float32, owed=ON_CPU),
    Plan((32, 1, 512, 512), torch.float32, owed=(*ON_CPU, Owed(COPY, 1.6))),
    Plan((32, 1, 512, 512), torch.bfloat16),
)
SMALL_ON_GPU = Plan((32, 1, 256, 256), torch.float32, in_graph=True, owed=ON_GPU)
FLOW, STOP = True, False
PLANS = {
    ("cpu", FLOW): CPU_PLANS,
    ("cpu", STOP): CPU_PLANS,
    ("cuda", FLOW): (
        Plan((8, 1, 256, 256), torch.float32, in_graph=True),
        SMALL_ON_GPU,
        Plan(LARGE, torch.float32, APART, owed_apart=OWED_BANDWIDTH),
        Plan(LARGE, torch.bfloat16, APART, owed_apart=OWED_BANDWIDTH),
    ),
    ("cuda", STOP): (  # whose forward pass is the same
        SMALL_ON_GPU,
        Plan(LARGE, torch.float32, (BACKWARD,), owed_apart=OWED_BANDWIDTH),
    ),
}


def cases(device: Device, quick: bool) -> list[Callable[[], Iterable[Case]]]:
    return [
        partial(_cases, device, plan, flow)
        for flow in (FLOW, STOP)
        for plan in plans(PLANS[device.kind, flow], quick)
    ]


def _cases(device: Device, plan: Plan, flow: bool) -> Iterator[Case]:
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
        OURS: ops.attention_wmse,
        "eager": reference.attention_wmse,
        "compile": compiled(reference.attention_wmse),
    }
    note = f', "{"flow" if flow else "stop"}"'
    sets = input_sets(inputs, device)
    yield from pass_cases("attention_wmse", plan, sets, implementations, note=note)
