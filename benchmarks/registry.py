"""What there is to measure: each ``bench_<name>.py`` declares it as ``BENCHMARK``."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from benchmarks.devices import Device
from benchmarks.harness import Case

ListCases = Callable[[Device, bool], list[Callable[[], Iterable[Case]]]]


@dataclass(frozen=True)
class Benchmark:
    """An op, or anything else that is timed.

    Attributes:
        list_cases: takes the device, and whether inputs are to be tiny; each of the functions that
            it returns makes the cases of one input.
        order: of its table in the report, ascending; those without one come last, by name.
        whole_run: whether it is measured when no op is named.
        memory: whether peak memory is measured too, forward and backward together.
    """

    list_cases: ListCases
    order: float = math.inf
    whole_run: bool = True
    memory: bool = False


def find_benchmarks() -> dict[str, Benchmark]:
    """The benchmarks of this folder, by name, in the order of the report."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        benchmark: Benchmark = import_module(f"benchmarks.{path.stem}").BENCHMARK
        found[path.stem.removeprefix("bench_")] = benchmark
    return dict(sorted(found.items(), key=lambda item: item[1].order))
