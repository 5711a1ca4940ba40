"""Compressed pixels through pydicom's decoders, in a process of their own.

They are native code, and damaged streams have made each of them misbehave: gdcm ends the process
(segmentation fault in JPEG, abort in JPEG-LS and JPEG 2000), CharLS and OpenJPEG can take
seconds and gigabytes, pylibjpeg-rle panics. A frame that kills its process, or keeps it for longer
than LIMIT_S, is refused like any other, and the next frame gets a new process.
"""

import atexit
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
from pydicom import config
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import HTJ2K, JPEG2000, UID, JPEGBaseline8Bit, JPEGExtended12Bit

from ichfast.data.image import Header
from ichfast.data.problems import Refused
from ichfast.data.streams import Stream

LIMIT_S = 20.0  # the largest frames that are read take about two
# Where several decoders can read a syntax, the one that has not crashed first.
_PREFERENCE = ("pyjpegls", "pylibjpeg", "pydicom", "gdcm", "pillow")

# Decoders may round these differently (ISO 10918-2, 15444-4); all others have one right answer.
INEXACT = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEG2000, HTJ2K)


def available(syntax: str) -> list[str]:
    """The names of the decoders at hand for a compressed syntax, best first. Refused if none."""
    uid = UID(syntax, validation_mode=config.IGNORE)
    if not uid.is_transfer_syntax:
        raise Refused("unknown transfer syntax")
    try:
        decoder = get_decoder(uid)
    except NotImplementedError:
        raise Refused(f"{uid.name} cannot be decoded by pydicom; convert the file") from None
    if not decoder.is_available:
        raise Refused(f"{uid.name} needs a decoder: pip install '.[decode]' in ichfast's clone")
    return sorted(decoder.available_plugins, key=_PREFERENCE.index)


def decode(stream: Stream, header: Header, name: str) -> np.ndarray:
    """(rows, columns) as unsigned numbers of the stream's bits."""
    options = {
        "rows": header.rows,
        "columns": header.columns,
        "bits_allocated": header.bits_allocated,
        "bits_stored": min(stream.bits, header.bits_allocated),
        "pixel_representation": int(bool(stream.signed)),
    }
    pixels = _process().ask((str(header.transfer_syntax), name, stream.data, options))
    if isinstance(pixels, str):
        raise Refused(f"compressed pixel data cannot be decoded ({pixels})")
    if pixels.shape != (header.rows, header.columns) or pixels.dtype.kind not in "iu":
        raise Refused("compressed pixel data decodes to another shape than Rows x Columns")
    unsigned: np.ndarray = pixels.astype(np.int64) & ((1 << stream.bits) - 1)
    return unsigned


def compare(stream: Stream, header: Header) -> list[list[str]]:
    """Names of the decoders that decode the stream, together where they give the same pixels."""
    groups: list[tuple[np.ndarray, list[str]]] = []
    for name in available(header.transfer_syntax):
        with suppress(Refused):  # not every decoder takes every depth
            pixels = decode(stream, header, name)
            for known, names in groups:
                if np.array_equal(known, pixels):
                    names.append(name)
                    break
            else:
                groups.append((pixels, [name]))
    return [names for _, names in groups]


class _Process:
    """The worker and its pipes; a new one after each that died."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.lock = threading.Lock()
        self.child: subprocess.Popen[bytes] | None = None

    def ask(self, request: object) -> np.ndarray | str:
        """Pixels, or why there are none."""
        message = pickle.dumps(request, protocol=5)
        with self.lock:
            child = self.child or self._start()
            assert child.stdin is not None
            assert child.stdout is not None
            late = threading.Event()

            def stop() -> None:
                late.set()
                child.kill()

            timer = threading.Timer(LIMIT_S, stop)
            timer.start()
            try:
                child.stdin.write(len(message).to_bytes(8, "little") + message)
                child.stdin.flush()
                length = int.from_bytes(child.stdout.read(8), "little")
                answer = child.stdout.read(length)
            except OSError:  # it died while it was written to
                answer = b""
            finally:
                timer.cancel()
            if not answer:
                self.close()
                reason = f"took over {LIMIT_S:g} s" if late.is_set() else "crashed"
                return f"the decoder {reason}"
        result: np.ndarray | str = pickle.loads(answer)
        return result

    def _start(self) -> "subprocess.Popen[bytes]":
        with tempfile.TemporaryFile() as complaints:
            self.child = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("decode_worker.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
            )
        return self.child

    def close(self) -> None:
        if self.child is not None and self.owner == os.getpid():
            self.child.kill()
            self.child.communicate()
        self.child = None


_current: _Process | None = None


def _process() -> _Process:
    """This process's own: after a fork, parent and child must not share pipes."""
    global _current
    if _current is None or _current.owner != os.getpid():
        _current = _Process()
        atexit.register(_current.close)
    return _current
