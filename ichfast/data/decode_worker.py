"""The other end of `decoder_process`: one compressed frame in, its pixels out. Run by its
path, so that it loads pydicom and the decoders and nothing of ichfast.

When it is ready, it sends an empty message. A request is two messages: as JSON the arguments of
`decode` and the memory that this frame may take, and the stream. An answer is one: `ANSWER`, then
the pixels row by row, or the reason why there are none. Nothing is pickled: what has run native
decoders on foreign bytes is not trusted.
"""

import json
import logging
import os
import resource
import signal
import struct
import sys
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder

ANSWER = struct.Struct("<4s4sII")
"""`DONE` or `FAILED`; NumPy's kind and bytes of a pixel, as b"u2"; rows; columns"""
DONE, FAILED = b"done", b"fail"


_FRAME = {
    "number_of_frames": 1,
    "samples_per_pixel": 1,
    "photometric_interpretation": "MONOCHROME2",
    "pixel_keyword": "PixelData",
}


def decode(stream: bytes, syntax: str, decoder: str, **options: Any) -> np.ndarray:
    """By the decoder of this name; options are what the header says: rows, columns, bits, sign."""
    options |= {"index": 0, "raw": True, "decoding_plugin": decoder, **_FRAME}
    pixels, _ = get_decoder(syntax).as_array(encapsulate([stream]), **options)
    return pixels


def answer(request: bytes, stream: bytes) -> bytes:
    os.ftruncate(2, 0)
    try:
        options = json.loads(request)
        limit_addresses(options.pop("memory"))
        pixels = decode(stream, **options)
        rows, columns = pixels.shape
        kind = f"{pixels.dtype.kind}{pixels.itemsize}".encode()
        little = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
        found = ANSWER.pack(DONE, kind, rows, columns) + little.tobytes()
        reason = ""
    except BaseException as error:  # pylibjpeg-rle panics with one that is no Exception
        reason = type(error).__name__
    # libjpeg says "Corrupt JPEG data" here, fills the rest with grey and reports success.
    if not reason and os.fstat(2).st_size:
        reason = "the decoder complains"
    return ANSWER.pack(FAILED, b"", 0, 0) + reason.encode() if reason else found


def limit_addresses(more: int) -> None:
    """Beyond those that the process has; a lower limit of the user's stays."""
    with suppress(FileNotFoundError):  # /proc is Linux's
        with open("/proc/self/statm") as file:
            present = int(file.read().split()[0]) * resource.getpagesize()
        _lower(resource.RLIMIT_AS, present + more)


_OWN = {kind: resource.getrlimit(kind) for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)}


def _lower(kind: int, limit: int) -> None:
    allowed, most = _OWN[kind]
    if allowed != resource.RLIM_INFINITY:
        limit = min(limit, allowed)
    resource.setrlimit(kind, (limit, most))


def main(pipe: Connection, memory: int, seconds: float) -> None:
    """Answer until the parent has gone, which closes the pipe. A frame that takes over `seconds`
    ends the process, whether or not a parent is still there to count them.
    """
    logging.disable()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    _lower(resource.RLIMIT_DATA, memory)
    with suppress(EOFError, OSError):
        pipe.send_bytes(b"")
        while True:
            request, stream = pipe.recv_bytes(), pipe.recv_bytes()
            signal.setitimer(signal.ITIMER_REAL, seconds)
            found = answer(request, stream)
            signal.setitimer(signal.ITIMER_REAL, 0)
            resource.setrlimit(resource.RLIMIT_AS, _OWN[resource.RLIMIT_AS])
            pipe.send_bytes(found)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), int(sys.argv[2]), float(sys.argv[3]))
