"""``python -m benchmarks``: all ops, one run, a JSON file and a Markdown table."""

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import ichfast
from benchmarks import readme, report
from benchmarks.devices import Cpu, Cuda, Device
from benchmarks.harness import Case, leave_alone, measure, measure_memory
from benchmarks.machine import (
    count_physical_cores,
    describe_commit,
    describe_gpu,
    describe_machine,
    describe_versions,
    make_slug,
)
from benchmarks.registry import find_benchmarks

BENCHMARKS, MISSING = find_benchmarks()
OPS = tuple(name for name, benchmark in BENCHMARKS.items() if benchmark.whole_run)
OTHERS = tuple(name for name in BENCHMARKS if name not in OPS)  # only where named
SECONDS = {"cpu": 6.0, "cuda": 1.5}  # per case
LARGE = 2**26  # bytes
RESULTS = Path(__file__).parent / "results"


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    device = _device(options.device)
    if isinstance(device, str):
        print(f"python -m benchmarks: {device}", file=sys.stderr)
        return 2
    # Half a run must not take the place of a whole one, unless told where to go.
    whole = not options.quick and not options.alone and set(options.ops) == set(OPS)
    folder: Path | None = options.out or (RESULTS if whole else None)
    for name, package in MISSING.items():
        print(f"left out, since {package} is not installed: {name}", file=sys.stderr)
    results = _run(device, options, folder)

    table = report.to_markdown(results)
    print(f"\n{table}")
    if results["failed"]:
        failed = ", ".join(
            f"{failure['case']} ({failure['error']})" for failure in results["failed"]
        )
        print(f"Failed: {failed}.", file=sys.stderr)
        return 1
    if folder is None:
        print("Not written: not the whole run. --out FOLDER writes it.")
        return 0
    path = folder / f"{make_slug(device.kind)}.json"
    _incomplete(path).replace(path)
    path.with_suffix(".md").write_text(table, encoding="utf-8")
    print(f"Written: {path} and {path.with_suffix('.md').name}")
    if whole and device.kind == "cuda" and options.out is None:
        try:
            readme.update(results)
        except ValueError as error:
            print(f"python -m benchmarks: {error}", file=sys.stderr)
            return 1
        print(f"Rewritten: the GPU table of {readme.README.name}")
    return 0


def _run(device: Device, options: argparse.Namespace, folder: Path | None) -> dict[str, Any]:
    """Every case in turn. What is measured is kept case by case, so that a run cut short is not
    lost; one that fails is named, and the rest goes on."""
    results: dict[str, Any] = {
        "format": 1,
        "complete": False,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": describe_commit(),
        "machine": describe_machine(options.threads),
        "versions": describe_versions(device.kind),
        "failed": [],
        "results": [],
    }
    if device.kind == "cuda":
        results["machine"]["gpu"] = describe_gpu()
    started = time.monotonic()
    makers = [(op, make) for op in options.ops for make in _list_cases(op, device, options.quick)]
    for number, (op, make) in enumerate(makers, 1):
        label = op
        try:
            for case in make():
                label = f"{case.op}, {case.work}, {case.shape} {case.dtype}"
                if options.alone and case.traffic < LARGE and not options.quick:
                    continue
                print(f"[{number}/{len(makers)}] {label}: ", end="", flush=True)
                results["results"].append(_record(op, case, device, options))
                print(report.summarise(results["results"][-1]), flush=True)
                _write(results, started, folder, device)
        except Exception as error:
            traceback.print_exc()
            results["failed"].append({"case": label, "error": type(error).__name__})
    results["complete"] = not results["failed"]
    results["machine"]["load_average_after"] = [round(load, 2) for load in os.getloadavg()]
    _write(results, started, folder, device)
    return results


def _record(op: str, case: Case, device: Device, options: argparse.Namespace) -> dict[str, Any]:
    seconds = 0.1 if options.quick else SECONDS[device.kind] / (3 if options.alone else 1)
    if options.alone:
        case = leave_alone(case)
    record = measure(case, device, threads=options.threads, seconds=seconds)
    if BENCHMARKS[op].memory and "+" in case.work:
        record["memory"] = measure_memory(case, device, set(record["contenders"]))
    return record


def _write(results: dict[str, Any], started: float, folder: Path | None, device: Device) -> None:
    results["seconds"] = round(time.monotonic() - started, 1)
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = _incomplete(folder / f"{make_slug(device.kind)}.json")
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _incomplete(path: Path) -> Path:
    """Where results lie until all of them are there."""
    return path.with_suffix(".incomplete.json")


def _device(kind: str) -> Device | str:
    """The device, or the sentence that says why there is none."""
    if kind == "cpu":
        return Cpu()
    if not torch.cuda.is_available():
        return (
            f"--device cuda needs a GPU, and torch {torch.__version__} finds none; "
            "leave --device out to measure the CPU"
        )
    if not ichfast.build_info()["cuda"]:
        return (
            "--device cuda needs ichfast's CUDA kernels, and this build has none; build them with "
            "`ICHFAST_CUDA=1 pip install --no-build-isolation .`"
        )
    return Cuda(torch.device("cuda"))


def _list_cases(op: str, device: Device, quick: bool) -> list[Callable[[], Iterable[Case]]]:
    return BENCHMARKS[op].list_cases(device, quick)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time every op of ichfast beside eager PyTorch, torch.compile and what else "
        "does its work, on this machine. Takes about five minutes; close what else is running.",
    )
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="default: %(default)s; cuda is the current CUDA device",
    )
    parser.add_argument(
        "--ops",
        type=_ops,
        default=OPS,
        metavar="NAME,...",
        help=f"only these of {', '.join(OPS)}, or {', '.join(OTHERS)}",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=count_physical_cores(),
        metavar="N",
        help="default: %(default)s, the physical cores; ct_window always runs on one",
    )
    parser.add_argument("--quick", action="store_true", help="tiny inputs, to see that all runs")
    parser.add_argument(
        "--alone",
        action="store_true",
        help="ours and the copy alone, and no inputs below 64 MiB, in a third of the time",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where the results go; default: benchmarks/results, for a whole run only",
    )
    return parser


def _ops(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name in MISSING:
            raise argparse.ArgumentTypeError(f"{name} needs {MISSING[name]}: pip install it")
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        known = ", ".join(BENCHMARKS)
        raise argparse.ArgumentTypeError(f"no op {unknown[0]!r}; there are {known}")
    return names


if __name__ == "__main__":
    sys.exit(main())
