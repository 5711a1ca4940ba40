"""The process in which the decoders run: a request to it gives bytes or raises `Refused`.

It is limited in time and in memory, and a new one takes its place when it dies.
"""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TypeVar

from ichfast.data import decode_worker
from ichfast.data.problems import Refused

WORKER = decode_worker.__file__
START_S = 60.0  # to load pydicom and the decoders from a slow disk
LIMIT_S = 20.0  # the largest frame that is read took 8, as noise in JPEG 2000 on a busy machine
MEMORY = 1536 << 20
"""bytes: twice what any decoder needs for 4096 x 4096 pixels of 32 bits (768 MiB: gdcm, JPEG 2000;
the others 256 to 512)"""
FRAME, PIXEL = 96 << 20, 64
"""bytes of address space that a frame may add, and for each of its pixels: a few kilobytes must not
take what the largest picture does"""

T = TypeVar("T")

# More threads would each have a stack and buffers, which count as memory.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class _Died(Exception):
    """The process ended, or closed its pipe, before its answer was complete."""


class DecoderProcess:
    def __init__(self) -> None:
        self.owner = os.getpid()
        self.lock = threading.Lock()
        self.child: subprocess.Popen[bytes] | None = None
        self.pipe: Connection | None = None

    def ask(self, request: Sequence[bytes], most: int, read: Callable[[bytes], T]) -> T:
        """What `read` makes of the answer, which has up to `most` bytes; it raises ValueError where
        that is no answer. `Refused` for whatever goes wrong.
        """
        with self.lock:
            while True:
                # Then it may have been killed before it got this request: a new one is asked.
                has_waited = self.child is not None
                if not has_waited:
                    self._start()
                try:
                    return read(self._exchange(request, most, LIMIT_S))
                except ValueError:
                    self.close()
                    raise Refused(explain("the decoder answers nonsense")) from None
                except _Died:
                    if not has_waited:
                        raise Refused(explain("the decoder crashed")) from None

    def _start(self) -> None:
        limits = [str(MEMORY), str(LIMIT_S + 1)]  # this side counts first, and says so
        try:
            self.pipe, end = Pipe()
            with end, tempfile.TemporaryFile() as complaints:
                self.child = subprocess.Popen(
                    [sys.executable, "-P", WORKER, str(end.fileno()), *limits],
                    stdin=subprocess.DEVNULL,
                    stdout=complaints,
                    stderr=complaints,
                    pass_fds=[end.fileno()],
                    env=os.environ | _ONE_THREAD,
                )
            self._exchange((), 0, START_S)
        except (OSError, _Died):
            raise Refused(explain("the decoders do not start")) from None

    def _exchange(self, messages: Sequence[bytes], most: int, seconds: float) -> bytes:
        """Send, then receive. At any error the process is ended."""
        child, pipe = self.child, self.pipe
        assert child is not None
        assert pipe is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            child.kill()

        # Not `poll`, which waits for the first byte only.
        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            for message in messages:
                pipe.send_bytes(message)
            return pipe.recv_bytes(most)
        except BaseException as error:  # Ctrl-C too, else the next frame would get this answer
            self.close()
            if late.is_set():
                raise Refused(explain(f"the decoder took over {seconds:g} s")) from None
            if isinstance(error, OSError | EOFError):
                raise _Died from None
            raise
        finally:
            timer.cancel()

    def close(self) -> None:
        if self.child is not None and self.owner == os.getpid():
            self.child.kill()
            self.child.wait()
        if self.pipe is not None:
            self.pipe.close()
        self.child = self.pipe = None


def explain(reason: str) -> str:
    return f"compressed pixel data cannot be decoded ({reason})"
