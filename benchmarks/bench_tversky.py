"""The Tversky loss with sigmoid, forward and backward."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial

import torch
from torch import Tensor

from benchmarks.devices import Device
from benchmarks.harness import OURS, Case, Owed, compiled
from benchmarks.passes import (
    APART,
    BACKWARD,
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

LARGE, TWICE_AS_LARGE = (64, 1, 1024, 1024), (128, 1, 1024, 1024)
PLANS = {
    "cpu": (
        Plan((8, 1, 256, 256), torch.float32),
        Plan((32, 1, 512, 512), torch.float32, owed=(Owed("eager", 3.0), Owed("compile", 1.1))),
        Plan((32, 1, 512, 512), torch.bfloat16),
    ),
    "cuda": (
        Plan((8, 1, 256, 256), torch.float32, in_graph=True),
        Plan((32, 1, 256, 256), torch.float32, in_graph=True),
        Plan(LARGE, torch.float32, APART, owed_apart=OWED_BANDWIDTH),
        Plan(TWICE_AS_LARGE, torch.bfloat16, APART, owed_apart=OWED_BANDWIDTH),
        Plan(TWICE_AS_LARGE, torch.float16, (FORWARD, BACKWARD), owed_apart=OWED_BANDWIDTH),
    ),
}


def cases(device: Device, quick: bool) -> list[Callable[[], Iterable[Case]]]:
    return [partial(_cases, device, plan) for plan in plans(PLANS[device.kind], quick)]


def _cases(device: Device, plan: Plan) -> Iterator[Case]:
    def inputs(generator: torch.Generator) -> Inputs:
        logits = torch.randn(plan.size, generator=generator).to(plan.dtype).requires_grad_()
        target = (torch.rand(plan.size, generator=generator) > 0.9).to(plan.dtype)
        return Inputs((logits, target), (logits,), torch.ones(plan.size[:2]))

    implementations: dict[str, Callable[..., Tensor]] = {
        OURS: partial(ops.tversky, sigmoid=True),
        "eager": partial(reference.tversky, sigmoid=True),
        "compile": partial(compiled(reference.tversky), sigmoid=True),
    }
    # MONAI sums in the dtype of its input: half types lose digits, and float16 overflows.
    if device.kind == "cuda" and plan.dtype == torch.float32:
        implementations["monai"] = monai_dice
    yield from pass_cases("tversky", plan, input_sets(inputs, device), implementations)


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
