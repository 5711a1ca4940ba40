"""``python -m ichfast.predict``: segment scans with a trained model."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ichfast.command import command
from ichfast.inference.job import Job, predict
from ichfast.inference.state import DONE, FAILED
from ichfast.models.compute import resolve_device
from ichfast.processes import read_environment

PROG = "python -m ichfast.predict"

DESCRIPTION = """\
Segment intracranial haemorrhage in axial CT of heads, on the grid that each scan came on. For every
series OUT gets a folder with mask.nii.gz, seg.dcm (of DICOM), result.json and report.html, and
over all of them summary.csv and index.html. For research only: not a medical device.
"""

EPILOG = """\
INPUT is a DICOM file or a tree of them (one study or thousands), a NIfTI file or a folder of them,
or CT-ICH's pictures. Whatever is not segmented is named with its reason.

exit status:
  0  every scan that was found is segmented, or left out for a reason that is named
  1  something could not be read or written; the rest is there
  2  it could not begin, or not go on; the reason is printed
  130  interrupted
The same command goes on where a killed or interrupted one stopped.

on several processes or machines with one shared folder:
  torchrun --nproc-per-node 1 --nnodes 4 ... -m ichfast.predict INPUT --out DIR
"""


@command("take fewer --jobs")
def main(arguments: Sequence[str] | None = None, prog: str = PROG) -> int:
    options = make_parser(prog).parse_args(arguments)
    try:
        job = Job(
            inputs=tuple(options.inputs),
            out=options.out,
            models=tuple(options.model),
            device=str(resolve_device(options.device)),
            jobs=options.jobs,
            anonymous=options.anonymous,
            force=options.force,
            rank=read_environment("RANK", 0),
            world=read_environment("WORLD_SIZE", 1),
            timeout=options.timeout,
        )
        outcomes = predict(job)
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again to continue", file=sys.stderr)
        return 130
    if job.rank:  # torchrun stops all when one process ends in another way
        return 0
    done = sum(outcome.status == DONE for outcome in outcomes)
    failed = sum(outcome.status == FAILED for outcome in outcomes)
    left = len(outcomes) - done - failed
    print(f"{done} segmented, {left} left out, {failed} failed: {options.out / 'index.html'}")
    return 1 if failed or not done else 0


def make_parser(prog: str = PROG) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("inputs", type=Path, nargs="+", metavar="INPUT", help="scans")
    add(
        "--model",
        type=Path,
        action="append",
        default=[],
        metavar="MODEL",
        help="run folder or .safetensors; several are averaged (default: the weights that ship)",
    )
    add("--out", type=Path, metavar="DIR", required=True, help="new folder, or one to continue")
    add("--jobs", type=int, default=1, metavar="N", help="scans side by side (%(default)s)")
    add("--device", default="cpu", help="cpu, cuda or cuda:N (%(default)s)")
    add(
        "--anonymous",
        action="store_true",
        help="no names, ids or paths in the results; no seg.dcm, which cannot be without",
    )
    add(
        "--force",
        action="store_true",
        help="segment also what does not look like a CT of a head",
    )
    add(
        "--timeout",
        type=float,
        default=1800,
        metavar="SECONDS",
        help="give up when other machines make no progress for so long (%(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
