"""CT windowing with the area average by two, on one thread, as a loader's worker runs it.

The plain expressions are what one writes: ``numpy``, and ``eager``, the reference that takes any
size. The ``tight`` ones are as fast as we could make each library do this one case: in place, the
constants folded, the average as two additions of slices. ``compile`` gets the tight expression,
since the fusion starts from the better one.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.harness import OURS, Case, Owed, compiled, dtype_name, shape_name
from ichfast import ops
from ichfast.ops import reference
from ichfast.ops.reference import HU_RANGE

SLICES = (1, 32)
SIDE, QUICK_SIDE = 512, 32
BRAIN = (40.0, 80.0)  # level, width
SLOPE, INTERCEPT = 1.0, -1024.0

Floats = npt.NDArray[np.float32]


def cases(quick: bool) -> list[Callable[[], Case]]:
    if quick:
        return [partial(_case, 2, QUICK_SIDE, ())]
    owed = {1: (Owed("numpy", 15.0), Owed("eager", 8.0))}
    return [partial(_case, slices, SIDE, owed.get(slices, ())) for slices in SLICES]


def _case(slices: int, side: int, owed: tuple[Owed, ...]) -> Case:
    generator = torch.Generator().manual_seed(0)
    # The range of a head: air, soft tissue and bone, most of it outside the window.
    stored = torch.randint(0, 4096, (slices, side, side), generator=generator).to(torch.int16)
    slope, intercept = torch.full((slices,), SLOPE), torch.full((slices,), INTERCEPT)
    windows = torch.tensor([BRAIN])
    half = (side // 2, side // 2)
    arguments = (stored, slope, intercept, windows, half)
    array = stored.numpy()
    compiled_tight = compiled(eager_tight)

    def one(function: Callable[..., Tensor], *values: object) -> Sequence[Tensor]:
        return (function(*values),)

    def each(function: Callable[[npt.NDArray[np.int16], Floats], None]) -> Sequence[Tensor]:
        result = np.empty((slices, 1, *half), np.float32)
        for image, out in zip(array, result[:, 0], strict=True):  # NumPy's steps stay in the cache
            function(image, out)
        return (torch.from_numpy(result),)

    return Case(
        op="ct_window",
        work="one window",
        shape=f"{shape_name(stored)} to {half[0]}×{half[1]}",
        dtype=f"{dtype_name(stored.dtype)} to float32",
        contenders={
            OURS: partial(one, ops.ct_window, *arguments),
            "numpy": partial(each, numpy_plain),
            "numpy tight": partial(each, numpy_tight),
            "eager": partial(one, reference.ct_window, *arguments),
            "eager tight": partial(one, eager_tight, stored, slope, intercept),
            "compile": partial(one, compiled_tight, stored, slope, intercept),
        },
        read=(stored,),
        written=(torch.empty(slices, 1, *half),),
        tolerance=1e-5,
        threads=1,
        owed=owed,
    )


def numpy_plain(stored: npt.NDArray[np.int16], out: Floats) -> None:
    level, width = map(np.float32, BRAIN)
    hu = stored.astype(np.float32) * np.float32(SLOPE) + np.float32(INTERCEPT)
    hu = hu.clip(np.float32(HU_RANGE[0]), np.float32(HU_RANGE[1]))
    rows, columns = (side // 2 for side in hu.shape)
    hu = hu.reshape(rows, 2, columns, 2).mean((1, 3))
    ((hu - (level - 0.5)) / (width - 1) + 0.5).clip(0, 1, out=out)


def numpy_tight(stored: npt.NDArray[np.int16], out: Floats) -> None:
    hu = stored.astype(np.float32)
    hu *= np.float32(SLOPE)
    hu += np.float32(INTERCEPT)
    np.clip(hu, np.float32(HU_RANGE[0]), np.float32(HU_RANGE[1]), out=hu)
    rows = hu[0::2]
    rows += hu[1::2]
    np.add(rows[:, 0::2], rows[:, 1::2], out=out)
    scale, shift = _sum_of_four_to_window()
    out *= np.float32(scale)
    out += np.float32(shift)
    np.clip(out, np.float32(0), np.float32(1), out=out)


def eager_tight(stored: Tensor, slope: Tensor, intercept: Tensor) -> Tensor:
    hu = stored.to(torch.float32).mul_(slope[:, None, None]).add_(intercept[:, None, None])
    hu.clamp_(*HU_RANGE)
    rows = hu[:, 0::2] + hu[:, 1::2]
    scale, shift = _sum_of_four_to_window()
    windowed = rows[:, None, :, 0::2] + rows[:, None, :, 1::2]
    return windowed.mul_(scale).add_(shift).clamp_(0, 1)


def _sum_of_four_to_window() -> tuple[float, float]:
    """LINEAR as y = sum·scale + shift."""
    level, width = BRAIN
    return 0.25 / (width - 1), 0.5 - (level - 0.5) / (width - 1)
