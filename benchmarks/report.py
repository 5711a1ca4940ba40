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


def line(record: Record) -> str:
    """One record in one line, for the screen."""
    times = record["contenders"]
    others = [
        f"{name} {ratio['of_medians']:.2f}×"
        for name, ratio in record["speedup"].items()
        if name != COPY
    ]
    missing = [f"no {name} ({why})" for name, why in record["unavailable"].items()]
    return (
        f"{time(times[OURS]['median'])}, {times[OURS]['gb_per_s']:.1f} GB/s "
        f"(copy {times[COPY]['gb_per_s']:.1f}); faster than " + ", ".join([*others, *missing])
    )


def markdown(results: Mapping[str, Any]) -> str:
    on_gpu = "gpu" in results["machine"]
    parts = [
        f"{origin(results)}. Medians of one run; in brackets how many times slower than ichfast."
    ]
    if not results.get("complete", True):
        parts.append("**Incomplete: not every case was measured.**")
    records: list[Record] = results["results"]
    for op in dict.fromkeys(record["op"] for record in records):
        parts.append(_times([record for record in records if record["op"] == op], on_gpu))
    parts += [
        table for table in (_ways(records), _memory(records), _owed(records, on_gpu)) if table
    ]
    return "\n\n".join(parts) + "\n"


def origin(results: Mapping[str, Any]) -> str:
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


def _times(records: Sequence[Record], on_gpu: bool) -> str:
    rivals = _names(record["speedup"] for record in records)
    rivals += [name for name in _names(r["unavailable"] for r in records) if name not in rivals]
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
        row = [name_of(record), input_of(record)]
        row += [] if on_gpu else [str(record["threads"])]
        row.append(f"**{time(times[OURS]['median'])}**")
        row += [rival(record, name) for name in rivals]
        row += [f"{times[name]['gb_per_s']:.1f}" for name in rates]
        row += [share_of_copy(record)] if on_gpu else []
        row += [f"{record['images_per_s'] / 1e6:.3g}"] if slices else []
        rows.append(row)
    return table(head, rows)


def _ways(records: Iterable[Record]) -> str:
    """Small inputs: what a call costs by how it is called."""
    measured = [record for record in records if GRAPH in record]
    if not measured:
        return ""
    names = [OURS, *_names(record["speedup"] for record in measured)]
    head = ["small inputs", "input", "called", *(TITLES.get(name, name) for name in names)]
    rows = []
    for record in measured:
        for way, title in WAYS.items():
            times = record["contenders" if way == CALLS else way]
            cells = [time(times[name]["median"]) if name in times else "–" for name in names]
            rows.append([name_of(record), input_of(record), title, *cells])
    return table(head, rows)


def _memory(records: Iterable[Record]) -> str:
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
        cells = [_bytes(memory[n]) if n in memory else "not available" for n in rivals]
        beyond = f"{(memory[OURS] - memory['results']) / 1024:.1f} KiB"
        rows.append([name_of(record), input_of(record), _bytes(memory["results"]), *cells, beyond])
    return table(head, rows)


def _owed(records: Iterable[Record], on_gpu: bool) -> str:
    rows = []
    for record in records:
        name = name_of(record)
        for owed in record["owed"]:
            got = "not available" if owed["measured"] is None else _measured(owed)
            rows.append([name, input_of(record), _promise(owed), got, _holds(owed["holds"])])
        if "memory" in record and not on_gpu:
            beyond = record["memory"][OURS] - record["memory"]["results"]
            promise = f"≤ {KILOBYTES // 1024} KiB beyond the gradients"
            kept = _holds(beyond <= KILOBYTES)
            rows.append([name, input_of(record), promise, f"{beyond / 1024:.1f} KiB", kept])
    by = "owed on an H100 or H200 by" if on_gpu else "owed by"
    return table([by, "input", "promise", "measured", "holds"], rows) if rows else ""


def _promise(owed: Mapping[str, Any]) -> str:
    if owed["against"] == COPY:
        return f"within {owed['factor']}× of the copy"
    if owed["against"] == BANDWIDTH:
        return f"≥ {owed['factor']:.0%} of the copy's bandwidth"
    in_graph = "in a CUDA graph " if owed.get("graph") else ""
    return f"{in_graph}≥ {owed['factor']}× {TITLES.get(owed['against'], owed['against'])}"


def _measured(owed: Mapping[str, Any]) -> str:
    measured = owed["measured"]
    return f"{measured:.0%}" if owed["against"] == BANDWIDTH else f"{measured:.2f}×"


def _holds(holds: bool | None) -> str:
    return {True: "yes", False: "**no**", None: "unknown"}[holds]


def name_of(record: Record) -> str:
    return f"`{record['op']}` {record['work']}"


def input_of(record: Record) -> str:
    return f"{record['shape']} {record['dtype']}"


def rival(record: Record, name: str) -> str:
    """A contender's time and how many times slower it is."""
    if name not in record["contenders"]:
        return "not available"
    middle = record["contenders"][name]["median"]
    return f"{time(middle)} ({record['speedup'][name]['of_medians']:.2f}×)"


def share_of_copy(record: Record) -> str:
    return f"{record['speedup'][COPY]['of_medians']:.0%}"


def time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _names(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """All keys in the order of their first appearance, the copy's left out."""
    return [name for name in dict.fromkeys(n for m in mappings for n in m) if name != COPY]


def _bytes(count: int) -> str:
    return f"{count / 2**20:.2f} MiB"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
