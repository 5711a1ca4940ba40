"""Contenders in a process of their own, for settings that apply to a whole process."""

import atexit
import multiprocessing
from collections.abc import Callable, Sequence
from functools import cache, partial
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.devices import Run
from ichfast.training.host import avoid_denormals, keep_heap


class Make(NamedTuple):
    """Replace the runs by these, and leave their results there."""

    makes: Sequence[Callable[[], Run]]
    results: Sequence[Tensor]


class Do(NamedTuple):
    """Do the run with this number, and answer when it is done."""

    number: int
    threads: int


class Apart:
    """A process that trains as a run of ``ichfast.train`` does: under :func:`keep_heap` and
    :func:`avoid_denormals`.

    Results come back through shared memory and are copied on both sides; that counts against it.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        atexit.register(self._end)

    def prepare(self, makes: Sequence[Callable[[], Run]], like: Sequence[Tensor]) -> list[Run]:
        """The runs that these make in that process, in place of those before. ``like``: results of
        the same shapes and dtypes."""
        results = [torch.empty_like(tensor).share_memory_() for tensor in like]
        self.pipe.send(Make(makes, results))
        return [partial(self._run, i, results) for i in range(len(makes))]

    def _end(self) -> None:
        self.pipe.close()
        self.process.join()

    def _run(self, number: int, results: Sequence[Tensor]) -> Sequence[Tensor]:
        self.pipe.send(Do(number, torch.get_num_threads()))
        self.pipe.recv()  # EOFError where it has failed; its traceback is on the screen
        return [tensor.clone() for tensor in results]


apart = cache(Apart)
"""the one process, which ends with this one"""


def _serve(pipe: Connection) -> None:
    with keep_heap(), avoid_denormals():
        runs: list[Run] = []
        results: Sequence[Tensor] = []
        while True:
            try:
                message = pipe.recv()
            except EOFError:  # the other end is gone
                return
            match message:
                case Make(makes, results):
                    runs.clear()
                    runs = [make() for make in makes]
                case Do(number, threads):
                    torch.set_num_threads(threads)
                    for shared, result in zip(results, runs[number](), strict=True):
                        shared.copy_(result)
                    pipe.send(None)
