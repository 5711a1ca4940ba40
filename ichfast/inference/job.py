"""Every scan under the inputs, one after the other or side by side, alone or in shares; a later
call goes on where an earlier one was stopped."""

import multiprocessing
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from ichfast.data.problems import Problem
from ichfast.errors import DataError, IchfastError, OutputError
from ichfast.files import lock, report_errors
from ichfast.inference.inputs import Item, Notes, Task, list_items
from ichfast.inference.model import Model, load_model
from ichfast.inference.scan import Options, read_ahead, read_task, segment_item
from ichfast.inference.state import POLL, Outcome, Settings, State, digest_model
from ichfast.inference.summary import write_summary
from ichfast.processes import available_cores, start_worker

LOCK = ".lock"


@dataclass(frozen=True)
class Job:
    inputs: tuple[Path, ...]
    out: Path
    models: tuple[Path, ...] = ()
    """the weights that ship, where there are none; several are an ensemble"""
    device: str = "cpu"
    jobs: int = 1
    anonymous: bool = False
    force: bool = False
    rank: int = 0
    world: int = 1
    timeout: float = 1800
    progress: bool = True


@dataclass
class Found:
    """What the inputs hold, and what of them is nothing to segment."""

    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """inputs of which nothing can be read, each with its reason"""


def predict(job: Job, say: Callable[[str], None] = print) -> list[Outcome]:
    """Segment everything under ``job.inputs`` into ``job.out``; what became of each series, and of
    each file that is none. Of several processes, the first returns everybody's outcomes, the
    others none.

    Raises OutputError where the folder is in use, full, or somebody else's; DataError where none
    of the inputs holds a scan; CheckpointError where the model cannot be loaded.
    """
    _check(job)
    model = load_model(job.models or None, job.device)
    found = find_items(job)
    for text in found.failures if job.rank == 0 else ():
        say(f"input: failed: {text}")
    with report_errors(job.out):
        job.out.mkdir(parents=True, exist_ok=True)
    settings = Settings(model.name, digest_model(model), anonymous=job.anonymous, force=job.force)
    with lock(job.out / f"{LOCK}-{job.rank}"):
        state = State(job.out)
        if job.rank == 0:
            state.claim(settings, secrets.token_bytes(16) if job.anonymous else b"")
        else:
            state.wait_for_claim(settings, job.timeout)
        names = {item.make_name(state.salt): item for item in found.items}
        if job.rank == 0:
            state.begin(names)
        try:
            _do_share(job, model, state, list(names.items())[job.rank :: job.world], say)
            if job.rank:
                return []
            _wait_for_others(job, state, set(names))
        finally:
            done = [outcome for name in names for outcome in state.read(name)]
            if job.rank == 0:  # of what there is, however this ends
                state.end()
                failures = found.failures
                if failures and job.anonymous:
                    failures = [f"inputs that cannot be read: {len(failures)}"]
                write_summary(job.out, done, found.problems, failures, settings)
    return done + [Outcome.fail(text) for text in found.failures]


def _do_share(
    job: Job,
    model: Model,
    state: State,
    share: Sequence[tuple[str, Item]],
    say: Callable[[str], None],
) -> None:
    """Segment what of this share is not done yet."""
    todo = [Task(name, item) for name, item in share if not state.is_done(name, item)]
    if len(todo) < len(share):
        say(f"{len(share) - len(todo)} of {len(share)} scans are there already")
    hidden = None if job.progress and job.rank == 0 else True  # None: shown on a terminal only
    results = _run(job, model, state, todo)
    for outcomes in tqdm(results, "scans", total=len(todo), unit="scan", disable=hidden):
        for outcome in outcomes:
            say(str(outcome))


def _check(job: Job) -> None:
    if job.jobs < 1:
        raise DataError(f"--jobs {job.jobs} must be at least 1.")
    if not 0 <= job.rank < job.world:
        raise DataError(f"RANK is {job.rank}; with {job.world} processes, 0 to {job.world - 1}.")
    for path in job.inputs:
        if job.out.resolve().is_relative_to(path.resolve()) and path.is_dir():
            raise OutputError(
                f"{job.out} lies inside {path}, where it would be taken for a scan next time; "
                "choose an --out outside it."
            )


def find_items(job: Job) -> Found:
    """Under every input. DataError where there is no scan under any."""
    found = Found()
    for path in job.inputs:
        notes = Notes()
        try:
            found.items += list_items(path, notes)
        except IchfastError as error:
            found.failures.append(str(error))
        found.problems += notes.items
    if not found.items:
        raise DataError("nothing to segment. " + " ".join(found.failures))
    return found


def _run(job: Job, model: Model, state: State, todo: list[Task]) -> Iterator[list[Outcome]]:
    """The outcomes of each task, as they are ready; their state is kept."""
    options = Options(job.out, job.anonymous, job.force)
    if job.jobs == 1:
        for task, read in read_ahead(todo):
            yield state.keep(task, segment_item(task, read, model, options))
        return
    left = {task.name: task for task in todo}
    running: dict[Future[list[Outcome]], Task] = {}
    try:
        with _start_workers(job, job.jobs) as pool:
            for task in todo:  # no more at a time than there are workers: Ctrl-C waits for these
                if len(running) == job.jobs:
                    yield from _collect(state, running, left)
                running[pool.submit(_work, task, options)] = task
            while running:
                yield from _collect(state, running, left)
    except BrokenProcessPool:  # one took too much, nobody knows which: each for itself
        for task in list(left.values()):
            yield state.keep(task, _run_alone(job, task, options))


def _collect(
    state: State, running: dict[Future[list[Outcome]], Task], left: dict[str, Task]
) -> Iterator[list[Outcome]]:
    """What is ready of what is running, one at least."""
    ready, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in ready:
        outcomes = future.result()
        task = running.pop(future)
        yield state.keep(left.pop(task.name), outcomes)


def _run_alone(job: Job, task: Task, options: Options) -> list[Outcome]:
    try:
        with _start_workers(job, 1) as pool:
            future: Future[list[Outcome]] = pool.submit(_work, task, options)
            return future.result()
    except BrokenProcessPool:
        reason = "its process was killed, perhaps because memory ran out; try fewer --jobs"
        return [Outcome.fail(reason, task.name)]


_model: Model | None = None
"""of a worker process"""


@contextmanager
def _start_workers(job: Job, count: int) -> Iterator[ProcessPoolExecutor]:
    # Forked from a process that has loaded the modules and runs no thread (see data/prepare/job).
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload([__name__])
    arguments = job.models, job.device, max(1, available_cores() // count)
    pool = ProcessPoolExecutor(count, context, initializer=_start_worker, initargs=arguments)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(models: Sequence[Path], device: str, threads: int) -> None:
    global _model
    start_worker()
    torch.set_num_threads(threads)
    _model = load_model(models or None, device)


def _work(task: Task, options: Options) -> list[Outcome]:
    assert _model is not None
    return segment_item(task, read_task(task), _model, options)


def _wait_for_others(job: Job, state: State, missing: set[str]) -> None:
    """Until the other processes have done their shares."""
    sign, total = time.monotonic(), len(missing)
    while left := {name for name in missing if not state.exists(name)}:
        if len(left) < len(missing):
            missing, sign = left, time.monotonic()
        if time.monotonic() - sign > job.timeout:
            raise OutputError(
                f"{job.out}: {len(left)} of {total} scans are missing, and none has come for "
                f"{job.timeout:g} s; are the processes of all ranks running? What is done is kept: "
                "run the same command again."
            )
        time.sleep(POLL)
