"""What differs between a CPU and a GPU: the clock, the caches, graphs, the count of memory."""

import time
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, cuda

from benchmarks import memory

Run = Callable[[], Sequence[Tensor]]
"""Does the work once and returns the results, freshly allocated."""


class Prepared:
    """A run of two halves. The first, ``prepare``, is not timed and returns the second."""

    def __init__(self, prepare: Callable[[], Run]) -> None:
        self.prepare = prepare

    def __call__(self) -> Sequence[Tensor]:
        return self.prepare()()


class Cpu:
    kind = "cpu"
    place = torch.device("cpu")
    sample_seconds = 3e-3  # stands clear of the clock's own noise

    def count_sets(self, nbytes: int) -> int:
        """How many input sets of this size the runs go through in turn."""
        return 1

    def time(self, groups: Iterable[Iterable[Run]]) -> float:
        """Seconds that the runs of all groups take; what happens between groups does not count."""
        seconds = 0.0
        for runs in groups:
            start = time.perf_counter()
            for run in runs:
                run()
            seconds += time.perf_counter() - start
        return seconds

    def measure_peak(self, run: Run) -> int:
        """The most bytes that one call holds beyond what was held before it, results included."""
        return memory.measure_peak(run)


class Cuda:
    """The current CUDA device, on the current stream."""

    kind = "cuda"
    # What the device idles before the first launch of a sample arrives, tens of microseconds, is
    # to be far below what a target allows.
    sample_seconds = 10e-3

    def __init__(self, place: torch.device) -> None:
        self.place = place
        self._cache = cuda.get_device_properties(cuda.current_device()).L2_cache_size
        self._scratch = torch.empty(3 * self._cache, dtype=torch.uint8, device=place)

    def count_sets(self, nbytes: int) -> int:
        """Enough that twice the cache is read before a set comes again."""
        return 1 + 2 * self._cache // nbytes

    def time(self, groups: Iterable[Iterable[Run]]) -> float:
        """As :meth:`Cpu.time`, by events. Starts with an idle device and none of the inputs in L2.

        Inside a group nobody waits for the device: what counts is when the first kernel could
        start and when the last one ended.
        """
        self._scratch.fill_(1)
        cuda.synchronize()
        spans = []
        for runs in groups:
            start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
            start.record()
            for run in runs:
                run()
            end.record()
            spans.append((start, end))
        cuda.synchronize()
        return float(sum(start.elapsed_time(end) for start, end in spans)) / 1e3

    def capture(self, runs: Sequence[Run]) -> Run:
        """One CUDA graph of all the runs, one after the other; returns the results of all of them.

        The results lie in the graph's own memory, and every replay writes them anew.
        """
        side = cuda.Stream()
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            for run in runs:  # what a library sets up at its first call on a stream
                run()
            graph = cuda.CUDAGraph()
            with cuda.graph(graph, stream=side):
                results = [result for run in runs for result in run()]
        cuda.current_stream().wait_stream(side)

        def replay() -> Sequence[Tensor]:
            graph.replay()
            return results

        return replay

    def measure_peak(self, run: Run) -> int:
        """As :meth:`Cpu.measure_peak`, by torch's caching allocator: blocks of 512 B."""
        run()
        cuda.synchronize()
        before = cuda.memory_allocated()
        cuda.reset_peak_memory_stats()
        results = run()
        cuda.synchronize()
        peak = cuda.max_memory_allocated() - before
        del results
        return peak


Device = Cpu | Cuda
