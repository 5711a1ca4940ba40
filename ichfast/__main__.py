"""``ichfast COMMAND``: every command of ``python -m ichfast.COMMAND``, listed in one place."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from ichfast import __version__

COMMANDS = {
    "train": "train a model, evaluate it, write its report",
    "predict": "segment scans with a trained model: masks, millilitres and a page for each",
    "phantom": "write synthetic head CT with haemorrhages to try everything on",
    "audit": "look through folders of CT for all that is odd, before anything is trained",
    "prepare": "make a pool of a data set: every slice as HU in one file",
    "export_nnunet": "write a labelled set as a data set of nnU-Net v2",
    "evaluate": "test a model on a labelled set that it was not trained with",
    "export": "write the model of a run as one file that stands alone",
    "report": "write the report of a run again",
    "reproduce": "the paper's Table 1: plan, runs and page",
    "weights": "make the weights that ship",
}


def main(arguments: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else list(arguments)
    name = Path(sys.argv[0]).name
    parser = argparse.ArgumentParser(
        prog="python -m ichfast" if name == "__main__.py" else name,
        description="Segment intracranial haemorrhage in head CT.",
        epilog="commands (COMMAND --help says more):\n"
        + "\n".join(f"  {command:15}{text}" for command, text in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="see below")
    if not words:
        parser.print_help()
        return 0
    command = parser.parse_args(words[:1]).command  # what follows is the command's own
    module = importlib.import_module(f"ichfast.{command}")
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"ichfast.{command}.__main__")
    status: int = module.main(words[1:], prog=f"{parser.prog} {command}")
    return status


if __name__ == "__main__":
    sys.exit(main())
