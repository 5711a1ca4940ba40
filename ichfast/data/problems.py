"""What could not be read: a bad file is named with its reason and the rest goes on, until there are
too many.
"""

import logging
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ichfast.errors import DataError


class Refused(DataError):
    """One file (or one scan) is not usable; the message is the reason, without the file's name.

    ``skip`` marks what a healthy tree may well hold (localizers, other modalities, notes): it is
    listed, but does not count towards too many.
    """

    def __init__(self, reason: str, *, skip: bool = False):
        super().__init__(reason)
        self.skip = skip


@contextmanager
def refuse_failures(reason: str) -> Iterator[None]:
    """`Refused` for whatever a parser or decoder raises on a damaged file. The message has only the
    type of the error: the parser's own message may quote the patient.
    """
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        raise Refused(f"{reason} ({type(error).__name__})") from None


@contextmanager
def silence(logger_name: str) -> Iterator[None]:
    """No warnings and nothing from this logger: parsers quote the values they find odd, which may
    be the patient's.
    """
    logger = logging.getLogger(logger_name)
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


@dataclass(frozen=True)
class Problem:
    source: str
    reason: str
    skip: bool = False


class Problems:
    """Collects them. `add` takes files that failed, `skip` those left out on purpose, and `expect`
    the number of files, so that 21 bad ones among a hundred thousand do not stop the work.
    """

    MAX_FILES = 20
    MAX_SHARE = 0.10

    def __init__(self) -> None:
        self.items: list[Problem] = []
        self.expected = 0
        self.failed = 0

    def expect(self, files: int) -> None:
        self.expected += files

    def add(self, source: str, reason: str) -> None:
        """A file that should have been read and was not. DataError when there are too many."""
        self.items.append(Problem(make_printable(source), reason))
        self.failed += 1
        if self.failed > self.MAX_FILES and self.failed > self.MAX_SHARE * self.expected:
            raise DataError(
                f"too many unreadable files, so the folder is probably damaged or not the one that "
                f"was meant: {self.summary()}"
            )

    def skip(self, source: str, reason: str) -> None:
        """A file that was left out, or something odd about one that was read."""
        self.items.append(Problem(make_printable(source), reason, skip=True))

    def record(self, source: str, refused: Refused) -> None:
        (self.skip if refused.skip else self.add)(source, str(refused))

    def summary(self, reasons: int = 8, names: int = 3) -> str:
        """The commonest reasons, failures first, each with the first few names."""
        by_reason: dict[tuple[bool, str], list[str]] = defaultdict(list)
        for item in self.items:
            by_reason[item.skip, item.reason].append(item.source)
        clauses = []
        for (_, reason), sources in sorted(by_reason.items(), key=lambda i: (i[0][0], -len(i[1]))):
            more = f" and {len(sources) - names} more" if len(sources) > names else ""
            clauses.append(f"{', '.join(sources[:names])}{more}: {reason}")
        if len(clauses) > reasons:
            clauses[reasons:] = [f"and {len(clauses) - reasons} more reasons"]
        count = f"{self.failed} not read, {len(self.items) - self.failed} left out or odd"
        return f"{count} ({'; '.join(clauses)})" if clauses else "no problems"


def make_printable(name: str) -> str:
    """The name without control characters or lone surrogates, for messages."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
