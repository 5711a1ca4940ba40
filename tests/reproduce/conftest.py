"""A table small enough to be trained in a test: a phantom of 16 patients, 32×32 pixels."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from ichfast.data import load_slices
from ichfast.data.phantom import write_phantom
from ichfast.reproduce import __main__ as command
from ichfast.reproduce import worker
from ichfast.reproduce.cells import Outcome
from ichfast.reproduce.plan import ENDED, Cell
from ichfast.reproduce.rows import ROWS, TableRow, use_adam
from ichfast.reproduce.studies import STUDIES
from ichfast.training import Recipe

SMALL = (
    "training.epochs=2",
    "training.validate_every=1",
    "training.checkpoint_every=1",
    "supervised.optimizer=lbfgs",
    "training.divergence=50",
    "model.channels=[2, 3, 4]",
    "lbfgs.max_iter=2",
    "curriculum.k=1",
    "data.size=32",
)
KEPT = [row for row in ROWS if row.name in ("supervised", "curriculum")]


def exploding(base: Recipe) -> dict[str, object]:
    return use_adam("supervised")(base) | {"adam.learning_rate": 1e4}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # the suite's fixture puts it back


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "small"
    write_phantom(
        out,
        patients=16,
        unlabelled_patients=6,
        size=64,
        slices=4,
        seed=1,
        progress=False,
        workers=1,
    )
    return out


@pytest.fixture
def small() -> Sequence[str]:
    """The settings of every cell."""
    return SMALL


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[TableRow]:
    """Two rows of the paper, and one that diverges at once."""
    chosen = [*KEPT, TableRow("exploding", "Explodes <fast>", exploding, "never & nowhere")]
    monkeypatch.setitem(STUDIES, "demo", replace(STUDIES["demo"], rows=tuple(chosen)))
    return chosen


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells one by one in this process: starting a worker takes longer than all of them."""
    load = cache(load_slices)

    def run_cells(cells: Sequence[Cell], out: Path, jobs: int, report: Callable) -> Outcome:
        outcome = Outcome()
        for cell in cells:
            status, text = worker.answer(cell, out, load)
            if status in ENDED:
                outcome.ended.append(cell)
            else:
                outcome.failed[cell.path] = text
            report(cell, status, text, 1.0)
        return outcome

    monkeypatch.setattr(command, "run_cells", run_cells)


@pytest.fixture
def words(phantom: Path) -> Callable[..., list[str]]:
    """The command's words for a small table in a folder."""

    def words(out: Path, *more: str) -> list[str]:
        settings = [word for setting in SMALL for word in ("--set", setting)]
        data = [f"--labelled={phantom}/labelled", f"--unlabelled={phantom}/unlabelled"]
        return ["table1", "--out", str(out), *data, *settings, *more]

    return words
