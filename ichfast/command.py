"""How every command runs: what it prints, and how it ends."""

import functools
import sys
import traceback
from collections.abc import Callable
from typing import ParamSpec

import torch

from ichfast.errors import IchfastError
from ichfast.interrupts import INTERRUPTED, obey_signals
from ichfast.terminal import print_tolerantly

P = ParamSpec("P")
Main = Callable[P, int]

REFUSED = 2
"""exit status where nothing was done; the reason is printed"""

PACKAGES = {
    "matplotlib": "matplotlib jinja2",
    "jinja2": "matplotlib jinja2",
    "PIL": "pillow",
    "gdcm": "python-gdcm",
    "openjpeg": "pylibjpeg-openjpeg",
    "highdicom": "highdicom",
}
"""what to install for a module whose package has another name, or is used with others"""

NO_MEMORY = ("allocate", "out of memory", "not enough memory", "Storage size", "bad_alloc")
"""in torch's errors for want of memory, which are RuntimeErrors of no type of their own"""


def command(lower: str) -> Callable[[Main[P]], Main[P]]:
    """For the ``main`` of a command: it returns an exit status whatever happens, and its errors are
    sentences. ``lower`` says what takes less memory, for where that runs out.
    """

    def wrap(main: Main[P]) -> Main[P]:
        @functools.wraps(main)
        def run(*arguments: P.args, **options: P.kwargs) -> int:
            with print_tolerantly(), obey_signals() as asked:
                try:
                    status = main(*arguments, **options)
                except KeyboardInterrupt:
                    print("\ninterrupted", file=sys.stderr)
                    status = INTERRUPTED
                except Exception as error:
                    explain(error, lower)
                    status = REFUSED
            # A signal to all processes of a command ends its workers too, which looks like an error
            # of theirs.
            interrupted = asked.number and status in (INTERRUPTED, REFUSED)
            return 128 + asked.number if interrupted else status

        return run

    return wrap


def explain(error: Exception, lower: str) -> None:
    """Print the error as a sentence; one that nobody has thought of, with where it comes from."""
    if isinstance(error, IchfastError):
        text = str(error)
    elif isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.partition(".")[0]
        text = f"{top} is missing: pip install {PACKAGES.get(top, top)}"
    elif is_out_of_memory(error):
        text = f"memory ran out; {lower}."
    else:
        traceback.print_exception(error, file=sys.stderr)
        text = f"this is a fault in ichfast ({type(error).__name__}); please report it."
    print(f"error: {text}", file=sys.stderr)


def is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in NO_MEMORY)
