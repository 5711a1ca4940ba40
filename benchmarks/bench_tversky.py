"""The Tversky loss with sigmoid, forward and backward."""

from collections.abc import Callable
from functools import partial

import torch

from benchmarks.harness import OURS, Case, Owed, compiled, dtype_name, shape_name, with_gradients
from ichfast import ops
from ichfast.ops import reference

SIZES = ((8, 1, 256, 256), (32, 1, 512, 512))
QUICK_SIZES = ((2, 1, 32, 32),)
OWED = {(32, 1, 512, 512): (Owed("eager", 3.0), Owed("compile", 1.1))}


def cases(quick: bool) -> list[Callable[[], Case]]:
    sizes = QUICK_SIZES if quick else SIZES
    float32 = [partial(_case, size, torch.float32, OWED.get(size, ())) for size in sizes]
    return [*float32, partial(_case, sizes[-1], torch.bfloat16, ())]


def _case(size: tuple[int, ...], dtype: torch.dtype, owed: tuple[Owed, ...]) -> Case:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(size, generator=generator).to(dtype).requires_grad_()
    target = (torch.rand(size, generator=generator) > 0.9).to(dtype)
    implementations = {
        OURS: ops.tversky,
        "eager": reference.tversky,
        "compile": compiled(reference.tversky),
    }
    return Case(
        op="tversky",
        work="forward + backward",
        shape=shape_name(logits),
        dtype=dtype_name(dtype),
        contenders={
            name: with_gradients(partial(op, logits, target, sigmoid=True), [logits])
            for name, op in implementations.items()
        },
        read=2 * (logits, target),
        written=(logits,),
        tolerance=1e-4 if dtype == torch.float32 else 5e-3,
        owed=owed,
    )
