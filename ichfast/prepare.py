"""``python -m ichfast.prepare``: a pool of a data set, every slice as int16 HU in one file."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ichfast.command import command
from ichfast.data.pool import Pool
from ichfast.data.prepare import prepare_pool
from ichfast.processes import read_environment

EPILOG = """\
exit status:
  0  everything was read
  1  the pool was made, but some files were bad and left out
  2  no pool was made; the reason is printed
  130  interrupted
The same command continues where a killed or interrupted one stopped.

on several processes or machines with one shared folder:
  torchrun --nproc-per-node 1 --nnodes 4 ... -m ichfast.prepare ROOT --out POOL
"""


@command("take fewer --workers")
def main(arguments: Sequence[str] | None = None, prog: str = "python -m ichfast.prepare") -> int:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Make a pool of a data set (CT-ICH, RSNA, or a folder of NIfTI or DICOM): "
        "every slice as int16 HU at one size, in one memory-mapped file with an index.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("root", type=Path, nargs="?", metavar="ROOT", help="the data set")
    add(
        "--out",
        type=Path,
        metavar="POOL",
        required=True,
        help="new folder, or one to continue",
    )
    add("--size", type=int, default=256, metavar="N", help="rows and columns (%(default)s)")
    add("--positive-only", action="store_true", help="keep only slices known to have haemorrhage")
    add("--limit", type=int, metavar="N", help="keep a seeded uniform choice of N slices")
    add("--seed", type=int, default=0, metavar="N", help="seed of that choice (%(default)s)")
    add("--workers", type=int, metavar="N", help="processes (default: one per core)")
    add(
        "--timeout",
        type=float,
        default=1800,
        metavar="SECONDS",
        help="give up when other machines make no progress for so long (%(default)s)",
    )
    add(
        "--verify",
        action="store_true",
        help="read the pool that is there, every byte of it, and compare it with its checksums",
    )
    options = parser.parse_args(arguments)
    if options.verify:
        return verify(options.out)
    if options.root is None:
        parser.error("give ROOT, the data set")
    try:
        pool = prepare_pool(
            options.root,
            options.out,
            size=options.size,
            positive=options.positive_only,
            limit=options.limit,
            seed=options.seed,
            workers=options.workers,
            rank=read_environment("RANK", 0),
            world=read_environment("WORLD_SIZE", 1),
            timeout=options.timeout,
        )
    except KeyboardInterrupt:
        print("interrupted: run the same command again to continue", file=sys.stderr)
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


def verify(path: Path) -> int:
    pool = Pool(path)
    pool.verify()
    print(f"{path}: {len(pool)} slices are as they were written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
