"""Every pass of the named ops once, on their largest inputs, for a profiler to look at.

ncu --kernel-name-base demangled --kernel-name regex:ichfast python -m benchmarks.launch tversky
"""

import argparse
import sys
from collections.abc import Sequence

import torch

from benchmarks.devices import Cpu, Cuda, Device
from benchmarks.harness import OURS, Case
from benchmarks.registry import find_benchmarks


def main(arguments: Sequence[str] | None = None) -> int:
    benchmarks, _ = find_benchmarks()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.launch", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("ops", nargs="+", choices=benchmarks, metavar="OP")
    parser.add_argument("--quick", action="store_true", help="tiny inputs")
    options = parser.parse_args(arguments)
    device: Device = Cuda(torch.device("cuda")) if torch.cuda.is_available() else Cpu()
    for op in options.ops:
        cases = [c for make in benchmarks[op].list_cases(device, options.quick) for c in make()]
        for case in choose_largest(cases):
            print(f"{case.op}, {case.work}, {case.shape} {case.dtype}", flush=True)
            case.contenders[OURS][0]()
    return 0


def choose_largest(cases: Sequence[Case]) -> list[Case]:
    """One of each work: the one that moves most."""
    largest: dict[str, Case] = {}
    for case in cases:
        former = largest.get(case.work)
        if former is None or case.traffic > former.traffic:
            largest[case.work] = case
    return list(largest.values())


if __name__ == "__main__":
    sys.exit(main())
