"""``python -m benchmarks.audit_speed [DIR]``: what an audit of headers costs per file, warm cache.

DIR holds DICOM files; without it, 28 plain ones are written. They are linked, not copied, as often
as asked for, so the cache stays warm and the disk is left out.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.ct_files import write_ct
from ichfast.data.audit import Options, audit
from ichfast.data.audit.look import look
from ichfast.data.headers import read_header, scan_header


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit_speed")
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR")
    parser.add_argument("--files", type=int, default=20_000, metavar="N", help="(%(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder and options.folder.parent) as name:
        tree = Path(name)
        originals = sorted(options.folder.rglob("*.dcm")) if options.folder else _write_files(tree)
        print(f"load before: {os.getloadavg()[0]:.2f}, cores: {os.cpu_count()}")
        for what, read in (
            ("read_header (pydicom)", read_header),
            ("scan_header", scan_header),
            ("look", lambda path: look(path, pixels=False)),
        ):
            print(f"{what:24} {_time_best(read, originals):.3f} ms per file")
        linked = tree / "linked"
        for i in range(options.files):
            folder = linked / f"{i // 500:04d}"
            folder.mkdir(parents=True, exist_ok=True)
            os.link(originals[i % len(originals)], folder / f"{i:06d}.dcm")
        for workers in sorted({1, os.cpu_count() or 1}):
            start = time.perf_counter()
            audit([linked], Options(workers=workers, progress=False, salt=bytes(16)))
            seconds = time.perf_counter() - start
            print(
                f"{f'audit, {workers} workers':24} {1000 * seconds * workers / options.files:.3f} "
                f"ms per file and core, start of processes included ({seconds:.1f} s for "
                f"{options.files:,} files)"
            )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        unit = 2**20 if sys.platform == "darwin" else 2**10
        print(f"peak memory of the parent: {peak / unit:.0f} MiB, torch's included")


def _time_best(read: Callable[[Path], object], paths: list[Path]) -> float:
    """Milliseconds per file in the best of 20 rounds."""
    rounds = []
    for _ in range(20):
        start = time.perf_counter()
        for path in paths:
            read(path)
        rounds.append(time.perf_counter() - start)
    return 1000 * min(rounds) / len(paths)


def _write_files(folder: Path) -> list[Path]:
    pixels = np.zeros((512, 512), np.int16)
    return [write_ct(folder / f"{i:02d}.dcm", pixels, i) for i in range(28)]


if __name__ == "__main__":
    main()
