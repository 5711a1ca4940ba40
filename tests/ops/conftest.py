"""Fixtures of the op tests. Every test runs on each device for which there are kernels."""

from collections.abc import Iterator

import pytest
import torch

import ichfast

pytest.register_assert_rewrite("harness", "comparison")

CUDA = bool(ichfast.build_info()["cuda"]) and torch.cuda.is_available()


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)] if CUDA else ["cpu"])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _state() -> Iterator[None]:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
