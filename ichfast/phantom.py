"""``python -m ichfast.phantom``: synthetic head CT with haemorrhages in the published layouts."""

import argparse
import sys
from pathlib import Path

from ichfast.command import command
from ichfast.data.phantom import write_phantom


@command("take fewer --workers, or a smaller --size")
def main(arguments: list[str] | None = None, prog: str = "python -m ichfast.phantom") -> int:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Write synthetic head CT with haemorrhages: a labelled set in the layout of "
        "CT-ICH v1.3.1 (DIR/labelled) and an unlabelled set in that of RSNA 2019 "
        "(DIR/unlabelled). The same arguments give the same files.",
    )
    add = parser.add_argument
    add("--out", type=Path, metavar="DIR", help="folder: new, empty, or with the same phantom")
    add("--patients", type=int, default=40, metavar="N", help="labelled patients (%(default)s)")
    add("--unlabelled", type=int, default=80, metavar="N", help="unlabelled patients (%(default)s)")
    add(
        "--size",
        type=int,
        default=256,
        metavar="N",
        help="rows and columns of a slice (%(default)s)",
    )
    add("--slices", type=int, default=11, metavar="N", help="slices per patient (%(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the whole cohort (%(default)s)")
    add("--workers", type=int, metavar="N", help="processes (default: one per core)")
    add("--picture", type=Path, metavar="FILE", help="instead draw a montage of patients (PNG)")
    options = parser.parse_args(arguments)
    if (options.out is None) == (options.picture is None):
        parser.error("give --out DIR, or --picture FILE")
    try:
        if options.picture is not None:
            from ichfast.data.phantom.picture import draw

            draw(options.picture, seed=options.seed, size=options.size)
            return 0
        write_phantom(
            options.out,
            patients=options.patients,
            unlabelled_patients=options.unlabelled,
            size=options.size,
            slices=options.slices,
            seed=options.seed,
            workers=options.workers,
        )
    except KeyboardInterrupt:
        print("interrupted: run the same command again to finish", file=sys.stderr)
        return 130
    print(f"phantom in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
