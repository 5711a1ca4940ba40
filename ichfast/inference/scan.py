"""One scan: read, segmented, measured and written."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ichfast.data.layouts.dicom_folder import DicomFolder
from ichfast.data.problems import Problem
from ichfast.data.series import Series
from ichfast.errors import IchfastError
from ichfast.files import DiskFull
from ichfast.inference.inputs import (
    Item,
    Notes,
    Task,
    describe_problems,
    hide_place,
    list_sources,
    read_item,
)
from ichfast.inference.model import Model
from ichfast.inference.result import make_result, make_row, segment
from ichfast.inference.state import DONE, FAILED, LEFT_OUT, Outcome
from ichfast.inference.suitability import Facts, find_doubts, find_warnings, read_facts
from ichfast.inference.write import write_all


@dataclass(frozen=True)
class Options:
    out: Path
    anonymous: bool = False
    force: bool = False


@dataclass(frozen=True, eq=False)
class Scan:
    series: Series
    facts: Facts
    doubts: list[str]
    """why it may be no head"""


@dataclass(frozen=True, eq=False)
class Read:
    """What an item's files have given."""

    scans: tuple[Scan, ...] = ()
    problems: tuple[Problem, ...] = ()
    failure: str = ""
    """why the item cannot be read, or not as a whole"""
    seconds: float = 0.0


def read_ahead(tasks: Sequence[Task]) -> Iterator[tuple[Task, Read]]:
    """The tasks with what their files hold; the next is read and decoded while the caller works on
    one."""
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(read_task, tasks[0]) if tasks else None
        for number, task in enumerate(tasks, 1):
            assert ahead is not None
            read = ahead.result()
            ahead = reader.submit(read_task, tasks[number]) if number < len(tasks) else None
            yield task, read


def read_task(task: Task) -> Read:
    start, notes, failure = time.perf_counter(), Notes(), ""
    scans: list[Scan] = []
    try:
        for series in read_item(task.item, notes):
            facts = Facts()
            if task.item.layout == DicomFolder.name:
                facts = read_facts(task.item.root / list_sources(series)[0])
            scans.append(Scan(series, facts, find_doubts(series, facts)))
    except IchfastError as error:
        failure = str(error)
    except Exception as error:  # of a library, on bytes that nobody foresaw; it may quote them
        failure = f"cannot be read ({type(error).__name__})"
    problems = tuple(problem for problem in notes.items if concerns(problem, task.item))
    return Read(tuple(scans), problems, failure, time.perf_counter() - start)


def concerns(problem: Problem, item: Item) -> bool:
    """Whether it is of the item itself: with each scan that has a name come those of the set, such
    as a table of labels that nobody needs here."""
    return bool(item.unit.files) or item.unit.name in problem.source


def segment_item(task: Task, read: Read, model: Model, options: Options) -> list[Outcome]:
    """The results of every series of the item, each in a folder of its own. Whatever is wrong with
    one is its outcome; only a full disk is an error."""

    def fail(reason: str, name: str, files: tuple[str, ...] = ()) -> Outcome:
        reason = hide_place(reason, task.item) if options.anonymous else reason
        return Outcome(name, FAILED, reason, files)

    if read.failure:
        return [fail(read.failure, task.name)]
    if not read.scans:
        problems = describe_problems(read.problems, 3, anonymous=options.anonymous)
        reasons = "; ".join(problems) or "holds no slice"
        # What cannot be read may be read another time, with a decoder that was missing.
        broken = any(not problem.skip for problem in read.problems)
        return [Outcome(task.name, FAILED if broken else LEFT_OUT, reasons)]
    outcomes = []
    for number, scan in enumerate(read.scans, 1):
        name = task.name if number == 1 else f"{task.name}-{number}"
        files = tuple(list_sources(scan.series))
        if scan.doubts and not options.force:
            reason = f"{'; '.join(scan.doubts)}. If it is a head all the same, use --force."
            outcomes.append(Outcome(name, LEFT_OUT, reason, files))
            continue
        try:
            row = _segment(name, task.item, scan, read, model, options)
        except DiskFull:
            raise
        except IchfastError as error:
            outcomes.append(fail(str(error), name, files))
        except Exception as error:  # of a library, such as want of memory; it may quote the header
            outcomes.append(fail(type(error).__name__, name, files))
        else:
            outcomes.append(Outcome(name, DONE, "", files, row))
    return outcomes


def _segment(
    name: str, item: Item, scan: Scan, read: Read, model: Model, options: Options
) -> dict[str, Any]:
    """Write everything on one series; its row of the summary."""
    start = time.perf_counter()
    found = segment(scan.series, model)
    warnings = [
        *find_warnings(scan.series, scan.facts),
        *(f"perhaps no head: {doubt}" for doubt in scan.doubts),
        *found.measures.gaps,
        *describe_problems(read.problems, anonymous=options.anonymous),
    ]
    result = make_result(name, scan.series, found, model, warnings, anonymous=options.anonymous)
    result["seconds"] = {"read": read.seconds, "network": time.perf_counter() - start}
    folder = options.out / name
    write_all(folder, item, scan.series, found, model, result, anonymous=options.anonymous)
    return make_row(result)
