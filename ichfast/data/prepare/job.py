"""From a set to a pool: plan, parts, assembly. Whatever is cut short goes on at the next call."""

import multiprocessing
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ichfast.data.layouts import detect_layout
from ichfast.data.layouts.base import Layout, Map, Selection
from ichfast.data.pool import MANIFEST, Pool
from ichfast.data.prepare import plan as plans
from ichfast.data.prepare.assemble import assemble
from ichfast.data.prepare.part import PARTS, POOL, Part, Task, make_part
from ichfast.data.prepare.plan import Plan
from ichfast.data.problems import Problem, Problems
from ichfast.errors import DataError, OutputError
from ichfast.files import PARTIAL, DiskFull, find_partials, flush_path, lock, report_errors
from ichfast.processes import available_cores, end_with_parent, ignore_interrupt

PLAN, LOCK = "plan.jsonl", ".lock"
WORK = ".partial"  # behind the pool's name: the folder in which it is made
MAX_SIZE = 4096  # beyond any CT
FLUSH = 32  # parts after which the disk is given what it has not yet
POLL = 0.5  # seconds between two looks at what other machines have done


@dataclass(frozen=True)
class Job:
    root: Path
    out: Path
    size: int
    positive: bool
    limit: int | None
    seed: int
    rank: int
    world: int
    timeout: float
    progress: bool

    @property
    def work(self) -> Path:
        return self.out.with_name(self.out.name + WORK)

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "size": self.size,
            "positive_only": self.positive,
            "limit": self.limit,
            "seed": self.seed,
        }


def prepare_pool(
    root: Path,
    out: Path,
    *,
    size: int = 256,
    positive: bool = False,
    limit: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    rank: int = 0,
    world: int = 1,
    timeout: float = 1800,
    progress: bool = True,
) -> Pool | None:
    """Make the folder `out` a `Pool` of the set at `root`; None to ranks other than 0.

    What is done lies in `out`.partial until all of it is, and a later call with the same arguments
    goes on from there to the same bytes. `positive` keeps slices whose mask at this size is not
    empty or, in a set without masks, whose label is positive; `limit` keeps a seeded uniform choice
    of so many. `rank` of `world` processes on one shared folder each make their share of the parts;
    rank 0 plans before and assembles after, and waits `timeout` seconds for a sign of the others.
    """
    for name, value in (("size", size), ("limit", limit), ("workers", workers), ("world", world)):
        if value is not None and value < 1:
            raise DataError(f"{name} is {value}; it must be at least 1")
    if size > MAX_SIZE:
        raise DataError(f"size is {size}; it must be at most {MAX_SIZE}")
    if not 0 <= rank < world:
        raise DataError(f"rank is {rank}; of {world} processes it must be from 0 to {world - 1}")
    # Not resolved further: where a set's folder is a link, its files are named through it.
    root, out = Path(root).absolute(), Path(out).absolute()
    if out.resolve().is_relative_to(root.resolve()):
        raise OutputError(f"{out} lies inside the set {root}; take an --out outside of it")
    job = Job(root, out, size, positive, limit, seed, rank, world, timeout, progress)
    if workers is None:
        workers = available_cores()
    try:
        return _lead(job, workers) if rank == 0 else _follow(job, workers)
    except BrokenProcessPool as error:
        raise OutputError(
            "a worker process was killed, perhaps for want of memory; what is done is kept: run "
            "the same command again, with fewer --workers"
        ) from error


def _lead(job: Job, workers: int) -> Pool | None:
    layout = detect_layout(job.root)
    sources = plans.list_sources(job.root)
    if (job.out / MANIFEST).exists():
        return _finished(job, layout.name, plans.source_digest(sources))
    if job.out.exists() and not (job.out.is_dir() and not any(job.out.iterdir())):
        raise OutputError(f"{job.out} is in the way and no pool; take another --out")
    if os.path.ismount(job.out):
        raise OutputError(f"{job.out} is a mount point; take a folder in it as --out")
    if foreign := _foreign(job.work):
        raise OutputError(f"{job.work} holds other things ({foreign}); take another --out")
    with report_errors(job.work):
        for folder in (PARTS, POOL):
            (job.work / folder).mkdir(parents=True, exist_ok=True)
    with lock(job.work / f"{LOCK}-0"), _workers(workers) as run:
        if (job.work / PLAN).exists():
            plan = plans.read(job.work / PLAN)
            plan.check(layout.name, job.arguments, job.work)
            plan.check_sources(sources, job.root, job.work)
        else:
            plan = _plan(job, layout, sources, run)
            plans.write(plan, job.work / PLAN)
        del sources
        _make_parts(job, plan, run)
        parts = _parts(job, plan)
        _wait_for(job, parts, run)
        problems = _merged(plan, (part.read()[1] for part in parts))
        plan.check_sources(plans.list_sources(job.root), job.root, job.work)
        with _told_how_much(job, plan):
            try:
                pool = assemble(plan, parts, job.work, problems.items, run)
            except DataError as error:
                raise DataError(f"{job.root}: {error}: {problems.summary()}") from None
        with report_errors(job.out):
            os.rename(pool, job.out)  # takes the place of an empty folder, too
            flush_path(job.out.parent)
    shutil.rmtree(job.work, ignore_errors=True)
    return Pool(job.out)


def _follow(job: Job, workers: int) -> Pool | None:
    """Another rank's share: it reads the plan of rank 0 and makes its parts."""
    began = time.monotonic()
    while not (job.work / PLAN).exists():
        if (job.out / MANIFEST).exists():
            return None
        if time.monotonic() - began > job.timeout:
            raise OutputError(
                f"{job.work / PLAN} has not come for {job.timeout:g} s; does rank 0 run, and is "
                f"{job.out.parent} the same folder on all machines?"
            )
        time.sleep(POLL)
    plan = plans.read(job.work / PLAN)
    plan.check(plan.layout, job.arguments, job.work)
    with lock(job.work / f"{LOCK}-{job.rank}"), _workers(workers) as run:
        _make_parts(job, plan, run)
    return None


def _finished(job: Job, layout: str, source: str) -> Pool:
    """The pool that is there already, if it is the one that is asked for."""
    pool = Pool(job.out)
    plans.compare(job.out, pool.arguments, {"layout": layout, **job.arguments})
    if pool.source != source:
        raise OutputError(
            f"{job.out} was made of other files than {job.root} holds now; take another --out, or "
            "delete it"
        )
    if not _foreign(job.work):  # stopped between the last two steps
        shutil.rmtree(job.work, ignore_errors=True)
    return pool


def _foreign(work: Path) -> str:
    """Something in the folder that is not of a pool's making."""
    names = sorted(os.listdir(work)) if work.is_dir() else []
    ours = (PARTS, POOL, PLAN, LOCK, PARTIAL)
    return next((name for name in names if not name.startswith(ours)), "")


def _plan(job: Job, layout: Layout, sources: list[plans.File], run: Map) -> Plan:
    problems = Problems()

    def shown(function: Callable[[Any], Any], chunks: Sequence[Any]) -> Iterator[Any]:
        return _shown(job, run(function, chunks), "headers", len(chunks), "chunk")

    if job.positive:
        layout.require_positive(job.root)
    selection = Selection(job.positive, job.limit, job.seed)
    units = layout.list_units(job.root, problems, shown, selection)
    return Plan(layout.name, job.arguments, sources, units, problems.items, problems.expected)


def _parts(job: Job, plan: Plan) -> list[Part]:
    return [Part(job.work, i, job.size, first) for i, first in enumerate(plan.places())]


def _make_parts(job: Job, plan: Plan, run: Map) -> None:
    """This rank's share: every `world`-th part, so far as it is not there yet."""
    for partial, name in find_partials(job.work / PARTS):
        if int(name[:6]) % job.world == job.rank:
            partial.unlink(missing_ok=True)
    mine = [part for part in _parts(job, plan) if part.number % job.world == job.rank]
    begun = [part for part in mine if part.rows.exists()]
    good = _shown(job, run(Part.done, begun), "done before", len(begun), "part")
    done = {part for part, whole in zip(begun, good, strict=True) if whole}
    units = plan.parts()
    tasks = [
        Task(job.root, plan.layout, part, tuple(units[part.number]), job.positive, plan.expected)
        for part in mine
        if part not in done
    ]
    with _told_how_much(job, plan):
        made = _shown(job, run(make_part, tasks), "parts", len(tasks), "part")
        _merged(plan, _flushed(tasks, made))


def _flushed(tasks: Sequence[Task], made: Iterator[Any]) -> Iterator[Any]:
    """While the workers go on, the disk is kept busy, and a power cut does not cost much."""
    for n, (task, problems) in enumerate(zip(tasks, made, strict=True), 1):
        if task.part.first is not None and n % FLUSH == 0:
            with report_errors(task.part.path):
                flush_path(task.part.path)
        yield problems


def _merged(plan: Plan, lists: Any) -> Problems:
    """Plan's problems and those of parts, each once: the set as a whole is every part's. DataError
    when too many files are bad.
    """
    merged = Problems()
    merged.expect(plan.expected)
    seen: dict[Problem, None] = {}
    for problem in (problem for items in (plan.problems, *lists) for problem in items):
        if problem not in seen:
            seen[problem] = None
            (merged.skip if problem.skip else merged.add)(problem.source, problem.reason)
    return merged


def _wait_for(job: Job, parts: Sequence[Part], run: Map) -> None:
    """Until the other ranks have made theirs, which are looked at as well."""
    missing = {part.rows.name for part in parts}
    sign = time.monotonic()
    while True:
        before = len(missing)
        missing -= set(os.listdir(job.work / PARTS))
        if not missing:
            break
        if len(missing) < before:
            sign = time.monotonic()
        if time.monotonic() - sign > job.timeout:
            ranks = sorted({int(name[:6]) % job.world for name in missing})
            raise OutputError(
                f"{job.work}: {len(missing)} of {len(parts)} parts are missing, and none has come "
                f"for {job.timeout:g} s; do the processes with RANK {', '.join(map(str, ranks))} "
                f"run? What is done is kept: run the same command again"
            )
        time.sleep(POLL)
    others = [part for part in parts if part.number % job.world != job.rank]
    for part, good in zip(others, run(Part.done, others), strict=True):
        if not good:
            raise OutputError(f"{part.rows} is not whole: run the same command again")


@contextmanager
def _told_how_much(job: Job, plan: Plan) -> Iterator[None]:
    """Where the disk fills: how much room the whole work takes, and that nothing is lost."""
    try:
        yield
    except DiskFull as error:
        parts = _parts(job, plan)
        done = [part.bytes() for part in parts if part.rows.exists()]
        free = shutil.disk_usage(job.work).free
        need = ""
        if done:
            # Of what has no place in the pool beforehand, a copy beside it.
            copies = 2 if parts[0].first is None else 1
            missing = copies * sum(done) / len(done) * len(parts) - sum(done)
            need = f" About {missing / 2**20:,.0f} MiB are needed there and"
        raise OutputError(
            f"{error}.{need} {free / 2**20:,.0f} MiB are free. Make room and run the same command "
            f"again: what is done is kept in {job.work}"
        ) from error


def _shown(job: Job, results: Any, name: str, total: int, unit: str) -> Iterator[Any]:
    hidden = None if job.progress else True  # None: shown on a terminal only
    bar: Iterator[Any] = iter(tqdm(results, name, total=total, unit=unit, disable=hidden))
    return bar


@contextmanager
def _workers(count: int) -> Iterator[Map]:
    """A `map` over so many processes; one is this process itself."""
    if count == 1:
        yield map
        return
    # Not forked from this process, since that may deadlock where torch has run; but, on Linux, from
    # one that has just loaded all modules, and once for all workers.
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload([__name__, "ichfast.data.stacks"])
        forkserver.ensure_running()  # loads while this process lists the files
    pool = ProcessPoolExecutor(count, context, initializer=_start_worker)
    loaded = pool.submit(os.getpid)
    try:
        yield lambda function, items: _map(pool, loaded, function, items)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _map(
    pool: ProcessPoolExecutor, loaded: Future[Any], function: Callable[[Any], Any], items: Any
) -> Iterator[Any]:
    """As `map`. This process works while the others load their modules, which takes seconds."""
    left = deque(items)
    while left and not loaded.done():
        yield function(left.popleft())
    yield from pool.map(function, left)


def _start_worker() -> None:
    ignore_interrupt()
    torch.set_num_threads(1)
    end_with_parent()
