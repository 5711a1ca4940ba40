"""The first thing that ichfast loads, for its commands alone: importing torch takes seconds, in
which Ctrl-C may come, and files are opened. Programs that import ichfast are left as they are.
"""

import os
import sys
from pathlib import Path
from types import TracebackType


def is_command() -> bool:
    """Whether this process is ``ichfast COMMAND`` or ``python -m ichfast…``."""
    words = sys.orig_argv
    module = words[words.index("-m") + 1 :][:1] if "-m" in words else []
    return any(word.partition(".")[0] == "ichfast" for word in [*module, Path(sys.argv[0]).name])


def occupy_standard_streams() -> None:
    """Open the null device where standard input, output or error is closed (``2>&-``). The next
    file would get its number, and whatever is printed would be written into that file."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one


def show_no_interrupt(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """For `sys.excepthook`: Ctrl-C before the command itself answers it is no error."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)


if is_command():
    occupy_standard_streams()
    sys.excepthook = show_no_interrupt
