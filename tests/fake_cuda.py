"""A stand-in for torch.cuda, as strict about the order of calls as the real one."""

import contextlib
import time
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

L2 = 100_000


class FakeCuda:
    """torch.cuda, as far as the benchmarks call it, with the CPU for a device."""

    def __init__(self) -> None:
        self.clock = time.perf_counter
        self.unfinished: set[object] = set()
        self.streams = ["default"]
        self.peak = self.held = 0

    def current_device(self) -> int:
        return 0

    def get_device_properties(self, device: int) -> SimpleNamespace:
        return SimpleNamespace(
            name="NVIDIA H100 80GB HBM3",
            major=9,
            minor=0,
            multi_processor_count=132,
            L2_cache_size=L2,
            total_memory=80 * 2**30,
        )

    def synchronize(self) -> None:
        self.unfinished.clear()

    def Event(self, enable_timing: bool = False) -> "FakeEvent":
        return FakeEvent(self, enable_timing)

    def Stream(self) -> "FakeStream":
        return FakeStream("side")

    def current_stream(self) -> "FakeStream":
        return FakeStream(self.streams[-1])

    @contextlib.contextmanager
    def stream(self, stream: "FakeStream"):
        self.streams.append(stream.name)
        try:
            yield
        finally:
            self.streams.pop()

    def CUDAGraph(self) -> "FakeGraph":
        return FakeGraph()

    @contextlib.contextmanager
    def graph(self, graph: "FakeGraph", stream: "FakeStream"):
        assert self.streams[-1] == stream.name == "side", "captured outside the side stream"
        with graph:
            yield

    def memory_allocated(self) -> int:
        return self.held

    def reset_peak_memory_stats(self) -> None:
        self.peak = self.held

    def max_memory_allocated(self) -> int:
        return self.peak


class FakeEvent:
    def __init__(self, cuda: FakeCuda, enable_timing: bool) -> None:
        assert enable_timing
        self.cuda = cuda

    def record(self) -> None:
        self.cuda.unfinished.add(self)
        self.at = self.cuda.clock()

    def elapsed_time(self, end: "FakeEvent") -> float:
        assert not {self, end} & self.cuda.unfinished, "read before the device was done"
        return 1e3 * (end.at - self.at)


class FakeStream:
    def __init__(self, name: str) -> None:
        self.name = name

    def wait_stream(self, other: "FakeStream") -> None:
        assert {self.name, other.name} == {"side", "default"}


class FakeGraph(TorchDispatchMode):
    """Keeps the calls of a capture; a replay makes them anew, into the same tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("a value was read on the host inside a capture")
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        for function, args, kwargs, kept in self.calls:
            results = function(*args, **kwargs)
            with torch.no_grad():
                for old, new in zip(tree_leaves(kept), tree_leaves(results), strict=True):
                    if isinstance(old, Tensor):
                        old.copy_(new)
