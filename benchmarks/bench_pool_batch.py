"""An augmented training batch with its masks, from a pool of slices in memory.

``eager`` is the same with torch's operators: slices chosen, rescaled, clipped, turned by
``grid_sample`` and windowed.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.devices import Device, Run
from benchmarks.harness import OURS, Case, Target, compile_static
from benchmarks.passes import Inputs, make_input_sets
from benchmarks.registry import Benchmark
from ichfast.ops.pool_batch import augmentation, pool_batch
from ichfast.ops.reference.pool_batch import pool_batch as plain_pool_batch

SIDE, QUICK_SIDE = 256, 32
WINDOW = (40.0, 120.0)


@dataclass(frozen=True)
class BatchPlan:
    pool: int
    batch: int
    in_graph: bool = False  # also as single calls and in a CUDA graph
    targets: tuple[Target, ...] = ()


PLANS = {
    "cpu": (BatchPlan(400, 32, targets=(Target("eager", 5.0),)),),
    "cuda": (
        BatchPlan(20_000, 32, in_graph=True, targets=(Target("eager", 10.0),)),
        BatchPlan(20_000, 2048),
    ),
}


def list_cases(device: Device, quick: bool) -> list[Callable[[], Iterable[Case]]]:
    if quick:
        plan = BatchPlan(6, 4, in_graph=device.kind == "cuda")
        return [partial(_make_cases, device, plan, QUICK_SIDE)]
    return [partial(_make_cases, device, plan, SIDE) for plan in PLANS[device.kind]]


BENCHMARK = Benchmark(list_cases, order=4)


def _make_cases(device: Device, plan: BatchPlan, side: int) -> Iterator[Case]:
    generator = torch.Generator(device.place).manual_seed(0)
    shape = (plan.pool, side, side)
    with device.place:
        pool = torch.randint(-1024, 3071, shape, generator=generator, dtype=torch.int16)
        masks = torch.randint(0, 2, shape, generator=generator, dtype=torch.uint8)

    def inputs(generator: torch.Generator) -> Inputs:
        def uniform(low: float, high: float, *size: int) -> torch.Tensor:
            return low + (high - low) * torch.rand(plan.batch, *size, generator=generator)

        theta = augmentation(
            uniform(0, 1) < 0.5, uniform(-0.3, 0.3), uniform(0.9, 1.1), uniform(-0.05, 0.05, 2)
        )
        indices = torch.randint(0, plan.pool, (plan.batch,), generator=generator)
        windows = torch.tensor(WINDOW) + uniform(-5, 5, 1, 2)
        return Inputs((indices, theta, windows))

    def run(function: Callable[..., tuple[torch.Tensor, torch.Tensor]], one: Inputs) -> Run:
        return lambda: function(pool, *one.arguments, masks=masks)

    implementations: dict[str, Callable[..., tuple[torch.Tensor, torch.Tensor]]] = {
        OURS: pool_batch,  # type: ignore[dict-item]  # with masks both are there
        "eager": plain_pool_batch,  # type: ignore[dict-item]
        "compile": compile_static(plain_pool_batch),  # type: ignore[arg-type, dict-item]
    }
    sets = make_input_sets(inputs, device, read=3 * plan.batch * side * side)  # int16 and a mask
    chosen = sets[0].arguments[0].tolist()
    yield Case(
        op="pool_batch",
        work="with masks",
        shape=f"{plan.batch} of {plan.pool}×{side}×{side}",
        dtype="int16 to float32",
        contenders={
            name: [run(function, one) for one in sets] for name, function in implementations.items()
        },
        # About as much as the batch: not all of a slice is seen, some of it twice.
        read=(pool[chosen], masks[chosen]),
        written=(torch.empty(plan.batch, side, side), torch.empty_like(masks[chosen])),
        # A point half-way between two pixels of a mask may fall to either.
        tolerance=2e-2,
        in_graph=tuple(implementations) if plan.in_graph else (),
        images=plan.batch,
        targets=plan.targets,
    )
