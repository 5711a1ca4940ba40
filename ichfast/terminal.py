"""What commands print. A terminal may go away at any moment, and a file may have any name; neither
is a reason for hours of work to end, or for a terminal to do what a file's name tells it.
"""

import contextlib
import os
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any, TextIO, cast

PLAIN = "\n\r\t"
"""the control characters that texts and progress bars are made of"""


class TolerantStream:
    """A stream that takes every text. What it cannot encode is escaped, and control codes are, too.
    Where nobody reads any more (a closed pipe, a lost terminal, a full disk), the text is dropped.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream or open(os.devnull, "w")  # noqa: SIM115  # as long as the process

    def write(self, text: str) -> int:
        harmless = escape_controls(text)
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        with self._survive():
            self.stream.write(harmless.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with self._survive():
            self.stream.flush()

    @contextlib.contextmanager
    def _survive(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):  # the second where the stream is closed
            self._give_up()
        except RuntimeError:  # a signal's handler prints while this stream is being written to
            pass

    def _give_up(self) -> None:
        """From now on to nowhere, and the same for what others write to this file descriptor. What
        is still in the stream's buffer goes there as well, or Python would fail at its end."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        with contextlib.suppress(OSError, ValueError):
            os.dup2(nowhere, self.stream.fileno())
            self.stream.flush()
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def escape_controls(text: str) -> str:
    """The text without what a terminal obeys (escape codes, changes of the direction of writing)
    and without halves of characters, of names that are not UTF-8: these as \\x1b or \\udcfc."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in PLAIN or unicodedata.category(c) == "Zs" else repr(c)[1:-1]
        for c in text
    )


def tolerate(stream: TextIO | None) -> TextIO:
    return cast(TextIO, TolerantStream(stream))


@contextlib.contextmanager
def print_tolerantly() -> Iterator[None]:
    """Standard output and error as `TolerantStream` while the ``with`` block lasts."""
    with (
        contextlib.redirect_stdout(tolerate(sys.stdout)),
        contextlib.redirect_stderr(tolerate(sys.stderr)),
    ):
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
