"""Look at all files under the given folders, on all cores, and tally what is found."""

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from ichfast.data.audit.lists import read_list
from ichfast.data.audit.look import hash_scan, look
from ichfast.data.audit.results import summarise
from ichfast.data.audit.tally import Tally
from ichfast.data.layouts import find_scan_layout
from ichfast.data.layouts.base import ScanLayout, Unit
from ichfast.data.listing import list_folder, name_slice, walk_files
from ichfast.data.problems import Problems, Refused
from ichfast.errors import DataError
from ichfast.processes import available_cores, start_worker


class Item(NamedTuple):
    """A file by its name below the set's root; or a scan by its own, in a layout that has such."""

    set: int
    name: str
    files: int = 0  # of a scan

    @property
    def cost(self) -> int:
        return SCAN if self.files else 1


SCAN = 32  # files with pixels, of which reading takes about as long as of a scan
# Big enough that a process hardly waits, small enough that progress shows.
CHUNK = {False: 256, True: 32}
# A process takes seconds to start, which pays from so many files on.
WORTH = {False: 50_000, True: 1024}


@dataclass(frozen=True)
class Options:
    pixels: bool = False
    identify: bool = False
    workers: int | None = None
    lists: tuple[Path, ...] = ()
    salt: bytes = b""
    leave: Path | None = None  # a folder to leave out: the audit's own output
    progress: bool = True


def audit(roots: Sequence[Path], options: Options) -> dict[str, Any]:
    """What `audit.json` holds (docs/how-to/audit.md). It does not depend on the number of
    processes.
    """
    _check_roots(roots, options)
    lists = {path.name: read_list(path) for path in options.lists}
    if len(lists) < len(options.lists):
        raise DataError("two of the files given with --exclude-list have the same name; rename one")
    tally = Tally()
    wanted = frozenset().union(*lists.values())
    survey = Survey(tuple(map(str, roots)), tuple(map(find_scan_layout, roots)), wanted, options)
    counts, cost = survey.count(tally)
    for count, root in zip(counts, roots, strict=True):
        if not count:
            raise DataError(f"{root}: holds no files; give a folder with CT files in it")
    everything = sum(counts)
    with tqdm(
        desc="audit", total=everything, unit="file", disable=None if options.progress else True
    ) as bar:
        try:
            for part_tally in _tally_all(survey, cost):
                tally.merge(part_tally)
                bar.update(sum(part_tally.files.values()))
        except BrokenProcessPool:
            raise DataError(
                "a process that read files was killed, perhaps because memory ran out; run the "
                "audit again with fewer --workers"
            ) from None
    tally.settle()
    return summarise(
        tally, _name_sets(roots), lists, options.pixels, options.identify, options.salt
    )


def _check_roots(roots: Sequence[Path], options: Options) -> None:
    if options.workers is not None and options.workers < 1:
        raise DataError(f"--workers {options.workers} must be at least 1")
    real = []
    for root in roots:
        list_folder(root)  # its error says what is wrong
        real.append(root.resolve())
    for i, one in enumerate(real):
        for k, other in enumerate(real):
            if i != k and one.is_relative_to(other):
                raise DataError(
                    f"{roots[i]} lies in {roots[k]}, so they would share every patient; give "
                    f"folders of which none contains another"
                )


def _name_sets(roots: Sequence[Path]) -> list[str]:
    """Short names of the sets, or their paths where short names are the same."""
    short = [root.resolve().name for root in roots]
    return short if len(set(short)) == len(short) else [str(root) for root in roots]


@dataclass(frozen=True)
class Survey:
    """What every process needs to know."""

    roots: tuple[str, ...]
    layouts: tuple[ScanLayout | None, ...]  # of those whose scans have names
    wanted: frozenset[str]
    options: Options

    def count(self, tally: Tally) -> tuple[list[int], int]:
        """The number of files per set, and what all cost; folders that cannot be listed go into the
        tally.
        """
        files, cost = [0] * len(self.roots), 0
        for item in self.walk(tally.add_unreachable):
            files[item.set] += item.files or 1
            cost += item.cost
        return files, cost

    def walk(self, report: Any = None) -> Iterator[Item]:
        """Every scan of a layout that has names for them, and every file that is not hidden; but
        those in the formats of that layout. In the same order on every machine.
        """
        for part, (root, layout) in enumerate(zip(self.roots, self.layouts, strict=True)):
            if layout is not None:
                for name, files in layout.list_scans(Path(root)).items():
                    yield Item(part, name, max(files, 1))
            for name in self._walk_files(part, root, report):
                if layout is None or layout.find_format(name) is None:
                    yield Item(part, name)

    def _walk_files(self, part: int, root: str, report: Any) -> Iterator[str]:
        leave = self.options.leave
        left = None if leave is None else str(leave.resolve())

        def report_failure(error: OSError) -> None:
            if report:
                report(part, os.path.relpath(error.filename, root), "folder cannot be listed")

        def report_link(path: str, reason: str, lost: bool) -> None:
            if report and lost:
                report(part, os.path.relpath(path, root), reason)

        prefix, folder, keep = len(os.path.join(root, "")), "", True
        for path in walk_files(root, report_failure, report_link):
            if left is not None and (own := os.path.dirname(path)) != folder:
                folder = own
                keep = not Path(os.path.realpath(own)).is_relative_to(left)
            if keep:
                yield path[prefix:].replace(os.sep, "/")


def _tally_all(survey: Survey, cost: int) -> Iterator[Tally]:
    pixels = survey.options.pixels
    chunks = _cut(survey.walk(), CHUNK[pixels])
    workers = survey.options.workers or min(available_cores(), 1 + cost // WORTH[pixels])
    _begin(survey)
    if workers == 1:
        yield from map(_tally, chunks)
        return
    # Spawned, since forking a process that has loaded torch may deadlock.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(survey, True)) as pool:
        try:
            yield from _map_in_order(pool, chunks, 4 * workers)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _cut(items: Iterable[Item], most: int) -> Iterator[list[Item]]:
    """Lists of items that cost about so much each."""
    chunk: list[Item] = []
    cost = 0
    for item in items:
        chunk.append(item)
        cost += item.cost
        if cost >= most:
            yield chunk
            chunk, cost = [], 0
    if chunk:
        yield chunk


def _map_in_order(
    pool: ProcessPoolExecutor, chunks: Iterable[list[Item]], ahead: int
) -> Iterator[Tally]:
    """Like `pool.map`, but that would list all files before the first is read."""
    waiting: deque[Future[Tally]] = deque()
    for chunk in chunks:
        waiting.append(pool.submit(_tally, chunk))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


_survey: Survey


def _begin(survey: Survey, child: bool = False) -> None:
    """Keep what a process needs for all of its items."""
    global _survey
    _survey = survey
    if child:
        start_worker()


def _tally(items: list[Item]) -> Tally:
    tally = Tally()
    for item in items:
        tally.files[item.set] += item.files or 1
        (_tally_scan if item.files else _tally_file)(item, tally)
    return tally


def _tally_file(item: Item, tally: Tally) -> None:
    part, name, _ = item
    try:
        seen = look(Path(_survey.roots[part], name), pixels=_survey.options.pixels)
    except Refused as refused:
        tally.add_refused(part, name, refused)
        return
    for number, one in seen:
        source = name_slice(name, number)
        if isinstance(one, Refused):
            tally.add_refused(part, source, one)
        else:
            tally.add(part, source, one, _survey.wanted)


class _Notes(Problems):
    MAX_FILES = sys.maxsize  # nothing stops an audit


def _tally_scan(item: Item, tally: Tally) -> None:
    part, name, _ = item
    layout, root, problems = _survey.layouts[part], _survey.roots[part], _Notes()
    assert layout is not None
    try:
        for scan in layout.read_unit(Path(root), Unit(name), problems):
            tally.add_scan(part, scan, hash_scan(scan) if _survey.options.pixels else ())
    except DataError as error:  # of the set as a whole
        problems.add(name, str(error).removeprefix(root).lstrip("/\\"))
    for problem in problems.items:
        tally.add_problem(part, name, problem)
