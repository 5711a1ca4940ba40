"""The Tversky loss with the cross-entropy, as losses of a training step: forward and backward."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial

import torch
from torch import Tensor

from benchmarks.devices import Device
from benchmarks.harness import COPY, OURS, Case, Target, compile_static
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
from ichfast.ops.reference.tversky_bce import tversky_bce as plain_tversky_bce
from ichfast.ops.tversky_bce import tversky_bce

LARGE = (64, 1, 1024, 1024)
PLANS = {
    "cpu": (
        PassPlan((8, 1, 256, 256), torch.float32),
        PassPlan(
            (32, 1, 512, 512),
            torch.float32,
            targets=(Target("eager", 5.0), Target("compile", 1.3), Target(COPY, 1.6)),
        ),
        PassPlan((32, 1, 512, 512), torch.bfloat16),
    ),
    "cuda": (
        PassPlan((8, 1, 256, 256), torch.float32, in_graph=True),
        PassPlan((32, 1, 256, 256), torch.float32, in_graph=True),
        PassPlan(LARGE, torch.float32, APART, targets_apart=BANDWIDTH_TARGET),
        PassPlan(LARGE, torch.bfloat16, APART),  # bound by arithmetic: docs/kernels.md
    ),
}
MASKED = {
    "cpu": (PassPlan((8, 4, 512, 512), torch.float32),),
    "cuda": (PassPlan(LARGE, torch.float32, APART),),
}


def list_cases(device: Device, quick: bool) -> list[Callable[[], Iterable[Case]]]:
    return [
        partial(_make_cases, device, plan, masked=table is MASKED)
        for table in (PLANS, MASKED)
        for plan in choose_plans(table[device.kind], quick)
    ]


BENCHMARK = Benchmark(list_cases, order=2.5, memory=True)


def _make_cases(device: Device, plan: PassPlan, *, masked: bool) -> Iterator[Case]:
    def inputs(generator: torch.Generator) -> Inputs:
        logits = torch.randn(plan.size, generator=generator).to(plan.dtype).requires_grad_()
        target = (torch.rand(plan.size, generator=generator) > 0.9).to(plan.dtype)
        arguments = [logits, target]
        if masked:
            size = (plan.size[0], 1, *plan.size[2:])
            arguments.append(torch.rand(size, generator=generator) < 0.8)
        return Inputs(tuple(arguments), (logits,), torch.ones(()))

    implementations: dict[str, Callable[..., Tensor]] = {
        OURS: partial(reduce, tversky_bce),
        "eager": partial(reduce, plain_tversky_bce),
        "compile": partial(compile_static(reduce), plain_tversky_bce),
    }
    # MONAI has no mask, and sums in the dtype of its input: half types lose digits.
    if plan.dtype == torch.float32 and not masked:
        implementations["monai"] = monai_dice_ce
    yield from make_pass_cases(
        "tversky_bce",
        plan,
        make_input_sets(inputs, device),
        implementations,
        note=", mask" if masked else "",
    )


def reduce(
    op: Callable[..., tuple[Tensor, Tensor, Tensor]],
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    tversky, cross_entropy, count = op(logits, target, mask)
    return tversky.mean() + cross_entropy.sum() / count.sum()


def monai_dice_ce(logits: Tensor, target: Tensor) -> Tensor:
    """The same loss: alpha = beta = ½ is Dice, and MONAI doubles both sums before it smooths."""
    loss: Tensor = _monai_dice_ce_loss()(logits, target)
    return loss


@cache
def _monai_dice_ce_loss() -> Callable[[Tensor, Tensor], Tensor]:
    from monai.losses.dice import DiceCELoss

    loss: Callable[[Tensor, Tensor], Tensor] = DiceCELoss(
        sigmoid=True, smooth_nr=2e-5, smooth_dr=2e-5
    )
    return loss
