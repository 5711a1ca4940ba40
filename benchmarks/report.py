"""Results as Markdown, for the README and the screen."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.harness import BANDWIDTH, CALLS, COPY, GRAPH, OURS, SINGLE

TITLES = {
    "eager": "eager",
    "compile": "torch.compile",
    "monai": "MONAI",
    "numpy": "NumPy",
    "numpy tight": "NumPy, tight",
    "eager tight": "eager, tight",
    "cupy": "CuPy",
    "cupy tight": "CuPy, tight",
    "cupy kernel": "CuPy, own kernel",
}
WAYS = {CALLS: "back to back", SINGLE: "one call", GRAPH: "CUDA graph"}
KILOBYTES = 4 * 1024
"""What a loss may take on the CPU beyond its value and gradients: the sums that backward needs."""

Record = Mapping[str, Any]


def summarise(record: Record) -> str:
    """One record in one line, for the screen."""
    times = record["contenders"]
    others = [
        f"{name} {ratio['of_medians']:.2f}×"
        for name, ratio in record["speedup"].items()
        if name != COPY
    ]
    missing = [f"no {name} ({why})" for name, why in record["unavailable"].items()]
    beside = "; faster than " + ", ".join([*others, *missing]) if others or missing else ""
    return (
        f"{format_time(times[OURS]['median'])}, {times[OURS]['gb_per_s']:.1f} GB/s "
        f"(copy {times[COPY]['gb_per_s']:.1f}){beside}"
    )


def to_markdown(results: Mapping[str, Any]) -> str:
    on_gpu = "gpu" in results["machine"]
    parts = [
        f"{describe_origin(results)}. Medians of one run; in brackets how many times slower than "
        "ichfast."
    ]
    if not results.get("complete", True):
        parts.append("**Incomplete: not every case was measured.**")
    records: list[Record] = results["results"]
    for op in dict.fromkeys(record["op"] for record in records):
        parts.append(_tabulate_times([record for record in records if record["op"] == op], on_gpu))
    last = (_tabulate_ways(records), _tabulate_memory(records), _tabulate_targets(records, on_gpu))
    parts += [table for table in last if table]
    return "\n\n".join(parts) + "\n"


def describe_origin(results: Mapping[str, Any]) -> str:
    """Which machine, which versions, when."""
    machine, versions, commit = results["machine"], results["versions"], results["commit"]
    if "gpu" in machine:
        driver = f", driver {machine['gpu']['driver']}" if machine["gpu"]["driver"] else ""
        what = (
            f"{machine['gpu']['name']}{driver}; torch {versions['torch']}, CUDA {versions['cuda']}"
        )
        for name, title in (("triton", "Triton"), ("cupy", "CuPy"), ("monai", "MONAI")):
            what += f", {title} {versions[name]}" if versions[name] else ""
    else:
        what = (
            f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, "
            f"{versions['simd']}; torch {versions['torch']}, NumPy {versions['numpy']}, "
            f"{versions['compiler']}"
        )
    dirty = ", with uncommitted changes" if commit["dirty"] else ""
    return f"{what}; {results['date'][:10]}, commit {(commit['hash'] or 'unknown')[:10]}{dirty}"


def _tabulate_times(records: Sequence[Record], on_gpu: bool) -> str:
    rivals = _collect_names(record["speedup"] for record in records)
    rivals += [
        name for name in _collect_names(r["unavailable"] for r in records) if name not in rivals
    ]
    rates = [OURS, COPY]
    slices = any("images_per_s" in record for record in records)
    head = [
        "op",
        "input",
        *([] if on_gpu else ["threads"]),
        OURS,
        *(TITLES.get(n, n) for n in rivals),
        "GB/s",
        "copy, GB/s",
        *(["of the copy"] if on_gpu else []),
        *(["million slices/s"] if slices else []),
    ]
    rows = []
    for record in records:
        times = record["contenders"]
        row = [name_case(record), name_input(record)]
        row += [] if on_gpu else [str(record["threads"])]
        row.append(f"**{format_time(times[OURS]['median'])}**")
        row += [format_rival(record, name) for name in rivals]
        row += [f"{times[name]['gb_per_s']:.1f}" for name in rates]
        row += [format_share(record)] if on_gpu else []
        row += [f"{record['images_per_s'] / 1e6:.3g}"] if slices else []
        rows.append(row)
    return format_table(head, rows)


def _tabulate_ways(records: Iterable[Record]) -> str:
    """Small inputs: what a call costs by how it is called."""
    measured = [record for record in records if GRAPH in record]
    if not measured:
        return ""
    names = [OURS, *_collect_names(record["speedup"] for record in measured)]
    head = ["small inputs", "input", "called", *(TITLES.get(name, name) for name in names)]
    rows = []
    for record in measured:
        for way, title in WAYS.items():
            times = record["contenders" if way == CALLS else way]
            cells = [format_time(times[name]["median"]) if name in times else "–" for name in names]
            rows.append([name_case(record), name_input(record), title, *cells])
    return format_table(head, rows)


def _tabulate_memory(records: Iterable[Record]) -> str:
    measured = [record for record in records if "memory" in record]
    if not measured:
        return ""
    rivals = list(dict.fromkeys(n for r in measured for n in r["memory"] if n != "results"))
    head = [
        "peak extra memory",
        "input",
        "loss and gradients",
        *(TITLES.get(name, name) for name in rivals),
        f"{OURS} beyond them",
    ]
    rows = []
    for record in measured:
        memory = record["memory"]
        cells = [_format_bytes(memory[n]) if n in memory else "not available" for n in rivals]
        beyond = f"{(memory[OURS] - memory['results']) / 1024:.1f} KiB"
        cells = [_format_bytes(memory["results"]), *cells, beyond]
        rows.append([name_case(record), name_input(record), *cells])
    return format_table(head, rows)


def _tabulate_targets(records: Iterable[Record], on_gpu: bool) -> str:
    rows = []
    for record in records:
        start = [name_case(record), name_input(record)]
        for target in record["targets"]:
            measured = "not available" if target["measured"] is None else _format_measured(target)
            met = _format_verdict(target["holds"])
            rows.append([*start, _describe_target(target), measured, met])
        if "memory" in record and not on_gpu:
            beyond = record["memory"][OURS] - record["memory"]["results"]
            target = f"≤ {KILOBYTES // 1024} KiB beyond the gradients"
            met = _format_verdict(beyond <= KILOBYTES)
            rows.append([*start, target, f"{beyond / 1024:.1f} KiB", met])
    title = "target on an H100 or H200" if on_gpu else "target"
    return format_table(["op", "input", title, "measured", "met"], rows) if rows else ""


def _describe_target(target: Mapping[str, Any]) -> str:
    if target["against"] == COPY:
        return f"within {target['factor']}× of the copy"
    if target["against"] == BANDWIDTH:
        return f"≥ {target['factor']:.0%} of the copy's bandwidth"
    in_graph = "in a CUDA graph " if target.get("graph") else ""
    return f"{in_graph}≥ {target['factor']}× {TITLES.get(target['against'], target['against'])}"


def _format_measured(target: Mapping[str, Any]) -> str:
    measured = target["measured"]
    return f"{measured:.0%}" if target["against"] == BANDWIDTH else f"{measured:.2f}×"


def _format_verdict(holds: bool | None) -> str:
    return {True: "yes", False: "**no**", None: "unknown"}[holds]


def name_case(record: Record) -> str:
    return f"`{record['op']}` {record['work']}"


def name_input(record: Record) -> str:
    return f"{record['shape']} {record['dtype']}"


def format_rival(record: Record, name: str) -> str:
    """A contender's time and how many times slower it is."""
    if name not in record["contenders"]:
        return "not available"
    middle = record["contenders"][name]["median"]
    return f"{format_time(middle)} ({record['speedup'][name]['of_medians']:.2f}×)"


def format_share(record: Record) -> str:
    return f"{record['speedup'][COPY]['of_medians']:.0%}"


def format_time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _collect_names(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """All keys in the order of their first appearance, the copy's left out."""
    return [name for name in dict.fromkeys(n for m in mappings for n in m) if name != COPY]


def _format_bytes(count: int) -> str:
    return f"{count / 2**20:.2f} MiB"


def format_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
