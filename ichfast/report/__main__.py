"""``python -m ichfast.report RUN``: make the page of a run again."""

import argparse
import sys
from pathlib import Path

from ichfast.command import command
from ichfast.report import write_report


@command("close other programs")
def main(arguments: list[str] | None = None, prog: str = "python -m ichfast.report") -> int:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Write report.html into a run folder, from the files in it. It also works "
        "while the run is still going on.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that training wrote (--out)")
    print(write_report(parser.parse_args(arguments).run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
