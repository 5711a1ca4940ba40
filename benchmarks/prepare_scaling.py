"""How `python -m ichfast.prepare` scales with processes, and what memory it holds.

    python -m benchmarks.prepare_scaling --slices 1000,20000 --folder /somewhere/with/room

Writes DICOM series of 34 slices, 512x512 int16 (noise, since pixels do not change the work; half a
megabyte per slice), then makes a pool of them with 1 worker and with 2, in turn: the whole command,
start of Python and torch included, one thread of torch in each process, files warm in the page
cache where they fit. CPU seconds are those of all processes, peak memory that of the largest.
"""

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.ct_files import write_ct

SERIES = 34  # slices of a scan, as RSNA has on average
WORKERS = (1, 2)
SET_CHILD_SUBREAPER = 36  # prctl(2): orphans become children of this process


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prepare_scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--slices", default="1000,20000", metavar="N,N", help="sizes of the sets (%(default)s)")
    add("--side", type=int, default=512, metavar="N", help="rows and columns (%(default)s)")
    add("--rounds", type=int, default=3, metavar="N", help="of the smallest set (%(default)s)")
    add("--folder", type=Path, required=True, help="new folder for sets and pools, removed after")
    options = parser.parse_args(arguments)
    sizes = sorted(map(int, options.slices.split(",")))
    # What starts the workers ends after the command and is not waited for by it: by us, then.
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1)
    options.folder.mkdir(parents=True)
    result: dict[str, Any] = {
        "machine": machine.describe_machine(max(WORKERS)),
        "side": options.side,
    }
    try:
        for slices in sizes:
            root = options.folder / f"set-{slices}"
            write_set(root, slices, options.side)
            rounds = options.rounds if slices == sizes[0] else 1
            result[f"{slices} slices"] = measure(root, options.folder / "pool", slices, rounds)
            shutil.rmtree(root)
    finally:
        shutil.rmtree(options.folder)
    result["load_average_after"] = [round(load, 2) for load in os.getloadavg()]
    print(json.dumps(result, indent=1))
    return 0


def measure(root: Path, out: Path, slices: int, rounds: int) -> dict[str, Any]:
    runs: dict[int, list[tuple[float, float, float]]] = {workers: [] for workers in WORKERS}
    for _ in range(rounds):
        for workers in WORKERS:
            runs[workers].append(prepare(root, out, workers))
    seconds = {w: statistics.median(run[0] for run in runs[w]) for w in WORKERS}
    return {
        "seconds": {f"{w} workers": round(seconds[w], 2) for w in WORKERS},
        "CPU seconds": {
            f"{w} workers": round(statistics.median(run[1] for run in runs[w]), 2) for w in WORKERS
        },
        "slices per second": {f"{w} workers": round(slices / seconds[w]) for w in WORKERS},
        "speed-up": round(seconds[WORKERS[0]] / seconds[WORKERS[-1]], 2),
        "peak MiB of the largest process": {
            f"{w} workers": round(max(run[2] for run in runs[w])) for w in WORKERS
        },
    }


def prepare(root: Path, out: Path, workers: int) -> tuple[float, float, float]:
    """Seconds of one whole command, its CPU seconds, and the MiB of its largest process."""
    command = [sys.executable, "-m", "ichfast.prepare", str(root), "--out", str(out)]
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--workers", str(workers)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"prepare ended with status {process.returncode}")
    usages = [usage]
    with contextlib.suppress(ChildProcessError):  # raised when there are no more
        while True:
            usages.append(os.wait3(0)[2])
    shutil.rmtree(out)
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return seconds, cpu, max(usage.ru_maxrss for usage in usages) / 1024


def write_set(root: Path, slices: int, side: int) -> None:
    """One file is written by pydicom; the others are its bytes with names and position replaced."""
    root.mkdir()
    template = root / "template"
    noise = np.random.default_rng(0).integers(-1000, 2000, (side, side)).astype("<i2")
    write_ct(
        template,
        noise,
        PatientID="1.9.100000",
        StudyInstanceUID="1.9.100000",
        SeriesInstanceUID="1.9.100000",
        ImagePositionPatient=["-100", "-100", "77777"],
    )
    content = template.read_bytes()
    template.unlink()
    head, pixels = content[: -noise.nbytes], content[-noise.nbytes :]
    for i in range(slices):
        scan, k = divmod(i, SERIES)
        own = head.replace(b"1.9.100000", b"1.9.%06d" % scan).replace(b"77777", b"%05d" % (5 * k))
        (root / f"{i:06}.dcm").write_bytes(own + pixels)


if __name__ == "__main__":
    sys.exit(main())
