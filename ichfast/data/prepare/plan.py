"""The plan of a pool: what is asked for, which files there are, and what each part reads. Written
once, before the first pixel is decoded, so that any process that continues does the same work.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from pathlib import Path
from typing import Any

import ichfast
from ichfast.data.layouts.base import Unit
from ichfast.data.listing import name_source, walk_files
from ichfast.data.problems import Problem, make_printable
from ichfast.errors import DataError, OutputError
from ichfast.files import create_whole

FORMAT = 3
FILES = 64  # slices per part: about two scans of RSNA, a tenth of a second of work
File = tuple[str, int, int]  # relative to the root, bytes, time of modification in ns


@dataclass(frozen=True)
class PoolPlan:
    layout: str  # its name
    arguments: dict[str, Any]
    sources: list[File]
    units: list[Unit]
    problems: list[Problem]  # found on the way to it
    expected: int  # as `Problems.expect`

    def parts(self) -> list[list[Unit]]:
        """Consecutive units: a series, or several small ones."""
        parts: list[list[Unit]] = []
        room = 0
        for unit in self.units:
            need = unit.slices or FILES
            if need > room:
                parts.append([])
                room = FILES
            parts[-1].append(unit)
            room -= need
        return parts

    def places(self) -> list[int] | list[None]:
        """For each part, where in the pool its slices lie if all can be read; None where their
        number is not known before they are read.
        """
        parts = self.parts()
        if not all(unit.slices for unit in self.units):
            return [None] * len(parts)
        return [0, *accumulate(sum(unit.slices for unit in part) for part in parts)][:-1]

    def check(self, layout: str, arguments: dict[str, Any], work: Path) -> None:
        """OutputError unless the plan was made for these arguments."""
        compare(work, {"layout": self.layout, **self.arguments}, {"layout": layout, **arguments})

    def check_sources(self, sources: list[File], root: Path, work: Path) -> None:
        """DataError unless the files are those of the plan."""
        for old, new in zip_longest(self.sources, sources):
            if old != new:
                name = min(file[0] for file in (old, new) if file is not None)
                changed = old is not None and new is not None and old[0] == new[0]
                appeared = new is not None and new[0] == name
                what = "changed" if changed else "appeared" if appeared else "disappeared"
                raise DataError(
                    f"{root}: {make_printable(name)} has {what} since the work on the pool began; "
                    f"put it back as it was, or delete {work} and start again"
                )

    def digest_sources(self) -> str:
        return digest_sources(self.sources)


def compare(where: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """OutputError that names the first argument in which they differ."""
    for name in (*new, *old):
        if new.get(name) != old.get(name):
            raise OutputError(
                f"{where} was made with {name} {old.get(name)}, not {new.get(name)}; give the same "
                f"arguments, choose another --out, or delete it"
            )


def list_sources(root: Path) -> list[File]:
    files = []
    for path in map(Path, walk_files(str(root))):
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(
                f"{path}: disappeared while the set was listed ({error.strerror})"
            ) from None
        files.append((name_source(path, root), status.st_size, status.st_mtime_ns))
    return files


def digest_sources(sources: Iterable[File]) -> str:
    """sha256 over names and sizes: a copy of the set has the same."""
    digest = hashlib.sha256()
    for name, size, _ in sources:
        digest.update(json.dumps([name, size]).encode() + b"\n")
    return digest.hexdigest()


def write(plan: PoolPlan, path: Path) -> None:
    head = {
        "format": FORMAT,
        "ichfast": ichfast.__version__,
        "layout": plan.layout,
        "arguments": plan.arguments,
        "expected": plan.expected,
        "lines": [len(plan.sources), len(plan.units), len(plan.problems)],
    }
    with create_whole(path) as file:
        for line in (
            head,
            *plan.sources,
            *([unit.name, unit.files, unit.labels, unit.slices] for unit in plan.units),
            *([problem.source, problem.reason, problem.skip] for problem in plan.problems),
        ):
            file.write(json.dumps(line).encode() + b"\n")


def read(path: Path) -> PoolPlan:
    def make_error(reason: str) -> OutputError:
        return OutputError(f"{path} {reason}; delete {path.parent} and start again")

    try:
        with path.open("rb") as file:
            head = json.loads(file.readline())
            if head["format"] != FORMAT or head["ichfast"] != ichfast.__version__:
                raise make_error("was made by another version of ichfast")
            lines: Sequence[Any] = [json.loads(line) for line in file]
        sources, units, problems = head["lines"]
        if len(lines) != sources + units + problems:
            raise make_error("is damaged")
        return PoolPlan(
            layout=head["layout"],
            arguments=head["arguments"],
            sources=[(name, size, time) for name, size, time in lines[:sources]],
            units=[
                Unit(name, tuple(files), tuple(labels), slices)
                for name, files, labels, slices in lines[sources : sources + units]
            ],
            problems=[Problem(*line) for line in lines[sources + units :]],
            expected=head["expected"],
        )
    except OSError as error:
        raise make_error(f"cannot be read ({os.strerror(error.errno or 0)})") from None
    except (ValueError, KeyError, TypeError):
        raise make_error("is damaged") from None
