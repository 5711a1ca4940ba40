"""Compressed pixels through pydicom's decoders, in a process of their own.

They are native code, and damaged streams have made each of them misbehave: gdcm ends the process
(segmentation fault in JPEG, abort in JPEG-LS and JPEG 2000), CharLS and OpenJPEG can take
seconds and gigabytes, pylibjpeg-rle panics. A frame that kills its process, or takes more time or
memory than `ichfast.data.decoder_process` allows, is refused like any other.
"""

import atexit
import json
import os
import re
from contextlib import suppress

import numpy as np
from pydicom import config
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import HTJ2K, JPEG2000, UID, JPEGBaseline8Bit, JPEGExtended12Bit

from ichfast.data.compressed import Stream
from ichfast.data.decode_worker import ANSWER, DONE, FAILED
from ichfast.data.decoder_process import FRAME, PIXEL, DecoderProcess, explain
from ichfast.data.image import Header
from ichfast.data.problems import Refused

# Where several decoders can read a syntax, the one that has not crashed first.
_PREFERENCE = ("pyjpegls", "pylibjpeg", "pydicom", "gdcm", "pillow")

# Decoders may round these differently (ISO 10918-2, 15444-4); all others have one right answer.
INEXACT = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEG2000, HTJ2K)

_KINDS = {
    kind.ljust(4, b"\0"): np.dtype(f"<{kind.decode()}")
    for kind in (b"u1", b"i1", b"u2", b"i2", b"u4", b"i4")
}


def list_available(syntax: str) -> list[str]:
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


def choose(syntax: str) -> str:
    """The best decoder at hand. Refused if there is none."""
    return list_available(syntax)[0]


def decode(stream: Stream, header: Header, name: str) -> np.ndarray:
    """(rows, columns) as unsigned numbers of the stream's bits."""
    request = {
        "syntax": str(header.transfer_syntax),
        "decoder": name,
        "rows": header.rows,
        "columns": header.columns,
        "bits_allocated": header.bits_allocated,
        "bits_stored": min(stream.bits, header.bits_allocated),
        "pixel_representation": int(bool(stream.signed)),
        "memory": FRAME + PIXEL * header.rows * header.columns,
    }
    messages = json.dumps(request).encode(), stream.data
    most = ANSWER.size + max(64, 4 * header.rows * header.columns)
    pixels = _get_process().ask(messages, most, _read_answer)
    if isinstance(pixels, str):
        raise Refused(explain(pixels))
    if pixels.shape != (header.rows, header.columns):
        raise Refused("compressed pixel data decodes to another shape than Rows x Columns")
    unsigned: np.ndarray = pixels.astype(np.int64) & ((1 << stream.bits) - 1)
    return unsigned


def compare(stream: Stream, header: Header) -> list[list[str]]:
    """Names of the decoders that decode the stream, together where they give the same pixels."""
    groups: list[tuple[np.ndarray, list[str]]] = []
    for name in list_available(header.transfer_syntax):
        with suppress(Refused):  # not every decoder takes every depth
            pixels = decode(stream, header, name)
            for known, names in groups:
                if np.array_equal(known, pixels):
                    names.append(name)
                    break
            else:
                groups.append((pixels, [name]))
    return [names for _, names in groups]


def _read_answer(answer: bytes) -> np.ndarray | str:
    """Pixels, or why there are none. ValueError where it is neither: nothing in it is trusted."""
    if len(answer) < ANSWER.size:
        raise ValueError("no head")
    state, kind, rows, columns = ANSWER.unpack_from(answer)
    if state == FAILED and re.fullmatch(rb"[A-Za-z_ ]{1,64}", answer[ANSWER.size :]):
        return answer[ANSWER.size :].decode()
    if state != DONE or kind not in _KINDS:
        raise ValueError("neither pixels nor a reason")
    # ValueError unless all of the bytes are rows x columns pixels.
    return np.frombuffer(answer, _KINDS[kind], offset=ANSWER.size).reshape(rows, columns)


_current: DecoderProcess | None = None


def _get_process() -> DecoderProcess:
    """This process's own: after a fork, parent and child must not share a pipe."""
    global _current
    if _current is None or _current.owner != os.getpid():
        _current = DecoderProcess()
        atexit.register(_current.close)
    return _current
