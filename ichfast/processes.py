"""Shared by the commands that spread their work over worker processes."""

import multiprocessing
import os
import signal
from threading import Thread

from ichfast.errors import DataError

PATIENCE = 10  # seconds of a worker that was told to end


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start_worker() -> None:
    """For a worker: it leaves signals to its parent, and ends when that does.

    Ctrl-C reaches the whole process group, as other signals may, but the parent alone decides.
    Where it has not after a while, SIGTERM ends the worker, since pools end theirs so.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(PATIENCE))
    end_with_parent()


def end_with_parent() -> None:
    """For a worker: exit when the parent does, since one that is killed cannot stop it."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=wait, daemon=True).start()


def read_environment(name: str, default: int) -> int:
    """A number that torchrun gives its processes, as RANK and WORLD_SIZE."""
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise DataError(f"{name} is {text!r} in the environment; it must be a number") from None
