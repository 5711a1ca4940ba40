"""Settings and fixtures for all tests."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# `benchmarks` for a bare `pytest`; last, so that an ichfast which is installed comes first.
sys.path.append(str(Path(__file__).parents[1]))

import ichfast

pytest.register_assert_rewrite("harness", "comparison")  # of tests/ops

# Under nohup, or in the background of a script, these are ignored, and by every child too.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, usual)

# The same examples on every machine; a slow machine is no failure.
settings.register_profile("ichfast", derandomize=True, deadline=None, max_examples=40)
settings.load_profile("ichfast")

CUDA = bool(ichfast.build_info()["cuda"]) and torch.cuda.is_available()


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)] if CUDA else ["cpu"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device that this build has kernels for."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _seed_and_threads() -> Iterator[None]:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest to set up comes first, so that one worker alone does it."""
    items.sort(key=lambda item: item.path.name != "test_distributed.py")
