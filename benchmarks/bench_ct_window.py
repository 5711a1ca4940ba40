"""CT windowing with the area average by two; on a CPU on one thread, as a loader's worker does.

The plain expressions are what one writes: ``numpy``, ``cupy``, and ``eager``, the reference that
takes any size. The ``tight`` ones are as fast as we could make each library do this one case: in
place or fused, the constants folded, the average as additions of slices. ``compile`` gets the tight
expression, since the fusion starts from the better one.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks import cupy_window
from benchmarks.devices import Device, Run
from benchmarks.harness import OURS, Case, Target, compile_static, name_dtype, name_shape
from benchmarks.passes import BANDWIDTH_TARGET, Inputs, make_input_sets
from benchmarks.registry import Benchmark
from ichfast.ops.ct_window import ct_window
from ichfast.ops.reference.ct_window import HU_RANGE
from ichfast.ops.reference.ct_window import ct_window as plain_ct_window

SIDE, QUICK_SIDE = 512, 32
BRAIN = (40.0, 80.0)  # level, width
SLOPE, INTERCEPT = 1.0, -1024.0

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class WindowPlan:
    slices: int
    dtype: torch.dtype
    in_graph: bool = False  # also as single calls and in a CUDA graph
    targets: tuple[Target, ...] = ()


# CuPy's plain expression and its tight one: whichever is the better.
CUPY = (Target("cupy", 5.0), Target("cupy tight", 5.0))
PLANS = {
    "cpu": (
        WindowPlan(1, torch.float32, targets=(Target("numpy", 15.0), Target("eager", 8.0))),
        WindowPlan(32, torch.float32),
    ),
    "cuda": (
        WindowPlan(1, torch.bfloat16, in_graph=True),
        WindowPlan(32, torch.bfloat16, in_graph=True),
        WindowPlan(2048, torch.bfloat16, targets=(*BANDWIDTH_TARGET, *CUPY)),
    ),
}
IN_GRAPH = (OURS, "eager", "eager tight", "compile")


def list_cases(device: Device, quick: bool) -> list[Callable[[], Iterable[Case]]]:
    if quick:
        plan = WindowPlan(2, PLANS[device.kind][0].dtype, in_graph=device.kind == "cuda")
        return [partial(_make_cases, device, plan, QUICK_SIDE)]
    return [partial(_make_cases, device, plan, SIDE) for plan in PLANS[device.kind]]


BENCHMARK = Benchmark(list_cases, order=3)


def _make_cases(device: Device, plan: WindowPlan, side: int) -> Iterator[Case]:
    shape = (plan.slices, side, side)
    half = (side // 2, side // 2)
    on_gpu = device.kind == "cuda"

    def inputs(generator: torch.Generator) -> Inputs:
        # The range of a head: air, soft tissue and bone, most of it outside the window.
        stored = torch.randint(0, 4096, shape, generator=generator)
        return Inputs((stored.to(torch.int16),))

    stored = [one.arguments[0] for one in make_input_sets(inputs, device)]
    slope = torch.full((plan.slices,), SLOPE, device=device.place)
    intercept = torch.full((plan.slices,), INTERCEPT, device=device.place)
    windows = torch.tensor([BRAIN], device=device.place)
    tight: dict[str, Callable[..., Tensor]] = {
        "eager tight": partial(eager_tight, dtype=plan.dtype),
        "compile": partial(compile_static(eager_tight), dtype=plan.dtype),
    }
    contenders: dict[str, Sequence[Run]] = {}
    for name, op in ((OURS, ct_window), ("eager", plain_ct_window)):
        general = partial(op, dtype=plan.dtype)
        contenders[name] = [_run(general, s, slope, intercept, windows, half) for s in stored]
    if not on_gpu:
        for name, each in (("numpy", numpy_plain), ("numpy tight", numpy_tight)):
            contenders[name] = [partial(_numpy, each, s.numpy(), half) for s in stored]
    for name, function in tight.items():
        contenders[name] = [_run(function, s, slope, intercept) for s in stored]
    if on_gpu:
        of_sets = [
            cupy_window.make_runs(s, slope, intercept, _sum_of_four_to_window()) for s in stored
        ]
        contenders |= {name: [runs[name] for runs in of_sets] for name in of_sets[0]}
    yield Case(
        op="ct_window",
        work="one window",
        shape=f"{name_shape(stored[0])} to {half[0]}×{half[1]}",
        dtype=f"{name_dtype(torch.int16)} to {name_dtype(plan.dtype)}",
        contenders=contenders,
        read=(stored[0],),
        written=(torch.empty(plan.slices, 1, *half, dtype=plan.dtype, device=device.place),),
        tolerance=1e-5 if plan.dtype == torch.float32 else 5e-3,
        threads=1,
        in_graph=IN_GRAPH if plan.in_graph else (),
        images=plan.slices if on_gpu else None,
        targets=plan.targets,
    )


def _run(function: Callable[..., Tensor], *arguments: object) -> Run:
    return lambda: (function(*arguments),)


def _numpy(
    each: Callable[[npt.NDArray[np.int16], Floats], None],
    stored: npt.NDArray[np.int16],
    size: tuple[int, int],
) -> Sequence[Tensor]:
    result = np.empty((len(stored), 1, *size), np.float32)
    for image, out in zip(stored, result[:, 0], strict=True):  # NumPy's steps stay in the cache
        each(image, out)
    return (torch.from_numpy(result),)


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


def eager_tight(stored: Tensor, slope: Tensor, intercept: Tensor, dtype: torch.dtype) -> Tensor:
    hu = stored.to(torch.float32).mul_(slope[:, None, None]).add_(intercept[:, None, None])
    hu.clamp_(*HU_RANGE)
    rows = hu[:, 0::2] + hu[:, 1::2]
    scale, shift = _sum_of_four_to_window()
    windowed = rows[:, None, :, 0::2] + rows[:, None, :, 1::2]
    return windowed.mul_(scale).add_(shift).clamp_(0, 1).to(dtype)


def _sum_of_four_to_window() -> tuple[float, float]:
    """LINEAR as y = sum·scale + shift."""
    level, width = BRAIN
    return 0.25 / (width - 1), 0.5 - (level - 0.5) / (width - 1)
