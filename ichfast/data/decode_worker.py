"""The other end of `ichfast.data.decoders`: one compressed frame in, its pixels out. Run by its
path, so that it loads pydicom and the decoders and nothing of ichfast.

A request is a pickle (syntax, decoder, stream, options), an answer the pixels or the reason why
there are none; each has its length, 8 bytes, in front.
"""

import logging
import os
import pickle
import sys
import warnings
from typing import Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder


def decode(syntax: str, name: str, stream: bytes, options: dict[str, Any]) -> np.ndarray:
    frame: dict[str, Any] = {
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "pixel_keyword": "PixelData",
    }
    pixels, _ = get_decoder(syntax).as_array(
        encapsulate([stream]), index=0, raw=True, decoding_plugin=name, **frame, **options
    )
    return pixels


def main() -> None:
    logging.disable()
    warnings.simplefilter("ignore")
    # Decoders print: what they print must not get between the answers, and is itself an answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while len(head := sys.stdin.buffer.read(8)) == 8:
        request = pickle.loads(sys.stdin.buffer.read(int.from_bytes(head, "little")))
        os.ftruncate(2, 0)
        answer: np.ndarray | str
        try:
            answer = decode(*request)
        except BaseException as error:  # pylibjpeg-rle panics with one that is no Exception
            answer = type(error).__name__
        # libjpeg says "Corrupt JPEG data" here, fills the rest with grey and reports success.
        if not isinstance(answer, str) and os.fstat(2).st_size:
            answer = "the decoder complains"
        message = pickle.dumps(answer, protocol=5)
        answers.write(len(message).to_bytes(8, "little") + message)
        answers.flush()


if __name__ == "__main__":
    main()
