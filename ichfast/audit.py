"""``python -m ichfast.audit``: what is odd about folders of CT, before anything is trained."""

import argparse
import sys
from pathlib import Path

from ichfast.command import command

EPILOG = """\
exit status:
  0  nothing prevents training; quirks that ichfast handles do not count
  1  the report names files that cannot be read, a set without a CT slice, patients, studies or
     pictures that two sets share, files on which decoders disagree, or ids on an exclude list
  2  nothing was audited; the reason is printed
  130  interrupted, nothing written
"""


@command("take fewer --workers")
def main(arguments: list[str] | None = None, prog: str = "python -m ichfast.audit") -> int:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Look through folders of CT and write audit.html and audit.json: files that "
        "cannot be read, quirks, tilt, spacing, missing and repeated slices, and what the folders "
        "share. Only headers are read, unless --pixels is given.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "sets",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="data set; two or more are compared",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the report")
    add(
        "--pixels",
        action="store_true",
        help="also read pixels: confirms quirks, finds damaged and identical pictures, and files "
        "on which decoders disagree; slow",
    )
    add(
        "--exclude-list",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="ids that must not occur (patient, study, series, or file name without its suffix), "
        "one per line; may be repeated",
    )
    add(
        "--identify",
        action="store_true",
        help="show the ids of patients, studies and series instead of pseudonyms",
    )
    add("--workers", type=int, metavar="N", help="processes (default: up to one per core)")
    options = parser.parse_args(arguments)
    try:
        from ichfast.report.audit import write_audit

        return write_audit(
            options.sets,
            options.out,
            pixels=options.pixels,
            identify=options.identify,
            lists=options.exclude_list,
            workers=options.workers,
        )
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
