"""What many files add up to. Each process sends tallies of a few hundred files, which are merged:
all that is kept of a file is its position, and its name where something is odd.
"""

import re
from array import array
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ichfast.data.audit.look import Look
from ichfast.data.plausible import Census
from ichfast.data.problems import Refused, make_printable
from ichfast.data.stacks import Stack, name_series

NAMED = 10_000  # files that are named per finding


@dataclass(slots=True)
class Finding:
    kind: str  # "refused", "decoders", "quirk" or "left out"
    files: int = 0  # or frames of files with many
    possible: int = 0
    named: list[tuple[int, str, str]] = field(default_factory=list)  # set, file, detail

    def add(self, other: "Finding") -> None:
        self.files += other.files
        self.possible += other.possible
        self.named += other.named[: NAMED - len(self.named)]


@dataclass(slots=True)
class SeriesTally:
    """The files of one series that belong together, as training would take them."""

    set: int
    stack: Stack
    first: str  # a file of it
    positions: array  # type: ignore[type-arg]
    found: Counter[str]
    possible: Counter[str]
    acquisitions: list[tuple[bytes, bytes]]  # by position
    census: Census | None  # where pixels are read


@dataclass
class Tally:
    files: Counter[int] = field(default_factory=Counter)  # by set
    refused: Counter[int] = field(default_factory=Counter)  # files, and frames of files with many
    left_out: Counter[int] = field(default_factory=Counter)  # likewise
    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)  # by kind and name
    scans: dict[tuple[int, str], list[SeriesTally]] = field(
        default_factory=dict
    )  # by set and series
    hashes: list[tuple[int, int, str]] = field(default_factory=list)  # of pixels, set, file
    listed: list[tuple[str, int, str]] = field(default_factory=list)  # name on a list, set, file
    # Parts of file names that contain a patient's id -> the id.
    telling: dict[str, str] = field(default_factory=dict)

    def add_unreachable(self, part: int, path: str, reason: str) -> None:
        self._record("refused", reason, Finding("refused", 1, 0, [(part, path, "")]))

    def add_refused(self, part: int, source: str, refused: Refused) -> None:
        (self.left_out if refused.skip else self.refused)[part] += 1
        reason = str(refused)
        name, _, detail = reason.partition(": ")  # numbers stand after the colon
        kind = "left out" if refused.skip else "refused"
        self._record(kind, name, Finding(kind, 1, 0, [(part, source, detail)]))

    def add(self, part: int, source: str, look: Look, listed: Collection[str]) -> None:
        header = look.header
        if look.decoders:
            name, sides = look.decoders
            self._record("decoders", name, Finding("decoders", 1, 0, [(part, source, sides)]))
        for name in look.found:
            self._record("quirk", name, Finding("quirk", 1, 0, [(part, source, "")]))
        for name in look.possible:
            self._record("quirk", name, Finding("quirk", 0, 1))
        one = SeriesTally(
            part,
            Stack(name_series(header, source), header, look.frame),
            source,
            array("d", [look.position]),
            Counter(look.found),
            Counter(look.possible),
            [header.acquisition],
            look.census,
        )
        self._join((part, one.stack.series), one)
        if look.pixels is not None:
            self.hashes.append((look.pixels, part, source))
        stem = PurePosixPath(source).stem
        if stem in listed:
            self.listed.append((stem, part, source))
        if header.patient and header.patient in make_printable(source):
            for piece in source.split("/"):
                if make_word_pattern(header.patient).search(piece):
                    self.telling[piece] = header.patient

    def merge(self, other: "Tally") -> None:
        self.files.update(other.files)
        self.refused.update(other.refused)
        self.left_out.update(other.left_out)
        for (kind, name), finding in other.findings.items():
            self._record(kind, name, finding)
        for key, scans in other.scans.items():
            for scan in scans:
                self._join(key, scan)
        self.hashes += other.hashes
        self.listed += other.listed
        self.telling.update(other.telling)

    def _record(self, kind: str, name: str, finding: Finding) -> None:
        self.findings.setdefault((kind, name), Finding(kind)).add(finding)

    def _join(self, key: tuple[int, str], scan: SeriesTally) -> None:
        scans = self.scans.setdefault(key, [])
        for known in scans:
            if known.stack.takes(scan.stack.header):
                known.positions.extend(scan.positions)
                known.found.update(scan.found)
                known.possible.update(scan.possible)
                known.acquisitions += scan.acquisitions
                if known.census and scan.census:
                    known.census += scan.census
                return
        scans.append(scan)


def make_word_pattern(name: str) -> re.Pattern[str]:
    """Finds the name by itself, not as a part of a longer one."""
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])")
