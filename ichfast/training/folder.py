"""The run folder: who may use it, and files that are written whole or not at all."""

import contextlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ichfast.errors import CheckpointError, IchfastError, OutputError
from ichfast.files import (
    PARTIAL,
    DiskFull,
    WriteError,
    append,
    find_partials,
    lock,
    report_errors,
    write_whole,
)
from ichfast.team import Team

if TYPE_CHECKING:
    from ichfast.training.events import Events

RECIPE, LOG, CHECKPOINT = "recipe.toml", "log.jsonl", "checkpoint.pt"
METRICS, WEIGHTS, EXAMPLES = "metrics.json", "model.safetensors", "examples.safetensors"
SLICES, EVENTS = "slices.json", "events"
LOCK = ".lock"
FILES = {RECIPE, LOG, CHECKPOINT, METRICS, WEIGHTS, EXAMPLES, SLICES}


class RunFolder:
    """A run's folder, held by one process while the ``with`` block lasts. With ``tensorboard``, the
    log is in event files too. A run that is refused before its first epoch leaves no folder that
    was not there."""

    def __init__(self, path: Path, *, resume: bool, tensorboard: bool = False) -> None:
        self.path = path
        self.events: Events | None = None
        self.open_events = import_events() if tensorboard else None
        if resume and not (path / RECIPE).is_file():
            raise CheckpointError(
                f"{path} holds no {RECIPE}: not a run that can be resumed. Give a run folder."
            )

    def __enter__(self) -> Self:
        with ExitStack() as stack, self._advise():
            with report_errors(self.path):
                self._made = make_folders(self.path)
            stack.enter_context(lock(self.path / LOCK))
            with report_errors(self.path):
                for partial, name in find_partials(self.path):
                    if name in FILES:
                        partial.unlink()
            self._held = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.events:
            self.events.close()
        if isinstance(error, IchfastError) and self._made:
            self._remove()
        self._held.close()

    def _remove(self) -> None:
        """This folder and those above it that were made for it, as far as they hold nothing."""
        if {file.name for file in self.path.iterdir()} <= {LOCK, RECIPE}:
            with contextlib.suppress(OSError):  # another process may have begun to use them
                (self.path / RECIPE).unlink(missing_ok=True)
                (self.path / LOCK).unlink()
                for folder in self._made:
                    folder.rmdir()

    def claim(self) -> None:
        """Raise unless the folder is free for a new run. A run that was killed before its first
        checkpoint has left nothing that is worth keeping."""
        found = {file.name for file in self.path.iterdir() if not file.name.startswith(PARTIAL)}
        others = found - {LOCK, RECIPE, LOG, EVENTS}
        if {RECIPE, LOG} <= found:
            others -= {WEIGHTS}
        if CHECKPOINT in others:
            raise OutputError(
                f"{self.path} already holds a run; continue it with --resume {self.path}, or "
                "choose another --out."
            )
        if others:
            raise OutputError(f"{self.path} is not empty; choose another --out.")

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def write(self, name: str, data: bytes) -> None:
        """``data`` under ``name``, whole or not at all: whatever happens on the way, the name holds
        the former file or the new one."""
        with self._advise():
            write_whole(self.path / name, data)

    def log(self, record: dict[str, Any]) -> None:
        with self._advise():
            append(self.path / LOG, f"{json.dumps(record)}\n".encode())
        if self.events:
            self.events.write(record)

    def cut_log(self, epochs: int) -> None:
        """Drop what was logged after the checkpoint of ``epochs`` epochs, a torn line too."""
        if self.open_events:
            self.events = self.open_events(self.path / EVENTS, epochs)
        path = self.path / LOG
        if path.exists():
            kept = path.read_bytes().splitlines(keepends=True)[:epochs]
            self.write(LOG, b"".join(kept))

    @contextmanager
    def _advise(self) -> Iterator[None]:
        """Say how to continue where a file could not be written."""
        try:
            yield
        except WriteError as error:
            kept = (self.path / CHECKPOINT).exists()
            raise OutputError(
                f"{error}. "
                + ("Make room" if isinstance(error, DiskFull) else "Fix that")
                + (f" and resume with --resume {self.path}." if kept else " and start again.")
            ) from error.__cause__


def make_folders(path: Path) -> list[Path]:
    """The folder and those above it that are missing; which were made, innermost first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing


def import_events() -> "type[Events]":
    from ichfast.training.events import Events  # only where TensorBoard is asked for

    return Events


class FollowedFolder(RunFolder):
    """The folder of a run for the processes that do not lead it: all is written for them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def claim(self) -> None:
        pass

    def write(self, name: str, data: bytes) -> None:
        pass

    def log(self, record: dict[str, Any]) -> None:
        pass

    def cut_log(self, epochs: int) -> None:
        pass


@contextmanager
def hold_folder(
    team: Team, path: Path, *, resume: bool, tensorboard: bool = False
) -> Iterator[RunFolder]:
    """The folder at ``path`` for each of the team, held by the first."""
    with ExitStack() as stack:
        held: list[RunFolder] = []

        def enter() -> None:
            folder = RunFolder(path, resume=resume, tensorboard=tensorboard)
            held.append(stack.enter_context(folder))

        team.lead(enter)
        yield held[0] if team.leads else FollowedFolder(path)
