"""Results as Markdown, for the README and the screen."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.harness import COPY, OURS
from benchmarks.memory import KILOBYTES

TITLES = {
    "eager": "eager",
    "compile": "torch.compile",
    "numpy": "NumPy",
    "numpy tight": "NumPy, tight",
    "eager tight": "eager, tight",
}


def line(record: Mapping[str, Any]) -> str:
    """One record in one line, for the screen."""
    times = record["contenders"]
    others = [
        f"{name} {ratio['of_medians']:.2f}×"
        for name, ratio in record["speedup"].items()
        if name != COPY
    ]
    missing = [f"no {name} ({why})" for name, why in record["unavailable"].items()]
    return (
        f"{_time(times[OURS]['median'])}, {times[OURS]['gb_per_s']:.1f} GB/s "
        f"(copy {times[COPY]['gb_per_s']:.1f}); faster than " + ", ".join([*others, *missing])
    )


def markdown(results: Mapping[str, Any]) -> str:
    machine, versions, commit = results["machine"], results["versions"], results["commit"]
    dirty = ", with uncommitted changes" if commit["dirty"] else ""
    parts = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{versions['simd']}; torch {versions['torch']}, NumPy {versions['numpy']}, "
        f"{versions['compiler']}; {results['date'][:10]}, commit "
        f"{(commit['hash'] or 'unknown')[:10]}{dirty}. Medians of one run; in brackets how many "
        "times slower than ichfast.",
    ]
    records: list[Mapping[str, Any]] = results["results"]
    for op in dict.fromkeys(record["op"] for record in records):
        parts.append(_times([record for record in records if record["op"] == op]))
    parts += [table for table in (_memory(records), _owed(records)) if table]
    return "\n\n".join(parts) + "\n"


def _times(records: Sequence[Mapping[str, Any]]) -> str:
    rivals = [name for name in records[0]["speedup"] if name != COPY]
    rivals += list(records[0]["unavailable"])
    head = [
        "op",
        "input",
        "threads",
        OURS,
        *(TITLES.get(n, n) for n in rivals),
        "GB/s",
        "copy, GB/s",
    ]
    rows = []
    for record in records:
        times = record["contenders"]
        cells = [
            f"{_time(times[name]['median'])} ({record['speedup'][name]['of_medians']:.2f}×)"
            if name in times
            else "not available"
            for name in rivals
        ]
        rates = [f"{times[name]['gb_per_s']:.1f}" for name in (OURS, COPY)]
        name = f"`{record['op']}` {record['work']}"
        own = f"**{_time(times[OURS]['median'])}**"
        rows.append([name, _input(record), str(record["threads"]), own, *cells, *rates])
    return _table(head, rows)


def _memory(records: Iterable[Mapping[str, Any]]) -> str:
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
        name = f"`{record['op']}` {record['work']}"
        rows.append([name, _input(record), _bytes(memory["results"]), *cells, beyond])
    return _table(head, rows)


def _owed(records: Iterable[Mapping[str, Any]]) -> str:
    rows = []
    for record in records:
        name = f"`{record['op']}` {record['work']}"
        for owed in record["owed"]:
            against = TITLES.get(owed["against"], owed["against"])
            promise = (
                f"within {owed['factor']}× of the copy"
                if owed["against"] == COPY
                else f"≥ {owed['factor']}× {against}"
            )
            got = "not available" if owed["measured"] is None else f"{owed['measured']:.2f}×"
            rows.append([name, _input(record), promise, got, _holds(owed["holds"])])
        if "memory" in record:
            beyond = record["memory"][OURS] - record["memory"]["results"]
            promise = f"≤ {KILOBYTES // 1024} KiB beyond the gradients"
            kept = _holds(beyond <= KILOBYTES)
            rows.append([name, _input(record), promise, f"{beyond / 1024:.1f} KiB", kept])
    return _table(["owed by", "input", "promise", "measured", "holds"], rows) if rows else ""


def _holds(holds: bool | None) -> str:
    return {True: "yes", False: "**no**", None: "unknown"}[holds]


def _input(record: Mapping[str, Any]) -> str:
    return f"{record['shape']} {record['dtype']}"


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _bytes(count: int) -> str:
    return f"{count / 2**20:.2f} MiB"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
