"""Choices that depend on a seed and on names alone, so that they are the same on every machine."""

import hashlib
import heapq
from collections.abc import Collection, Sequence
from functools import partial


def shuffle(names: Collection[str], seed: int) -> list[str]:
    """The names in the order of a hash of seed and name."""
    return sorted(names, key=lambda name: (shuffle_key(seed, name), name))


def choose(names: Sequence[str], limit: int | None, seed: int) -> list[str]:
    """A seeded uniform choice of `limit` names, in their order. A choice from a choice is the
    choice from all.
    """
    if limit is None or limit >= len(names):
        return list(names)
    chosen = set(heapq.nsmallest(limit, names, key=partial(shuffle_key, seed)))
    return [name for name in names if name in chosen]


def shuffle_key(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).digest()
