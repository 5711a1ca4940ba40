"""``python -m benchmarks``: all ops, one run, a JSON file and a Markdown table."""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.harness import Case, measure
from benchmarks.machine import commit, machine, physical_cores, slug, versions
from benchmarks.memory import measure_memory

OPS = ("attention_wmse", "tversky", "ct_window", "attention_mask", "overlap_counts")
LOSSES = ("attention_wmse", "tversky")
RESULTS = Path(__file__).parent / "results"


def main(argv: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(argv)
    seconds = 0.1 if options.quick else 6.0
    results: dict[str, Any] = {
        "format": 1,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(options.threads),
        "versions": versions(),
        "results": [],
    }
    started = time.monotonic()
    makers = [make for op in options.ops for make in _cases(op, options.quick)]
    for number, make in enumerate(makers, 1):
        case = make()
        label = f"{case.op}, {case.work}, {case.shape} {case.dtype}"
        print(f"[{number}/{len(makers)}] {label}: ", end="", flush=True)
        record = measure(case, threads=options.threads, seconds=seconds)
        if case.op in LOSSES:
            record["memory"] = measure_memory(case, set(record["contenders"]))
        results["results"].append(record)
        print(report.line(record), flush=True)
    results["seconds"] = round(time.monotonic() - started, 1)
    results["machine"]["load_average_after"] = [round(load, 2) for load in os.getloadavg()]

    table = report.markdown(results)
    print(f"\n{table}")
    # Half a run must not take the place of a whole one, unless told where to go.
    whole = not options.quick and set(options.ops) == set(OPS)
    folder = options.out or (RESULTS if whole else None)
    if folder is None:
        print("Not written: not the whole run. --out FOLDER writes it.")
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{slug()}.json"
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(table, encoding="utf-8")
    print(f"Written: {path} and {path.with_suffix('.md').name}")


def _cases(op: str, quick: bool) -> list[Callable[[], Case]]:
    made: list[Callable[[], Case]] = import_module(f"benchmarks.bench_{op}").cases(quick)
    return made


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time every op of ichfast beside eager PyTorch, torch.compile and, for "
        "windowing, NumPy, on this machine. Takes about five minutes; close what else is running.",
    )
    parser.add_argument(
        "--ops",
        type=_ops,
        default=OPS,
        metavar="NAME,...",
        help=f"only these of {', '.join(OPS)}",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=physical_cores(),
        metavar="N",
        help="default: %(default)s, the physical cores; ct_window always runs on one",
    )
    parser.add_argument("--quick", action="store_true", help="tiny inputs, to see that all runs")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where the results go; default: benchmarks/results, for a whole run only",
    )
    return parser


def _ops(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in OPS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no op {unknown[0]!r}; there are {', '.join(OPS)}")
    return names


if __name__ == "__main__":
    main()
