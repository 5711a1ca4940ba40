"""Look at all files under the given folders, on all cores, and tally what is found."""

import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ichfast.data.audit.lists import read_list
from ichfast.data.audit.look import look
from ichfast.data.audit.results import summarise
from ichfast.data.audit.tally import Tally
from ichfast.data.listing import list_folder, name_slice, walk_files
from ichfast.data.problems import Refused
from ichfast.errors import DataError
from ichfast.processes import available_cores, start_worker

File = tuple[int, str]  # set, name below its root
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
    counts = _count_files(roots, options.leave, tally)
    for count, root in zip(counts, roots, strict=True):
        if not count:
            raise DataError(f"{root}: holds no files; give a folder with CT files in it")
    everything = sum(counts)
    with tqdm(
        desc="audit", total=everything, unit="file", disable=None if options.progress else True
    ) as bar:
        try:
            for part_tally in _tally_files(list(map(str, roots)), wanted, everything, options):
                tally.merge(part_tally)
                bar.update(sum(part_tally.files.values()))
        except BrokenProcessPool:
            raise DataError(
                "a process that read files was killed, perhaps because memory ran out; run the "
                "audit again with fewer --workers"
            ) from None
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


def _count_files(roots: Sequence[Path], leave: Path | None, tally: Tally) -> list[int]:
    """The number of files per set; folders that cannot be listed go into the tally."""
    files = [0] * len(roots)
    for part, _ in _walk([str(root) for root in roots], leave, tally.add_unreachable):
        files[part] += 1
    return files


def _walk(roots: Sequence[str], leave: Path | None, report: Any = None) -> Iterator[File]:
    """Every regular file that is not hidden, in the same order on every machine."""
    left = None if leave is None else str(leave.resolve())
    for part, root in enumerate(roots):

        def report_failure(error: OSError, part: int = part, root: str = root) -> None:
            if report:
                report(part, os.path.relpath(error.filename, root), "folder cannot be listed")

        def report_link(
            path: str, reason: str, lost: bool, part: int = part, root: str = root
        ) -> None:
            if report and lost:
                report(part, os.path.relpath(path, root), reason)

        prefix, folder, keep = len(os.path.join(root, "")), "", True
        for path in walk_files(root, report_failure, report_link):
            if left is not None and (own := os.path.dirname(path)) != folder:
                folder = own
                keep = not Path(os.path.realpath(own)).is_relative_to(left)
            if keep:
                yield part, path[prefix:].replace(os.sep, "/")


def _tally_files(
    roots: list[str], wanted: frozenset[str], total: int, options: Options
) -> Iterator[Tally]:
    files = _walk(roots, options.leave)
    chunks = iter(lambda: list(islice(files, CHUNK[options.pixels])), [])
    workers = options.workers or min(available_cores(), 1 + total // WORTH[options.pixels])
    _begin(roots, wanted, options.pixels)
    if workers == 1:
        yield from map(_tally, chunks)
        return
    # Spawned, since forking a process that has loaded torch may deadlock.
    context = multiprocessing.get_context("spawn")
    arguments = (roots, wanted, options.pixels, True)
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=arguments) as pool:
        try:
            yield from _map_in_order(pool, chunks, 4 * workers)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _map_in_order(
    pool: ProcessPoolExecutor, chunks: Iterable[list[File]], ahead: int
) -> Iterator[Tally]:
    """Like `pool.map`, but that would list all files before the first is read."""
    waiting: deque[Future[Tally]] = deque()
    for chunk in chunks:
        waiting.append(pool.submit(_tally, chunk))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


_job: tuple[list[str], frozenset[str], bool]


def _begin(roots: list[str], wanted: frozenset[str], pixels: bool, child: bool = False) -> None:
    """Keep what a process needs for all of its files."""
    global _job
    _job = roots, wanted, pixels
    if child:
        start_worker()


def _tally(files: list[File]) -> Tally:
    roots, wanted, pixels = _job
    tally = Tally()
    for part, name in files:
        tally.files[part] += 1
        try:
            seen = look(Path(roots[part], name), pixels=pixels)
        except Refused as refused:
            tally.add_refused(part, name, refused)
            continue
        for number, one in seen:
            source = name_slice(name, number)
            if isinstance(one, Refused):
                tally.add_refused(part, source, one)
            else:
                tally.add(part, source, one, wanted)
    return tally
