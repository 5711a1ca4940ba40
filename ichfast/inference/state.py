"""What has become of each scan, kept beside the results so that a later call can go on."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from ichfast.errors import DataError, OutputError
from ichfast.files import report_errors, write_whole
from ichfast.inference.inputs import Item, Task, digest_files
from ichfast.inference.model import Model

STATE = ".state"
SETTINGS = "settings.json"
BEGUN = "begun"
DONE, LEFT_OUT, FAILED = "done", "left out", "failed"
POLL = 0.5  # seconds between two looks at what other processes have done


@dataclass(frozen=True)
class Outcome:
    """Of one series, or of a file that gave none."""

    name: str
    status: str
    reason: str = ""
    files: tuple[str, ...] = ()
    """that it was read from, relative to the item's root"""
    numbers: dict[str, Any] = field(default_factory=dict)
    """the row of the summary"""

    @classmethod
    def fail(cls, reason: str, name: str = "") -> Self:
        return cls(name, FAILED, reason)

    def __str__(self) -> str:
        if self.status == DONE:
            return f"{self.name}: {self.numbers['volume']}, {self.numbers['seconds']:.1f} s"
        return f"{self.name or 'input'}: {self.status}: {self.reason}"


@dataclass(frozen=True)
class Settings:
    """What all results in a folder share."""

    model: str
    digest: str
    """of its weights"""
    anonymous: bool
    force: bool

    def find_difference(self, former: "Settings") -> str:
        """How what is in the folder was made; empty where it was made in the same way."""
        if self.digest != former.digest:
            return f"by another model ({former.model})"
        for key in ("anonymous", "force"):
            if getattr(self, key) != getattr(former, key):
                return f"with{'' if getattr(former, key) else 'out'} --{key}"
        return ""


def digest_model(model: Model) -> str:
    """Of the weights, and of all else that a mask depends on."""
    digest = hashlib.sha256(f"{model.size} {model.window} {model.threshold}".encode())
    for name, tensor in sorted(model.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


class State:
    """``OUT/.state``: the settings, a file for each scan that has been looked at, and the salt of
    anonymous names."""

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, out / STATE
        self.salt: bytes | None = None

    def claim(self, settings: Settings, salt: bytes) -> None:
        """Begin in an empty folder, or go on in one of the same settings; OutputError otherwise."""
        if (self.folder / SETTINGS).exists():
            self.end()  # of a call that was killed
            self._check(settings)
            return
        foreign = [name for name in os.listdir(self.out) if not name.startswith(".")]
        if foreign:
            raise OutputError(
                f"{self.out} holds other files ({sorted(foreign)[0]}); choose another --out."
            )
        with report_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
        content = asdict(settings) | {"salt": salt.hex()}
        write_whole(self.folder / SETTINGS, json.dumps(content, indent=1).encode())
        self.salt = salt or None

    def begin(self, names: Iterable[str]) -> None:
        """Of several processes the first, before the others, which wait for it: what failed in a
        former call is to come again, and must not be taken for what has become of it now."""
        for name in names:
            if any(outcome.status == FAILED for outcome in self.read(name)):
                self._place(name).unlink(missing_ok=True)
        write_whole(self.folder / BEGUN, b"", lasting=False)

    def end(self) -> None:
        (self.folder / BEGUN).unlink(missing_ok=True)

    def wait_for_claim(self, settings: Settings, timeout: float) -> None:
        """Until the first of several processes has begun."""
        began = time.monotonic()
        while not ((self.folder / SETTINGS).exists() and (self.folder / BEGUN).exists()):
            if time.monotonic() - began > timeout:
                raise OutputError(
                    f"{self.out} has not been begun for {timeout:g} s; is rank 0 running, and is "
                    "the folder the same on all machines?"
                )
            time.sleep(POLL)
        self._check(settings)

    def _check(self, settings: Settings) -> None:
        path = self.folder / SETTINGS
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            salt = bytes.fromhex(content.pop("salt"))
            former = Settings(**content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise OutputError(f"{path} cannot be read ({error}); choose another --out.") from error
        if how := settings.find_difference(former):
            raise OutputError(f"{self.out} holds results made {how}; choose another --out.")
        self.salt = salt or None

    def keep(self, task: Task, outcomes: list[Outcome]) -> list[Outcome]:
        """Write what has become of a task, and return it. Folders of a former time that have no
        series any more go."""
        item = task.item
        for former in self.read(task.name):
            if former.name not in {outcome.name for outcome in outcomes}:
                shutil.rmtree(self.out / former.name, ignore_errors=True)
        files: list[str] = []
        if not item.unit.files:  # which the listing does not tell
            files = list(dict.fromkeys(name for outcome in outcomes for name in outcome.files))
        kept = [
            {key: value for key, value in asdict(o).items() if key != "files"} for o in outcomes
        ]
        content = {"digest": self._digest(item, files), "files": files, "outcomes": kept}
        write_whole(self._place(task.name), json.dumps(content).encode(), lasting=False)
        return outcomes

    @staticmethod
    def _digest(item: Item, files: Sequence[str]) -> str:
        """Of the item's files as they were listed, or else of these as they are; empty where they
        are gone, to be done again if they come back."""
        if item.unit.files:
            return item.digest
        try:
            return digest_files(item.root, files)
        except DataError:
            return ""

    def exists(self, name: str) -> bool:
        return self._place(name).exists()

    def is_done(self, name: str, item: Item) -> bool:
        """Whether it was segmented or left out from the files that are there now. What failed is
        tried again, since its reason may be gone."""
        content = self._load(name)
        outcomes = self._parse(content)
        if not outcomes or any(outcome.status == FAILED for outcome in outcomes):
            return False
        if any(o.status == DONE and not (self.out / o.name).is_dir() for o in outcomes):
            return False
        return bool(content["digest"] and content["digest"] == self._digest(item, content["files"]))

    def read(self, name: str) -> list[Outcome]:
        return self._parse(self._load(name))

    def _place(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _load(self, name: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self._place(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not there; never half written
            return {}
        return content

    @staticmethod
    def _parse(content: dict[str, Any]) -> list[Outcome]:
        return [Outcome(**one) for one in content.get("outcomes", ())]
