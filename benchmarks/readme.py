"""The README's GPU table. A whole run on a GPU writes it; results brought from elsewhere need

python -m benchmarks.readme benchmarks/results/nvidia-h100-80gb-hbm3.json
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import GRAPH, OURS
from benchmarks.report import (
    TITLES,
    describe_origin,
    format_rival,
    format_share,
    format_table,
    format_time,
    name_case,
    name_input,
)

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- benchmarks: cuda -->", "<!-- end -->"


def update(results: Mapping[str, Any]) -> None:
    """Puts the table between the two marker comments."""
    if "gpu" not in results["machine"] or not results["complete"]:
        raise ValueError("results: the README shows whole runs on a GPU only; this is none")
    text = README.read_text(encoding="utf-8")
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(
            f"{README.name} has no line {START} with a line {END} after it; "
            "add both where the GPU table is to stand"
        )
    parts = [before + START, make_gpu_table(results), END + after]
    README.write_text("\n".join(parts), encoding="utf-8")


def make_gpu_table(results: Mapping[str, Any]) -> str:
    """Of what has a target: each op and pass once, in the dtype that comes first."""
    chosen: dict[tuple[str, str], Mapping[str, Any]] = {}
    for record in results["results"]:
        if record["targets"]:
            chosen.setdefault((record["op"], record["work"]), record)
    head = ["op", "input", OURS, "of a copy's bandwidth"]
    head += ["eager PyTorch", "`torch.compile`", "MONAI, CuPy"]
    rows = []
    for record in chosen.values():
        own = f"**{format_time(record['contenders'][OURS]['median'])}**"
        share = format_share(record)
        if GRAPH in record:  # a small input, which the caches serve in part
            share = "–"
            if OURS in record[GRAPH]:
                own += f", in a CUDA graph {format_time(record[GRAPH][OURS]['median'])}"
        rivals = [format_rival(record, name) for name in ("eager", "compile")]
        rows.append(
            [name_case(record), name_input(record), own, share, *rivals, _format_best_other(record)]
        )
    return f"{describe_origin(results)}:\n\n{format_table(head, rows)}\n"


def _format_best_other(record: Mapping[str, Any]) -> str:
    """The best of those that not every op has; a kernel of one's own in CuPy is not a library's."""
    others = [name for name in ("monai", "cupy", "cupy tight") if name in record["contenders"]]
    if not others:
        return "–"
    best = min(others, key=lambda name: float(record["contenders"][name]["median"]))
    return f"{TITLES[best]} {format_rival(record, best)}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.readme",
        description="Write the README's GPU table anew.",
    )
    parser.add_argument("results", type=Path, help="JSON of a whole `--device cuda` run")
    path: Path = parser.parse_args(argv).results
    try:
        update(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
