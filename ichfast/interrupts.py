"""Signals that ask a command to stop: Ctrl-C, and what clusters, containers and closed terminals
send. All do the same; the exit status is 128 and the signal's number, as a shell has it.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
INTERRUPTED = 128 + signal.SIGINT


class Stopped(KeyboardInterrupt):
    """Another of the signals, where it ends a command as Ctrl-C does."""


class Halted(Exception):
    """Training ends within an epoch, by the signal of this number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Stop:
    """The signal that has asked to stop; 0: none has."""

    def __init__(self) -> None:
        self.number = 0
        self.turns = 0  # how often training has looked at it

    def is_set(self) -> bool:
        return self.number != 0


asked = Stop()
"""of the command that this process runs"""


@contextmanager
def obey_signals() -> Iterator[Stop]:
    """Each of the signals ends the ``with`` block by KeyboardInterrupt, as Ctrl-C does anyway."""
    asked.number = 0

    def stop(number: int, frame: FrameType | None) -> None:
        asked.number = asked.number or number
        raise KeyboardInterrupt if number == signal.SIGINT else Stopped

    with handle_signals(stop):
        yield asked


@contextmanager
def catch_interrupts() -> Iterator[Stop]:
    """What the first of the signals asks for; a second one interrupts at once. Not where torchrun
    has started this process: it passes on what the terminal has sent to all already."""
    stop = Stop()
    again = "" if "TORCHELASTIC_RUN_ID" in os.environ else "; Ctrl-C again stops at once"

    def request(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            if again:
                raise KeyboardInterrupt
            return
        stop.number = asked.number = number
        print(f"\nstopping{again}", file=sys.stderr)

    with handle_signals(request):
        yield stop


@contextmanager
def handle_signals(handler: "signal._HANDLER") -> Iterator[None]:
    """This handler for all of the signals, but for those other than Ctrl-C that are ignored, as
    ``nohup`` does. Only the main thread gets signals: nothing changes in another."""
    former = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                former[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, one in former.items():
            signal.signal(number, one)


@contextmanager
def shield_children() -> Iterator[None]:
    """Processes that start in the ``with`` block never see Ctrl-C, from their first moment on."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
