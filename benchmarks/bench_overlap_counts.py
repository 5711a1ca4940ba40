"""TP, FP and FN per image."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.harness import OURS, Case, compiled, dtype_name, shape_name
from ichfast import ops
from ichfast.ops import reference

SIZES = ((8, 1, 256, 256), (32, 1, 512, 512))
QUICK_SIZES = ((2, 1, 32, 32),)


def cases(quick: bool) -> list[Callable[[], Case]]:
    return [partial(_case, size) for size in (QUICK_SIZES if quick else SIZES)]


def _case(size: tuple[int, ...]) -> Case:
    generator = torch.Generator().manual_seed(0)
    prediction = torch.rand(size, generator=generator)
    target = (torch.rand(size, generator=generator) > 0.9).to(torch.uint8)
    compiled_reference = compiled(reference.overlap_counts)

    def run(op: Callable[..., Tensor]) -> Sequence[Tensor]:
        return (op(prediction, target),)

    return Case(
        op="overlap_counts",
        work="forward",
        shape=shape_name(prediction),
        dtype=f"{dtype_name(prediction.dtype)}, {dtype_name(target.dtype)}",
        contenders={
            OURS: partial(run, ops.overlap_counts),
            "eager": partial(run, reference.overlap_counts),
            "compile": partial(run, compiled_reference),
        },
        read=(prediction, target),
        written=(),
        tolerance=0.0,
    )
