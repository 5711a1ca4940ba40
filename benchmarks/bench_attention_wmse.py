"""The unsupervised loss L_u, forward and backward, with the mask differentiated ("flow") or not."""

from collections.abc import Callable
from functools import partial

import torch

from benchmarks.harness import (
    COPY,
    OURS,
    Case,
    Owed,
    compiled,
    dtype_name,
    shape_name,
    with_gradients,
)
from ichfast import ops
from ichfast.ops import reference

SIZES = ((8, 1, 256, 256), (32, 1, 512, 512))
QUICK_SIZES = ((2, 1, 32, 32),)
FASTER = (Owed("eager", 6.0), Owed("compile", 1.7))
OWED = {SIZES[0]: FASTER, SIZES[1]: (*FASTER, Owed(COPY, 1.6))}


def cases(quick: bool) -> list[Callable[[], Case]]:
    sizes = QUICK_SIZES if quick else SIZES
    made: list[Callable[[], Case]] = []
    for flow in (True, False):
        made += [partial(_case, size, torch.float32, flow, OWED.get(size, ())) for size in sizes]
        made.append(partial(_case, sizes[-1], torch.bfloat16, flow, ()))
    return made


def _case(size: tuple[int, ...], dtype: torch.dtype, flow: bool, owed: tuple[Owed, ...]) -> Case:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(size, generator=generator).to(dtype)
    logits = torch.randn(size, generator=generator).to(dtype).requires_grad_(flow)
    pair = (size[0], 2, *size[2:])
    reconstruction = torch.randn(pair, generator=generator).to(dtype).requires_grad_()
    wanted = [logits, reconstruction] if flow else [reconstruction]
    implementations = {
        OURS: ops.attention_wmse,
        "eager": reference.attention_wmse,
        "compile": compiled(reference.attention_wmse),
    }
    return Case(
        op="attention_wmse",
        work=f'forward + backward, "{"flow" if flow else "stop"}"',
        shape=shape_name(image),
        dtype=dtype_name(dtype),
        contenders={
            name: with_gradients(partial(op, image, logits, reconstruction), wanted)
            for name, op in implementations.items()
        },
        read=2 * (image, logits, reconstruction),
        written=wanted,
        tolerance=1e-4 if dtype == torch.float32 else 5e-3,
        owed=owed,
    )
