"""What many files add up to. Each process sends tallies of a few hundred files, which are merged:
all that is kept of a file is its position, and its name where something is odd.
"""

import re
from array import array
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ichfast.data.audit.look import EMPTY, Look
from ichfast.data.plausible import Census
from ichfast.data.problems import Problem, Refused, make_printable
from ichfast.data.series import Series
from ichfast.data.stacks import Stack, measure_tilt, name_series

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


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a scan, in whatever files it lies."""

    patient: str
    study: str
    series: str
    size: tuple[int, int]
    spacing: tuple[float, float]  # mm, as the file has them; nan: not known
    tilt: float  # degrees


@dataclass(slots=True)
class SeriesTally:
    """The files of one series that belong together, as training would take them."""

    set: int
    about: About
    first: str  # a file of it
    positions: array  # type: ignore[type-arg]
    stack: Stack | None = None  # None: a scan that is no DICOM, and was read whole
    found: Counter[str] = field(default_factory=Counter)
    possible: Counter[str] = field(default_factory=Counter)
    acquisitions: list[tuple[bytes, bytes]] = field(default_factory=list)  # by position
    census: Census | None = None  # where pixels are read
    quirks: tuple[str, ...] = ()  # of a scan that was read whole


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
    # Of scans that are no DICOM; those of a set as a whole come with each of its scans.
    problems: dict[tuple[int, Problem], None] = field(default_factory=dict)

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
        stack = Stack(name_series(header, source), header, look.frame)
        about = About(
            header.patient,
            header.study,
            header.series,
            (header.rows, header.columns),
            (header.spacing[0], header.spacing[1]),
            measure_tilt(look.frame.normal, header.gantry_tilt),
        )
        one = SeriesTally(
            part,
            about,
            source,
            array("d", [look.position]),
            stack,
            Counter(look.found),
            Counter(look.possible),
            [header.acquisition],
            look.census,
        )
        self._join((part, stack.series), one)
        if look.pixels is not None:
            self.hashes.append((look.pixels, part, source))
        stem = PurePosixPath(source).stem
        if stem in listed:
            self.listed.append((stem, part, source))
        self._note_telling(header.patient, source)

    def add_scan(self, part: int, scan: Series, pixels: Iterable[int | None]) -> None:
        """A scan that was read whole, and the hashes of its slices where those are wanted."""
        rows, columns = scan.stored.shape[1:]
        about = About(
            scan.patient, scan.study, scan.series, (rows, columns), scan.spacing, scan.tilt
        )
        positions = array("d", scan.positions)
        one = SeriesTally(part, about, scan.sources[0], positions, quirks=scan.quirks)
        self._join((part, scan.series), one)
        for code, source in zip(pixels, scan.sources, strict=False):
            if code is None:
                self._record("quirk", EMPTY, Finding("quirk", 1, 0, [(part, source, "")]))
            else:
                self.hashes.append((code, part, source))
            self._note_telling(scan.patient, source)
        self._note_telling(scan.patient, scan.sources[0])

    def add_problem(self, part: int, scan: str, problem: Problem) -> None:
        self.problems[part, problem] = None
        self._note_telling(scan, problem.source)

    def settle(self) -> None:
        """Count the problems, once nothing is merged any more."""
        for part, problem in self.problems:
            self.add_refused(part, problem.source, Refused(problem.reason, skip=problem.skip))

    def _note_telling(self, patient: str, source: str) -> None:
        if patient and patient in make_printable(source):
            for piece in source.split("/"):
                if make_word_pattern(patient).search(piece):
                    self.telling[piece] = patient

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
        self.problems.update(other.problems)

    def _record(self, kind: str, name: str, finding: Finding) -> None:
        self.findings.setdefault((kind, name), Finding(kind)).add(finding)

    def _join(self, key: tuple[int, str], scan: SeriesTally) -> None:
        scans = self.scans.setdefault(key, [])
        for known in scans:
            if known.stack and scan.stack and known.stack.takes(scan.stack.header):
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
