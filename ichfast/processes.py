"""Shared by the commands that spread their work over worker processes."""

import multiprocessing
import os
import signal
from threading import Thread

from ichfast.errors import DataError


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ignore_interrupt() -> None:
    """For a worker: Ctrl-C reaches the whole process group, but the parent alone decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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
