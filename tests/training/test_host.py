"""Settings of the whole process: they hold on every thread, and are put back."""

import platform
import resource

import pytest
import torch

from ichfast.training.host import avoid_denormals, keep_heap
from ichfast.training.pipeline import compute_exactly

COUNT = 1 << 20  # enough for torch to use all of its threads
has_the_bit = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="another processor"
)


@pytest.fixture
def threads():
    former = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(former)


def denormals() -> int:
    """How many of the products are not 0: all or none, if the threads agree."""
    return int((torch.full((COUNT,), 1e-30) * 1e-10).count_nonzero())


@has_the_bit
def test_denormals_are_flushed_on_all_threads(threads) -> None:
    assert denormals() == COUNT  # and the threads have been started
    with avoid_denormals():
        assert denormals() == 0
        assert (torch.full((COUNT,), 1e-30) * 1e-7 > 0).all()  # 1e-37 is none
    assert denormals() == COUNT


@has_the_bit
def test_flushing_is_put_back_as_it_was(threads) -> None:
    with avoid_denormals():
        with pytest.raises(ZeroDivisionError), avoid_denormals():
            raise ZeroDivisionError
        assert denormals() == 0


@has_the_bit
def test_exact_flushes(threads) -> None:
    with compute_exactly(torch.device("cpu")):
        assert denormals() == 0
    assert denormals() == COUNT


def faults_of_a_block() -> int:
    """Pages that the system has to hand out for 64 MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_the_heap_is_kept() -> None:
    pages = (1 << 26) // resource.getpagesize()
    assert faults_of_a_block() >= pages
    with keep_heap():
        # The first may leave no room for a second, where something small comes to lie between.
        assert [faults_of_a_block() for _ in range(5)][-1] < pages / 10
    assert faults_of_a_block() >= pages
