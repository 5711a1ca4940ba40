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


def find_benchmarks() -> tuple[dict[str, Benchmark], dict[str, str]]:
    """The benchmarks of this folder, by name, in the order of the report; and those which need a
    package that is not installed, with its name."""
    found: dict[str, Benchmark] = {}
    missing: dict[str, str] = {}
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        name = path.stem.removeprefix("bench_")
        try:
            found[name] = import_module(f"benchmarks.{path.stem}").BENCHMARK
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package in ("ichfast", "benchmarks"):  # that is no package to install
                raise
            missing[name] = package
    return dict(sorted(found.items(), key=lambda item: item[1].order)), missing
