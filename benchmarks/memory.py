"""Peak memory that one call takes on the CPU beyond what was there before it.

Every allocation and release that goes through torch's allocator, ichfast's own included, as the
profiler records them: exact to the byte, where a process' resident size knows pages only. What C++
keeps on its stack or in a std::vector is not seen: tiles and a few numbers per image.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


def measure_peak(run: Callable[[], object]) -> int:
    """The largest sum of bytes held at any moment of the call, its results among them."""
    run()
    with tempfile.TemporaryDirectory() as folder, _silence_stderr():
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            results = run()
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    del results
    changes = [event for event in events if event.get("name") == "[memory]"]
    held = peak = 0
    for event in sorted(changes, key=lambda event: event["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak


@contextmanager
def _silence_stderr() -> Iterator[None]:
    """The profiler's library announces each start and stop on the file descriptor itself."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
