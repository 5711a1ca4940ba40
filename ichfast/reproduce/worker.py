"""The process that trains cells, one after the other: its data are read once."""

import contextlib
import functools
import os
import signal
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from ichfast.command import is_out_of_memory
from ichfast.data import load_slices
from ichfast.errors import IchfastError, OutputError
from ichfast.processes import end_with_parent
from ichfast.reproduce.plan import ENDED, Cell
from ichfast.training import RunFolder, run
from ichfast.training.folder import CHECKPOINT, RECIPE
from ichfast.training.parts import Load, load_parts


def work(pipe: Connection, out: Path) -> None:
    """Train each cell that comes through the pipe, answering (outcome, text), until it is closed.

    Ctrl-C at a terminal is for the parent, which passes it on. Where the parent is gone, so is the
    worker.
    """
    os.setsid()
    end_with_parent()
    # One thread a cell whatever --jobs is: the bits then do not depend on it.
    torch.set_num_threads(1)
    load = functools.cache(load_slices)
    with open(os.devnull, "w") as silence, contextlib.suppress(EOFError, KeyboardInterrupt):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        while True:
            cell: Cell = pipe.recv()
            with contextlib.redirect_stderr(silence):  # many progress bars would be one mess
                found = answer(cell, out, load)
            pipe.send(found)


def answer(cell: Cell, out: Path, load: Load) -> tuple[str, str]:
    try:
        metrics = train_cell(cell, out, load)
    except KeyboardInterrupt:
        return "interrupted", ""
    except OutputError as error:
        return "no output", str(error)
    except IchfastError as error:
        return "failed", str(error)
    except OSError as error:  # of the phantom, of the log, of torch's own files
        return "no output", f"{error.strerror or error}: {error.filename or out}"
    except Exception as error:
        if is_out_of_memory(error):
            return "failed", "memory ran out: take fewer --jobs, or a smaller data.size"
        return "failed", traceback.format_exc().strip()
    test = metrics["test"]
    score = None if test is None else test["dice"]["pooled"]
    return metrics["status"], metrics["reason"] or ("" if score is None else f"Dice {score:.3f}")


def train_cell(cell: Cell, out: Path, load: Load) -> dict[str, Any]:
    """Train and evaluate a cell, or go on where it was; the content of its metrics.json."""
    folder = out / cell.path
    with RunFolder(folder, resume=(folder / RECIPE).exists()) as held:
        metrics = run(cell.recipe, held, torch.device("cpu"), load_parts(cell.recipe, out, load))
        if metrics["status"] in ENDED:  # many times the size of all else in the folder
            (held / CHECKPOINT).unlink(missing_ok=True)
    return metrics
