"""Cells side by side in worker processes. A worker that dies takes one cell with it."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

from ichfast.interrupts import catch_interrupts, shield_children
from ichfast.reproduce.plan import ENDED, Cell
from ichfast.reproduce.worker import work

WAIT = 0.5  # seconds between looks at the clock


@dataclass
class Outcome:
    """How a call of `run_cells` ended."""

    ended: list[Cell] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """path of a cell -> why it has no result"""
    interrupted: bool = False


class Worker:
    def __init__(self, out: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe: Connection
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, out))
        # Ctrl-C is the parent's. The worker lifts the block once it can answer.
        with shield_children():
            self.process.start()
        theirs.close()  # so that the pipe ends when the worker does
        self.cell: Cell | None = None
        self.since = 0.0

    def give(self, cell: Cell) -> None:
        self.cell, self.since = cell, time.perf_counter()
        with contextlib.suppress(BrokenPipeError):  # its death is seen when its answer is awaited
            self.pipe.send(cell)

    def await_answer(self) -> tuple[str, str]:
        """What became of its cell: an outcome of `worker.work`, or "died"."""
        try:
            outcome: tuple[str, str] = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"killed by signal {-code}" if code < 0 else f"ended with status {code}"
            return "died", f"its worker was {how}, perhaps because memory ran out: try fewer --jobs"
        return outcome

    def interrupt(self) -> None:
        """Let it finish its epoch and save."""
        if self.process.is_alive() and self.process.pid:
            os.kill(self.process.pid, signal.SIGINT)

    def end(self) -> None:
        self.pipe.close()
        if self.cell is not None:
            self.process.kill()
        self.process.join()


Report = Callable[[Cell, str, str, float], None]
"""report(cell, outcome, text, seconds) as each cell ends"""


def run_cells(cells: Sequence[Cell], out: Path, jobs: int, report: Report) -> Outcome:
    """Train the cells with ``jobs`` workers. Ctrl-C lets each finish its epoch and save, a second
    one ends them at once; want of room for output ends the handing out, as it would meet all."""
    queue, outcome = deque(cells), Outcome()
    workers: list[Worker] = []
    try:
        with catch_interrupts() as stop:
            while True:
                _hand_out(queue, workers, min(jobs, len(cells)), out)
                busy = [worker for worker in workers if worker.cell]
                if not busy:
                    break
                ready = wait([worker.pipe for worker in busy], WAIT)
                if stop.is_set() and not outcome.interrupted:
                    outcome.interrupted = True
                    queue.clear()
                    for worker in busy:
                        worker.interrupt()
                for worker in busy:
                    if worker.pipe in ready:
                        _take(worker, workers, queue, outcome, report)
    except KeyboardInterrupt:
        outcome.interrupted = True
    finally:
        for worker in workers:
            worker.end()
    return outcome


def _hand_out(queue: deque[Cell], workers: list[Worker], jobs: int, out: Path) -> None:
    idle = [worker for worker in workers if worker.cell is None]
    while queue and (idle or len(workers) < jobs):
        if not idle:
            workers.append(Worker(out))
            idle.append(workers[-1])
        idle.pop().give(queue.popleft())


def _take(
    worker: Worker, workers: list[Worker], queue: deque[Cell], outcome: Outcome, report: Report
) -> None:
    cell = worker.cell
    assert cell is not None
    status, text = worker.await_answer()
    worker.cell = None
    if status == "died":
        workers.remove(worker)
        worker.end()
        status = "interrupted" if outcome.interrupted else status
    if status in ENDED:
        outcome.ended.append(cell)
    elif status == "interrupted":
        outcome.interrupted = True
    else:
        outcome.failed[cell.path] = text
        if status == "no output":
            queue.clear()
    report(cell, status, text, time.perf_counter() - worker.since)
