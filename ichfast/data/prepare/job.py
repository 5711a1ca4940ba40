"""From a set to a pool: plan, parts, assembly. A later call continues what was cut short."""

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
from ichfast.data.prepare.plan import PoolPlan
from ichfast.data.problems import Problem, Problems
from ichfast.errors import DataError, OutputError
from ichfast.files import PARTIAL, DiskFull, find_partials, flush_path, lock, report_errors
from ichfast.processes import available_cores, start_worker

PLAN, LOCK = "plan.jsonl", ".lock"
WORK = ".partial"  # after the pool's name: the folder in which it is made
MAX_SIZE = 4096  # beyond any CT
FLUSH = 32  # parts after which what is written goes to the disk
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
    """Make the folder `out` a `Pool` of the set at `root`. Returns None on ranks other than 0.

    Finished work lies in `out`.partial until all of it is done, and a later call with the same
    arguments continues from there to the same bytes. `positive` keeps slices whose mask at this
    size is not empty or, in a set without masks, whose label is positive; `limit` keeps a seeded
    uniform choice of that many. `world` processes on one shared folder, each with its `rank`, make
    their shares of the parts; rank 0 plans before and assembles after, and gives up when it has not
    seen a new part from the others for `timeout` seconds.
    """
    for name, value in (("size", size), ("limit", limit), ("workers", workers), ("world", world)):
        if value is not None and value < 1:
            raise DataError(f"{name} is {value}; it must be at least 1")
    if size > MAX_SIZE:
        raise DataError(f"size is {size}; it must be at most {MAX_SIZE}")
    if not 0 <= rank < world:
        raise DataError(f"rank is {rank}; with {world} processes it must be from 0 to {world - 1}")
    # Not resolved further: where a set's folder is a link, its files are named through it.
    root, out = Path(root).absolute(), Path(out).absolute()
    if out.resolve().is_relative_to(root.resolve()):
        raise OutputError(f"{out} lies inside the set {root}; choose an --out outside it")
    job = Job(root, out, size, positive, limit, seed, rank, world, timeout, progress)
    if workers is None:
        workers = available_cores()
    try:
        return _lead(job, workers) if rank == 0 else _follow(job, workers)
    except (BrokenProcessPool, EOFError, ConnectionError) as error:  # the latter: the fork server's
        raise OutputError(
            "a worker process was killed, perhaps because memory ran out; finished work is kept: "
            "run the same command again, with fewer --workers"
        ) from error


def _lead(job: Job, workers: int) -> Pool | None:
    layout = detect_layout(job.root)
    sources = plans.list_sources(job.root)
    if (job.out / MANIFEST).exists():
        return _open_finished(job, layout.name, plans.digest_sources(sources))
    if job.out.exists() and not (job.out.is_dir() and not any(job.out.iterdir())):
        raise OutputError(f"{job.out} exists and is not a pool; choose another --out")
    if os.path.ismount(job.out):
        raise OutputError(f"{job.out} is a mount point; choose a folder in it as --out")
    if foreign := _find_foreign(job.work):
        raise OutputError(f"{job.work} holds other files ({foreign}); choose another --out")
    with report_errors(job.work):
        for folder in (PARTS, POOL):
            (job.work / folder).mkdir(parents=True, exist_ok=True)
    with lock(job.work / f"{LOCK}-0"), _start_workers(workers) as run:
        if (job.work / PLAN).exists():
            plan = plans.read(job.work / PLAN)
            plan.check(layout.name, job.arguments, job.work)
            plan.check_sources(sources, job.root, job.work)
        else:
            plan = _make_plan(job, layout, sources, run)
            plans.write(plan, job.work / PLAN)
        del sources
        _make_parts(job, plan, run)
        parts = _list_parts(job, plan)
        _wait_for(job, parts, run)
        problems = _merge(plan, (part.read()[1] for part in parts))
        plan.check_sources(plans.list_sources(job.root), job.root, job.work)
        with _explain_full_disk(job, plan):
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
                f"{job.work / PLAN} has not appeared for {job.timeout:g} s; is rank 0 running, and "
                f"is {job.out.parent} the same folder on all machines?"
            )
        time.sleep(POLL)
    plan = plans.read(job.work / PLAN)
    plan.check(plan.layout, job.arguments, job.work)
    with lock(job.work / f"{LOCK}-{job.rank}"), _start_workers(workers) as run:
        _make_parts(job, plan, run)
    return None


def _open_finished(job: Job, layout: str, source: str) -> Pool:
    """The pool that is there already, if it is the one that is asked for."""
    pool = Pool(job.out)
    plans.compare(job.out, pool.arguments, {"layout": layout, **job.arguments})
    if pool.source != source:
        raise OutputError(
            f"{job.out} was made from other files than {job.root} holds now; choose another "
            f"--out, or delete it"
        )
    if not _find_foreign(job.work):  # stopped between the last two steps
        shutil.rmtree(job.work, ignore_errors=True)
    return pool


def _find_foreign(work: Path) -> str:
    """A name in the folder that no work on a pool has left there."""
    names = sorted(os.listdir(work)) if work.is_dir() else []
    ours = (PARTS, POOL, PLAN, LOCK, PARTIAL)
    return next((name for name in names if not name.startswith(ours)), "")


def _make_plan(job: Job, layout: Layout, sources: list[plans.File], run: Map) -> PoolPlan:
    problems = Problems()

    def run_shown(function: Callable[[Any], Any], chunks: Sequence[Any]) -> Iterator[Any]:
        return _show_progress(job, run(function, chunks), "headers", len(chunks), "chunk")

    if job.positive:
        layout.require_positive(job.root, with_masks=True)
    selection = Selection(job.positive, job.limit, job.seed)
    units = layout.list_units(job.root, problems, run_shown, selection)
    return PoolPlan(layout.name, job.arguments, sources, units, problems.items, problems.expected)


def _list_parts(job: Job, plan: PoolPlan) -> list[Part]:
    return [Part(job.work, i, job.size, first) for i, first in enumerate(plan.places())]


def _make_parts(job: Job, plan: PoolPlan, run: Map) -> None:
    """This rank's share, every `world`-th part, unless it is there already."""
    for partial, name in find_partials(job.work / PARTS):
        if int(name[:6]) % job.world == job.rank:
            partial.unlink(missing_ok=True)
    mine = [part for part in _list_parts(job, plan) if part.number % job.world == job.rank]
    begun = [part for part in mine if part.rows.exists()]
    good = _show_progress(job, run(Part.is_done, begun), "done before", len(begun), "part")
    done = {part for part, whole in zip(begun, good, strict=True) if whole}
    units = plan.parts()
    tasks = [
        Task(job.root, plan.layout, part, tuple(units[part.number]), job.positive, plan.expected)
        for part in mine
        if part not in done
    ]
    with _explain_full_disk(job, plan):
        made = _show_progress(job, run(make_part, tasks), "parts", len(tasks), "part")
        _merge(plan, _flush_regularly(tasks, made))


def _flush_regularly(tasks: Sequence[Task], made: Iterator[Any]) -> Iterator[Any]:
    """Pass the results on. The disk writes while workers compute, and a power cut costs little."""
    for n, (task, problems) in enumerate(zip(tasks, made, strict=True), 1):
        if task.part.first is not None and n % FLUSH == 0:
            with report_errors(task.part.path):
                flush_path(task.part.path)
        yield problems


def _merge(plan: PoolPlan, lists: Any) -> Problems:
    """The problems of the plan and of the parts, each once: those of the set as a whole are in
    every part. DataError when too many files are bad.
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
    """Return once the other ranks have made their parts and these are found to be whole."""
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
                f"{job.work}: {len(missing)} of {len(parts)} parts are missing, and none has "
                f"appeared for {job.timeout:g} s; are the processes with RANK "
                f"{', '.join(map(str, ranks))} running? Finished work is kept: run the same "
                f"command again"
            )
        time.sleep(POLL)
    others = [part for part in parts if part.number % job.world != job.rank]
    for part, good in zip(others, run(Part.is_done, others), strict=True):
        if not good:
            raise OutputError(f"{part.rows} is damaged: run the same command again")


@contextmanager
def _explain_full_disk(job: Job, plan: PoolPlan) -> Iterator[None]:
    """Where the disk is full: say how much room the whole work takes, and that nothing is lost."""
    try:
        yield
    except DiskFull as error:
        parts = _list_parts(job, plan)
        done = [part.count_bytes() for part in parts if part.rows.exists()]
        free = shutil.disk_usage(job.work).free
        need = ""
        if done:
            # Parts without a place in the pool's own file are copied into it.
            copies = 2 if parts[0].first is None else 1
            missing = copies * sum(done) / len(done) * len(parts) - sum(done)
            need = f" About {missing / 2**20:,.0f} MiB are needed there and"
        raise OutputError(
            f"{error}.{need} {free / 2**20:,.0f} MiB are free. Make room and run the same command "
            f"again: finished work is kept in {job.work}"
        ) from error


def _show_progress(job: Job, results: Any, name: str, total: int, unit: str) -> Iterator[Any]:
    hidden = None if job.progress else True  # None: shown on a terminal only
    bar: Iterator[Any] = iter(tqdm(results, name, total=total, unit=unit, disable=hidden))
    return bar


@contextmanager
def _start_workers(count: int) -> Iterator[Map]:
    """A `map` over `count` processes; with one, it is this process itself."""
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
    start_worker()
    torch.set_num_threads(1)
