"""The Tversky loss with sigmoid, forward and backward."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial

import torch
from torch import Tensor

from benchmarks.devices import Device
from benchmarks.harness import OURS, Case, Target, compile_static
from benchmarks.passes import (
    APART,
    BACKWARD,
    BANDWIDTH_TARGET,
    FORWARD,
    Inputs,
    PassPlan,
    choose_plans,
    make_input_sets,
    make_pass_cases,
)
from benchmarks.registry import Benchmark
from ichfast.ops.reference.tversky import tversky as plain_tversky
from ichfast.ops.tversky import tversky

LARGE, TWICE_AS_LARGE = (64, 1, 1024, 1024), (128, 1, 1024, 1024)
PLANS = {
    "cpu": (
        PassPlan((8, 1, 256, 256), torch.float32),
        PassPlan(
            (32, 1, 512, 512), torch.float32, targets=(Target("eager", 3.0), Target("compile", 1.1))
        ),
        PassPlan((32, 1, 512, 512), torch.bfloat16),
    ),
    "cuda": (
        PassPlan((8, 1, 256, 256), torch.float32, in_graph=True),
        PassPlan((32, 1, 256, 256), torch.float32, in_graph=True),
        PassPlan(LARGE, torch.float32, APART, targets_apart=BANDWIDTH_TARGET),
        PassPlan(TWICE_AS_LARGE, torch.bfloat16, APART, targets_apart=BANDWIDTH_TARGET),
        PassPlan(
            TWICE_AS_LARGE, torch.float16, (FORWARD, BACKWARD), targets_apart=BANDWIDTH_TARGET
        ),
    ),
}


def list_cases(device: Device, quick: bool) -> list[Callable[[], Iterable[Case]]]:
    return [partial(_make_cases, device, plan) for plan in choose_plans(PLANS[device.kind], quick)]


BENCHMARK = Benchmark(list_cases, order=2, memory=True)


def _make_cases(device: Device, plan: PassPlan) -> Iterator[Case]:
    def inputs(generator: torch.Generator) -> Inputs:
        logits = torch.randn(plan.size, generator=generator).to(plan.dtype).requires_grad_()
        target = (torch.rand(plan.size, generator=generator) > 0.9).to(plan.dtype)
        return Inputs((logits, target), (logits,), torch.ones(plan.size[:2]))

    implementations: dict[str, Callable[..., Tensor]] = {
        OURS: partial(tversky, sigmoid=True),
        "eager": partial(plain_tversky, sigmoid=True),
        "compile": partial(compile_static(plain_tversky), sigmoid=True),
    }
    # MONAI sums in the dtype of its input: half types lose digits, and float16 overflows.
    if device.kind == "cuda" and plan.dtype == torch.float32:
        implementations["monai"] = monai_dice
    yield from make_pass_cases("tversky", plan, make_input_sets(inputs, device), implementations)


def monai_dice(logits: Tensor, target: Tensor) -> Tensor:
    """The same loss: alpha = beta = ½ is Dice, and MONAI doubles both sums before it smooths."""
    loss: Tensor = _monai_dice_loss()(logits, target)
    return loss.flatten(1)


@cache
def _monai_dice_loss() -> Callable[[Tensor, Tensor], Tensor]:
    from monai.losses.dice import DiceLoss

    loss: Callable[[Tensor, Tensor], Tensor] = DiceLoss(
        sigmoid=True, reduction="none", smooth_nr=2e-5, smooth_dr=2e-5
    )
    return loss
