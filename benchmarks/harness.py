"""Times several ways of doing the same work, side by side.

Every contender runs once per round, in an order drawn anew for each round, so that what drifts
(clock frequency, neighbours, caches) hits all of them alike. Before anything is timed their results
are compared: a benchmark of two different things says nothing.
"""

import gc
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

OURS = "ichfast"
COPY = "copy"

Run = Callable[[], Sequence[Tensor]]
"""Does the work once and returns the results, freshly allocated."""


@dataclass(frozen=True)
class Owed:
    """A promise: at least ``factor`` times faster than a contender, or, against the copy, within
    ``factor`` times its time."""

    against: str
    factor: float


@dataclass(frozen=True, eq=False)
class Case:
    """One op on one input, and everybody who does the same work; ``ichfast`` is among them."""

    op: str
    work: str  # "forward", "forward + backward, ..."
    shape: str
    dtype: str
    contenders: Mapping[str, Run]
    read: Sequence[Tensor]  # what must be read, a tensor as often as it is read
    written: Sequence[Tensor]  # stand-ins of the sizes that must be written
    tolerance: float  # of the contenders' results: relative L2 distance from ours
    threads: int | None = None  # None: as many as the run was given
    owed: tuple[Owed, ...] = ()

    @property
    def traffic(self) -> int:
        """The fewest bytes that can move between the processor and memory."""
        return sum(tensor.nbytes for tensor in (*self.read, *self.written))


def shape_name(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape))


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch.compile at its best: shapes fixed, no graph breaks. It compiles at the first call."""
    return torch.compile(function, fullgraph=True, dynamic=False)


def with_gradients(
    function: Callable[[], Tensor], inputs: Sequence[Tensor], weights: Tensor | None = None
) -> Run:
    """Forward and backward; by torch.autograd.grad, so that adding into ``.grad`` is not timed."""

    def run() -> Sequence[Tensor]:
        value = function()
        incoming = torch.ones_like(value) if weights is None else weights
        return value.detach(), *torch.autograd.grad(value, inputs, incoming)

    return run


def measure(case: Case, *, threads: int, seconds: float) -> dict[str, Any]:
    """Times a case for about ``seconds``, after warm-up; a JSON-ready record."""
    torch.compiler.reset()
    torch.set_num_threads(case.threads or threads)
    runs, unavailable = _checked(case)
    runs[COPY] = _copy(case)
    samples, calls = _rounds(runs, seconds)
    ours = samples[OURS]
    return {
        "op": case.op,
        "work": case.work,
        "shape": case.shape,
        "dtype": case.dtype,
        "threads": case.threads or threads,
        "bytes": {
            "read": sum(tensor.nbytes for tensor in case.read),
            "written": sum(tensor.nbytes for tensor in case.written),
        },
        "rounds": len(ours),
        "contenders": {
            name: _statistics(times, case.traffic) | {"calls_per_round": calls[name]}
            for name, times in samples.items()
        },
        "speedup": {
            name: {
                "of_medians": round(median(times) / median(ours), 3),
                "median_of_rounds": round(
                    median(t / o for t, o in zip(times, ours, strict=True)), 3
                ),
            }
            for name, times in samples.items()
            if name != OURS
        },
        "unavailable": unavailable,
        "owed": [_verdict(owed, samples) for owed in case.owed],
    }


def _checked(case: Case) -> tuple[dict[str, Run], dict[str, str]]:
    """The contenders that run, warmed up and compared with ours; and why the others do not."""
    expected = case.contenders[OURS]()
    runs: dict[str, Run] = {}
    unavailable: dict[str, str] = {}
    for name, run in case.contenders.items():
        try:
            results = run()
        except Exception as error:
            if name != "compile":
                raise
            # Without a C++ compiler, say. Its message holds paths of this machine: the type does.
            unavailable[name] = type(error).__name__
            continue
        for result, reference in zip(results, expected, strict=True):
            distance = _distance(result, reference)
            if not distance <= case.tolerance:
                raise AssertionError(
                    f"{case.op}, {case.shape} {case.dtype}: the result of {name} is {distance:.1e} "
                    f"from that of {OURS}, more than {case.tolerance:.0e}"
                )
        runs[name] = run
    return runs, unavailable


def _distance(result: Tensor, reference: Tensor) -> float:
    """‖a − b‖ / ‖b‖."""
    reference = reference.double()
    size = reference.norm().clamp(min=torch.finfo(torch.float64).tiny)
    return float((result.double() - reference).norm() / size)


def _copy(case: Case) -> Run:
    """Moves as many bytes as the op, by copying into fresh tensors no larger than the op's own.

    Fresh is the point: pages that the system must clear first cost several times what writing to
    warm ones does, and an op that returns new tensors pays that.
    """
    half = case.traffic // 2
    piece = max(tensor.nbytes for tensor in (*case.read, *case.written))
    sizes = [piece] * (half // piece) + [half % piece]
    sources = [torch.ones(size // 4) for size in sizes if size >= 4]
    return lambda: [torch.empty_like(source).copy_(source) for source in sources]


def _rounds(
    runs: Mapping[str, Run], seconds: float
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds per call of each contender in each round, and its calls per round."""
    once = {name: min(_sample(run, 1) for _ in range(3)) for name, run in runs.items()}
    # A sample of a few milliseconds stands clear of the clock's own noise.
    calls = {name: max(1, round(3e-3 / max(t, 1e-7))) for name, t in once.items()}
    cost = sum(once[name] * calls[name] for name in runs)
    count = min(max(int(seconds / cost), 11), 201)
    samples: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs)
    generator = random.Random(0)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(count):
            generator.shuffle(order)
            for name in order:
                samples[name].append(_sample(runs[name], calls[name]))
    finally:
        if collecting:
            gc.enable()
    return samples, calls


def _sample(run: Run, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def _statistics(times: Sequence[float], traffic: int) -> dict[str, float]:
    deciles = quantiles(times, n=10, method="inclusive")
    middle = median(times)
    return {
        "median": round(middle, 9),
        "p20": round(deciles[1], 9),
        "p80": round(deciles[7], 9),
        "gb_per_s": round(traffic / middle / 1e9, 3),
    }


def _verdict(owed: Owed, samples: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    record: dict[str, Any] = {"against": owed.against, "factor": owed.factor}
    if owed.against not in samples:
        return record | {"measured": None, "holds": None}
    ours, theirs = median(samples[OURS]), median(samples[owed.against])
    if owed.against == COPY:
        return record | {"measured": round(ours / theirs, 3), "holds": ours <= owed.factor * theirs}
    return record | {"measured": round(theirs / ours, 3), "holds": theirs >= owed.factor * ours}
