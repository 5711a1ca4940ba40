from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import labelled_by_table, synthetic, tiny

from ichfast.training import RunFolder, run
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
    return Parts(
        train=synthetic("train", 7),
        validation=synthetic("validation", 4),
        test=synthetic("test", 6),
        unlabelled=labelled_by_table(synthetic("unlabelled", 20, masks=False)),
    )


@pytest.fixture
def start(parts: Parts) -> Callable[..., dict[str, Any]]:
    """start(folder, "key=value", ...): a run of the tiny recipe, resumed if it is there."""

    def start(folder: Path, *settings: str) -> dict[str, Any]:
        with RunFolder(folder, resume=folder.exists()) as held:
            return run(tiny(*settings), held, torch.device("cpu"), parts)

    return start
