"""``python -m ichfast.export RUN``: a run's model as one file that stands alone."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ichfast.command import command
from ichfast.errors import OutputError


@command("close other programs")
def main(arguments: Sequence[str] | None = None, prog: str = "python -m ichfast.export") -> int:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Write the model of a run as one .safetensors file that says all that its use "
        "needs: architecture, size, window, threshold, calibration, training data, version and "
        "licence. ichfast.load_model and python -m ichfast.predict --model take it.",
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="folder that training wrote (--out)")
    add("--out", type=Path, metavar="FILE", help="new file (NAME.safetensors, here)")
    add("--name", metavar="NAME", help="what results call the model (the run folder's name)")
    add("--licence", metavar="TEXT", help="under which the model may be used")
    options = parser.parse_args(arguments)
    path = export(options.run, options.out, options.name, options.licence)
    print(f"{path}: {path.stat().st_size} bytes")
    return 0


def export(run: Path, out: Path | None, name: str | None, licence: str | None) -> Path:
    """Write the file; where it is. Equal runs, names and licences give equal bytes."""
    from ichfast.files import write_whole  # after --help: these take a while to load
    from ichfast.inference.description import NAME
    from ichfast.inference.sources import read_member
    from ichfast.models import to_bytes

    member = read_member(run)
    given = {"name": name, "licence": licence}
    description = member.description.model_copy(
        update={key: value for key, value in given.items() if value}
    )
    if not re.fullmatch(NAME, description.name or ""):
        raise OutputError(
            f"{description.name!r} is no name of a model, which has no slash, backslash or control "
            "character; give another one with --name."
        )
    path = out or Path(f"{description.name}.safetensors")
    if path.suffix != ".safetensors":
        raise OutputError(f"--out {path}: the file is safetensors; name it {path}.safetensors.")
    if path.exists():
        raise OutputError(f"{path} is there already; delete it, or choose another --out.")
    write_whole(path, to_bytes(member.network, description.model_dump(mode="json")))
    return path


if __name__ == "__main__":
    sys.exit(main())
