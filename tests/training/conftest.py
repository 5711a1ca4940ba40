from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tiny_runs
import torch

from ichfast.training.parts import Parts


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small gain nothing from more."""
    former = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(former)


@pytest.fixture(scope="session")
def parts() -> Parts:
    return tiny_runs.parts()


@pytest.fixture
def start() -> Callable[..., dict[str, Any]]:
    """start(folder, "key=value", ...): a run of the tiny recipe, resumed if it is there."""
    return tiny_runs.start
