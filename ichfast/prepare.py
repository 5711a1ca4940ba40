"""Command: makes a pool of a data set, every slice as int16 HU at one size, in one file."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ichfast.data.prepare import prepare_pool
from ichfast.errors import DataError, IchfastError

EPILOG = """\
exit status: 0 everything was read, 1 the pool is there but some files were bad and left out,
2 refused, 130 interrupted. Killed or interrupted, the same command goes on where it was.

on several processes or machines with one shared folder:
  torchrun --nproc-per-node 1 --nnodes 4 ... -m ichfast.prepare ROOT --out POOL
"""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m ichfast.prepare") -> int:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Make a pool of a data set (CT-ICH, RSNA, or a folder of NIfTI or DICOM): "
        "every slice as int16 HU at one size, in one memory-mapped file with an index.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("root", type=Path, metavar="ROOT", help="the data set")
    add(
        "--out", type=Path, metavar="POOL", required=True, help="folder: new, or that to go on with"
    )
    add("--size", type=int, default=256, metavar="N", help="rows and columns (%(default)s)")
    add("--positive-only", action="store_true", help="only slices with haemorrhage, where known")
    add("--limit", type=int, metavar="N", help="a seeded uniform choice of so many slices")
    add("--seed", type=int, default=0, metavar="N", help="of that choice (%(default)s)")
    add("--workers", type=int, metavar="N", help="processes (one a core)")
    add(
        "--timeout",
        type=float,
        default=1800,
        metavar="SECONDS",
        help="how long to wait for a sign of other machines (%(default)s)",
    )
    options = parser.parse_args(arguments)
    try:
        pool = prepare_pool(
            options.root,
            options.out,
            size=options.size,
            positive=options.positive_only,
            limit=options.limit,
            seed=options.seed,
            workers=options.workers,
            rank=environment("RANK", 0),
            world=environment("WORLD_SIZE", 1),
            timeout=options.timeout,
        )
    except IchfastError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        return 130
    if pool is None:  # torchrun stops all when one process ends in another way
        return 0
    problems = pool.problems
    masks = "" if pool.masks is None else ", with masks"
    print(
        f"{len(pool)} slices of {pool.patients} patients, {pool.size}x{pool.size}{masks}, in "
        f"{options.out}"
    )
    print(problems.summary())
    return 1 if problems.failed else 0


def environment(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise DataError(f"{name} is {text!r} in the environment; it must be a number") from None


if __name__ == "__main__":
    sys.exit(main())
