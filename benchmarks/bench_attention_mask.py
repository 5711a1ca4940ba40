"""The two attention-masked images, forward and backward."""

from collections.abc import Callable
from functools import partial

import torch

from benchmarks.harness import OURS, Case, compiled, dtype_name, shape_name, with_gradients
from ichfast import ops
from ichfast.ops import reference

SIZES = ((8, 1, 256, 256), (32, 1, 512, 512))
QUICK_SIZES = ((2, 1, 32, 32),)


def cases(quick: bool) -> list[Callable[[], Case]]:
    return [partial(_case, size) for size in (QUICK_SIZES if quick else SIZES)]


def _case(size: tuple[int, ...]) -> Case:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(size, generator=generator)
    logits = torch.randn(size, generator=generator).requires_grad_()
    incoming = torch.randn((size[0], 2, *size[2:]), generator=generator)
    implementations = {
        OURS: ops.attention_mask,
        "eager": reference.attention_mask,
        "compile": compiled(reference.attention_mask),
    }
    return Case(
        op="attention_mask",
        work="forward + backward",
        shape=shape_name(image),
        dtype=dtype_name(image.dtype),
        contenders={
            name: with_gradients(partial(op, image, logits), [logits], incoming)
            for name, op in implementations.items()
        },
        read=(*2 * (image, logits), incoming),
        written=(incoming, logits),  # the result is as large as the gradient that arrives at it
        tolerance=1e-4,
    )
