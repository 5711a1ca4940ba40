"""The run folder: who may use it, and files that are written whole or not at all."""

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ichfast.errors import CheckpointError, OutputError
from ichfast.team import Team

if TYPE_CHECKING:
    from ichfast.training.events import Events

RECIPE, LOG, CHECKPOINT = "recipe.toml", "log.jsonl", "checkpoint.pt"
METRICS, WEIGHTS, EXAMPLES = "metrics.json", "model.safetensors", "examples.safetensors"
SLICES, EVENTS = "slices.json", "events"


class RunFolder:
    """A run's folder, held by one process while the ``with`` block lasts. With ``tensorboard``, the
    log is in event files too."""

    def __init__(self, path: Path, *, resume: bool, tensorboard: bool = False) -> None:
        self.path = path
        self.events: Events | None = None
        self.open_events = event_writer() if tensorboard else None
        if resume and not (path / RECIPE).is_file():
            raise CheckpointError(
                f"{path} holds no {RECIPE}: not a run that can be resumed. Give a run folder."
            )

    def __enter__(self) -> Self:
        self._writing("", lambda: self.path.mkdir(parents=True, exist_ok=True))
        self._writing("", self._lock)
        return self

    def _lock(self) -> None:
        # The kernel drops the lock with the process, however that ends: no stale locks.
        self._held = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(self._held, 32).decode(errors="replace").strip()
            os.close(self._held)
            raise OutputError(
                f"{self.path} is in use by process {owner or '?'}; wait or take another --out."
            ) from error
        os.ftruncate(self._held, 0)
        os.write(self._held, f"{os.getpid()}\n".encode())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.events:
            self.events.close()
        os.close(self._held)

    def claim(self) -> None:
        """Raise unless the folder is free for a new run. A run that was killed before its first
        checkpoint has left nothing that is worth keeping."""
        others = {file.name for file in self.path.iterdir()} - {".lock", RECIPE, LOG, EVENTS}
        others = {name for name in others if not name.endswith(PARTIAL)}
        if CHECKPOINT in others:
            raise OutputError(
                f"{self.path} already holds a run; go on with --resume {self.path}, or take "
                "another --out."
            )
        if others:
            raise OutputError(f"{self.path} is not empty; take another --out.")

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def write(self, name: str, data: bytes) -> None:
        """``data`` under ``name``, whole or not at all: whatever happens on the way, the name holds
        the former file or the new one."""
        partial = self.path / (name + PARTIAL)

        def write_and_rename() -> None:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.path / name)
            folder = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(folder)  # the rename itself
            finally:
                os.close(folder)

        try:
            self._writing(name, write_and_rename)
        except OutputError:
            partial.unlink(missing_ok=True)
            raise

    def log(self, record: dict[str, Any]) -> None:
        def append() -> None:
            with open(self.path / LOG, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

        self._writing(LOG, append)
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

    def _writing(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            kept = (self.path / CHECKPOINT).exists()
            raise OutputError(
                f"{self.path / name} could not be written: {error.strerror or error}. "
                + ("Make room" if full else "Mend that")
                + (f" and go on with --resume {self.path}." if kept else " and start again.")
            ) from error


def event_writer() -> "type[Events]":
    from ichfast.training.events import Events  # TensorBoard is loaded by those who ask for it

    return Events


PARTIAL = ".partial"


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
def held_by(
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
