"""Random numbers by address: every use has its own generator, seeded by what it is for.

Nothing is drawn from a shared sequence, so adding a use changes no other, and a resumed run needs
no generator's state to draw what the uninterrupted one would have drawn.
"""

import zlib

import numpy as np


def make_generator(seed: int, purpose: str, epoch: int = 0) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), epoch])
