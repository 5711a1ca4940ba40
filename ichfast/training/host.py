"""What training sets for its whole process: the C library's heap, and the arithmetic's smallest
numbers."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ichfast._C_python import flush_denormals

# mallopt's parameters and glibc's defaults (mallopt(3)).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
DEFAULTS = {M_TRIM_THRESHOLD: 128 * 1024, M_MMAP_MAX: 65536}
KEPT = {M_TRIM_THRESHOLD: -1, M_MMAP_MAX: 0}  # never trim, never map


@contextmanager
def keep_heap() -> Iterator[None]:
    """Inside, memory that is freed stays the process's, for the next update to take.

    glibc hands blocks of 32 MiB and more back to the system as soon as they are freed; the next
    update asks for as many again, and the system clears every page of them first. Feature maps are
    such blocks. Other C libraries are left as they are.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        yield
        return
    for parameter, value in KEPT.items():
        library.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in DEFAULTS.items():
            library.mallopt(parameter, value)
        library.malloc_trim(0)


@contextmanager
def avoid_denormals() -> Iterator[None]:
    """Inside, numbers below 2⁻¹²⁶ (float64: 2⁻¹⁰²²) are 0 on the CPU, on all of torch's threads.

    Once the network is sure, the sigmoid's gradient is so small over most of a slice, and some
    processors take much longer over each such number: on an Intel Xeon a whole pass took three
    times as long.
    ``torch.set_flush_denormal`` reaches the calling thread alone.
    """
    former = flush_denormals(True, torch.get_num_threads())
    try:
        yield
    finally:
        flush_denormals(former, torch.get_num_threads())
