"""Signs of life between processes that train together. One that is stopped (SIGSTOP, a debugger, a
machine that sleeps or swaps) is not dead: its connections stand, and the others wait for it in
silence for as long as their patience lasts.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # some builds of torch have none of it
    from torch.distributed.distributed_c10d import Store

PULSE = 5.0
"""seconds between two signs of life"""
SILENT = 30.0
"""seconds without one, after which that is said"""


class Heartbeat:
    """What one process sees of the others. ``say`` is told once of each that has fallen silent, and
    of its return, by the first process that is not silent itself."""

    def __init__(self, store: "Store", rank: int, size: int, say: Callable[[str], None]) -> None:
        # A connection of its own: a store waits for its answers. (Its stub lacks the method.)
        self.store: Store = store.clone()  # type: ignore[attr-defined]
        self.store.set_timeout(timedelta(seconds=SILENT))
        self.rank, self.size, self.say = rank, size, say
        self.beats = 0
        now = time.monotonic()
        self.heard = {other: (b"", now) for other in range(size) if other != rank}
        self.silent: set[int] = set()

    def beat(self) -> None:
        self.beats += 1
        self.store.set(f"pulse of {self.rank}", str(self.beats))
        now = time.monotonic()
        for other, (pulse, since) in self.heard.items():
            key = f"pulse of {other}"
            found = self.store.get(key) if self.store.check([key]) else b""
            if found != pulse:
                self.heard[other] = found, now
                if other in self.silent:
                    self.silent.discard(other)
                    self.speak(f"process {other} of {self.size} is there again")
            elif now - since > SILENT and other not in self.silent:
                self.silent.add(other)
                self.speak(
                    f"process {other} of {self.size} has given no sign of life for {SILENT:g} s: "
                    "it or its machine is stopped, asleep or out of memory; the others wait for it"
                )

    def speak(self, line: str) -> None:
        if self.rank == min({*range(self.size)} - self.silent):
            self.say(line)

    def run(self, ended: threading.Event) -> None:
        lost = False
        while not ended.wait(PULSE):
            try:
                self.beat()
                lost = False
            except RuntimeError:  # the store's
                if not lost and not ended.is_set():
                    self.say(
                        "torchrun, or the machine it was started on, does not answer: it is "
                        "stopped, asleep or gone; the processes go on while they reach each other"
                    )
                lost = True


@contextlib.contextmanager
def keep_contact(
    store: "Store", rank: int, size: int, say: Callable[[str], None]
) -> Iterator[None]:
    """Give signs of life and watch for the others' while the ``with`` block lasts."""
    ended = threading.Event()
    heartbeat = Heartbeat(store, rank, size, say)
    threading.Thread(target=heartbeat.run, args=(ended,), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
