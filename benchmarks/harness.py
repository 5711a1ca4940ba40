"""Times several ways of doing the same work, side by side.

Every contender runs once per round, in an order drawn anew for each round, so that what drifts
(clock frequency, neighbours, caches) hits all of them alike. Before anything is timed their results
are compared: a benchmark of two different things says nothing.
"""

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

from benchmarks.devices import Cuda, Device, Prepared, Run

OURS = "ichfast"
COPY = "copy"
BANDWIDTH = "copy bandwidth"

# A contender need not be installed, nor able to do every case.
FOREIGN = ("compile", "monai", "cupy", "cupy tight", "cupy kernel")

# The ways in which a contender is called.
CALLS = "calls"  # back to back, as often as fills a sample
SINGLE = "single"  # one call, from an idle device
GRAPH = "graph"  # one call for each input set, all in one CUDA graph


class Disagreement(Exception):
    """A contender's result is not ours."""


@dataclass(frozen=True)
class Target:
    """At least ``factor`` times faster than a contender; against the copy, within ``factor`` times
    its time; against its bandwidth, at least ``factor`` of that."""

    against: str
    factor: float
    graph: bool = False  # ours inside a CUDA graph, the contender called plainly


@dataclass(frozen=True, eq=False)
class Case:
    """One op on one input, and everybody who does the same work; ``ichfast`` is among them."""

    op: str
    work: str  # "forward", "forward + backward, ..."
    shape: str
    dtype: str
    contenders: Mapping[str, Sequence[Run]]  # a run for each input set, the same sets for all
    read: Sequence[Tensor]  # what must be read, a tensor as often as it is read
    written: Sequence[Tensor]  # stand-ins of the sizes that must be written
    tolerance: float  # of the contenders' results: relative L2 distance from ours
    threads: int | None = None  # None: as many as the run was given
    in_graph: tuple[str, ...] = ()  # contenders to be timed as single calls and in a graph, too
    images: int | None = None  # per call, where their number per second says something
    targets: tuple[Target, ...] = ()
    rounds: int = 11  # at least

    @property
    def traffic(self) -> int:
        """The fewest bytes that can move between the processor and memory."""
        return sum(tensor.nbytes for tensor in (*self.read, *self.written))


def leave_alone(case: Case) -> Case:
    """The case without its contenders, beside the copy, which is no contender."""
    return replace(
        case,
        contenders={OURS: case.contenders[OURS]},
        in_graph=tuple(name for name in case.in_graph if name == OURS),
        targets=tuple(one for one in case.targets if one.against in (COPY, BANDWIDTH)),
    )


def name_shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape))


def name_dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def compile_static(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch.compile at its best: shapes fixed, no graph breaks. It compiles at the first call.

    What was compiled before is forgotten, since torch keeps only so many versions of a function.
    """
    torch.compiler.reset()
    return torch.compile(function, fullgraph=True, dynamic=False)


def measure(case: Case, device: Device, *, threads: int, seconds: float) -> dict[str, Any]:
    """Times a case for about ``seconds``, after warm-up; a JSON-ready record."""
    torch.set_num_threads(case.threads or threads)
    runs, unavailable, expected = _check(case)
    graphs, not_captured = _capture(case, device, runs, expected)
    del expected
    runs[COPY] = _make_copies(case, device)
    timed = {(CALLS, name): _TimedRuns(run) for name, run in runs.items()}
    timed |= {
        (SINGLE, name): _TimedRuns(runs[name], repeats=1) for name in case.in_graph & runs.keys()
    }
    timed |= {(GRAPH, name): graph for name, graph in graphs.items()}
    samples, calls = _run_rounds(timed, device, seconds, case.rounds)
    ours = samples[CALLS, OURS]

    def statistics(way: str) -> dict[str, Any]:
        return {
            name: _summarise(times, case.traffic) | {"calls_per_round": calls[way, name]}
            for (its_way, name), times in samples.items()
            if its_way == way
        }

    record = {
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
        "contenders": statistics(CALLS),
        "speedup": {
            name: {
                "of_medians": round(median(times) / median(ours), 3),
                "median_of_rounds": round(
                    median(t / o for t, o in zip(times, ours, strict=True)), 3
                ),
            }
            for (way, name), times in samples.items()
            if way == CALLS and name != OURS
        },
        "unavailable": unavailable,
        "targets": [_judge(target, samples) for target in case.targets],
    }
    if case.in_graph:
        record |= {way: statistics(way) for way in (SINGLE, GRAPH)}
        record["not_captured"] = not_captured
    if case.images:
        record["images_per_s"] = round(case.images / median(ours))
    return record


def measure_memory(case: Case, device: Device, names: set[str]) -> dict[str, int]:
    """Bytes of the results, and the peak of each of the named contenders."""
    results = sum(tensor.nbytes for tensor in case.contenders[OURS][0]())
    return {"results": results} | {
        name: device.measure_peak(runs[0])
        for name, runs in case.contenders.items()
        if name in names
    }


Results = list[Sequence[Tensor]]


@dataclass(frozen=True)
class _TimedRuns:
    runs: Sequence[Run]  # in turn
    calls: int = 1  # of the op, in one run
    repeats: int | None = None  # runs in a sample; None: as many as fill it


def _check(case: Case) -> tuple[dict[str, Sequence[Run]], dict[str, str], Results]:
    """The contenders that run, warmed up and compared with ours; why the others do not; and ours.

    Ours runs twice: the memory that the first results leave is likely what the second get, and
    there an element that nobody writes shows.
    """
    _poison([result for run in case.contenders[OURS] for result in run()])
    expected = [run() for run in case.contenders[OURS]]
    checked: dict[str, Sequence[Run]] = {}
    unavailable: dict[str, str] = {}
    for name, runs in case.contenders.items():
        try:
            _compare(case, name, [run() for run in runs], expected)
        except Exception as error:
            if name not in FOREIGN:
                raise
            # Without a C++ compiler, say. Its message holds paths of this machine: the type does.
            unavailable[name] = type(error).__name__
            continue
        checked[name] = runs
    return checked, unavailable, expected


def _capture(
    case: Case, device: Device, runs: Mapping[str, Sequence[Run]], expected: Results
) -> tuple[dict[str, _TimedRuns], dict[str, str]]:
    """Graphs of the contenders that can be captured, compared too; why the others cannot."""
    graphs: dict[str, _TimedRuns] = {}
    not_captured: dict[str, str] = {}
    for name in case.in_graph:
        if name not in runs:
            continue
        assert isinstance(device, Cuda), "a CPU has no graphs"
        try:
            graph = device.capture(runs[name])
        except Exception as error:
            not_captured[name] = type(error).__name__
            continue
        _poison(graph())
        flat = [tensor for results in expected for tensor in results]
        _compare(case, f"{name} in a graph", [graph()], [flat])
        graphs[name] = _TimedRuns([graph], calls=len(runs[name]))
    return graphs, not_captured


def _compare(case: Case, name: str, results: Results, expected: Results) -> None:
    for result_set, expected_set in zip(results, expected, strict=True):
        for result, reference in zip(result_set, expected_set, strict=True):
            distance = _measure_distance(result, reference)
            if not distance <= case.tolerance:
                raise Disagreement(
                    f"{case.op}, {case.shape} {case.dtype}: the result of {name} is {distance:.1e} "
                    f"from that of {OURS}, more than {case.tolerance:.0e}"
                )


def _poison(results: Sequence[Tensor]) -> None:
    """What no op returns."""
    for result in results:
        result.fill_(float("nan") if result.is_floating_point() else -7)


def _measure_distance(result: Tensor, reference: Tensor) -> float:
    """‖a − b‖ / ‖b‖; NaN where either holds one."""
    reference = reference.double()
    size = reference.norm().clamp(min=torch.finfo(torch.float64).tiny)
    return float((result.double() - reference).norm() / size)


def _make_copies(case: Case, device: Device) -> list[Run]:
    """Move as many bytes as the op, by copying into fresh tensors no larger than the op's own.

    On a CPU fresh is the point: pages that the system must clear first cost several times what
    writing to warm ones does, and an op that returns new tensors pays that. On a GPU torch's
    allocator hands out memory that was written before, to the op and to the copy alike.
    """
    half = case.traffic // 2
    piece = max(tensor.nbytes for tensor in (*case.read, *case.written))
    sizes = [piece] * (half // piece) + [half % piece]

    def copy() -> Run:
        sources = [torch.rand(size // 4, device=device.place) for size in sizes if size >= 4]
        return lambda: [torch.empty_like(source).copy_(source) for source in sources]

    return [copy() for _ in case.contenders[OURS]]


Key = tuple[str, str]  # way and name


def _run_rounds(
    timed: Mapping[Key, _TimedRuns], device: Device, seconds: float, least: int
) -> tuple[dict[Key, list[float]], dict[Key, int]]:
    """Seconds per call in each round, and the calls per round."""
    turns = {key: cycle(one.runs) for key, one in timed.items()}

    def sample(key: Key, repeats: int) -> float:
        runs = list(islice(turns[key], repeats))
        return device.time(_group(runs)) / repeats

    once = {key: min(sample(key, 1) for _ in range(3)) for key in timed}
    repeats = {
        key: one.repeats or max(1, round(device.sample_seconds / max(once[key], 1e-7)))
        for key, one in timed.items()
    }
    samples: dict[Key, list[float]] = {key: [] for key in timed}
    order = list(timed)
    generator = random.Random(0)
    collecting = gc.isenabled()
    gc.disable()
    try:
        rounds, end = 0, time.perf_counter() + seconds
        while rounds < least or (rounds < 201 and time.perf_counter() < end):
            generator.shuffle(order)
            for key in order:
                samples[key].append(sample(key, repeats[key]) / timed[key].calls)
            rounds += 1
    finally:
        if collecting:
            gc.enable()
    return samples, {key: repeats[key] * timed[key].calls for key in timed}


def _group(runs: Sequence[Run]) -> Iterator[Sequence[Run]]:
    """What is timed in one go: all runs, or each second half as soon as it has been prepared."""
    if not any(isinstance(run, Prepared) for run in runs):
        yield runs
        return
    for run in runs:
        assert isinstance(run, Prepared), "one contender mixes prepared and plain runs"
        yield [run.prepare()]


def _summarise(times: Sequence[float], traffic: int) -> dict[str, float]:
    deciles = quantiles(times, n=10, method="inclusive")
    middle = median(times)
    return {
        "median": round(middle, 9),
        "p20": round(deciles[1], 9),
        "p80": round(deciles[7], 9),
        "gb_per_s": round(traffic / middle / 1e9, 3),
    }


def _judge(target: Target, samples: Mapping[Key, Sequence[float]]) -> dict[str, Any]:
    record: dict[str, Any] = {"against": target.against, "factor": target.factor}
    if target.graph:
        record["graph"] = True
    ours = samples.get((GRAPH if target.graph else CALLS, OURS))
    theirs = samples.get((CALLS, COPY if target.against == BANDWIDTH else target.against))
    if ours is None or theirs is None:
        return record | {"measured": None, "holds": None}
    own, other = median(ours), median(theirs)
    if target.against == COPY:
        return record | {"measured": round(own / other, 3), "holds": own <= target.factor * other}
    return record | {"measured": round(other / own, 3), "holds": other >= target.factor * own}
