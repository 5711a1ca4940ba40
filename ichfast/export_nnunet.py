"""``python -m ichfast.export_nnunet``: a labelled set for nnU-Net v2."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ichfast.command import command
from ichfast.data import Problems


@command("one scan at a time is all that is in memory, so close other programs")
def main(
    arguments: Sequence[str] | None = None, prog: str = "python -m ichfast.export_nnunet"
) -> int:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Write a labelled set as a data set of nnU-Net v2 (imagesTr, labelsTr, "
        "dataset.json), in HU, upright, haemorrhage of every type as label 1. Exit status: 0, 1 "
        "when some scans could not be exported, 2 when none were.",
    )
    parser.add_argument("root", type=Path, metavar="ROOT", help="CT-ICH v1.3.1 or NIfTI with masks")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        required=True,
        help="new or empty folder, such as nnUNet_raw/Dataset501_CTICH",
    )
    options = parser.parse_args(arguments)
    from ichfast.data.nnunet import export  # after --help, which needs no nibabel

    problems = Problems()
    try:
        count = export(options.root, options.out, problems, progress=True)
    except KeyboardInterrupt:
        print(f"interrupted: delete {options.out} and start again", file=sys.stderr)
        return 130
    print(f"{count} scans in {options.out}")
    if problems.items:
        print(problems.summary(), file=sys.stderr)
    return 1 if problems.failed else 0


if __name__ == "__main__":
    sys.exit(main())
