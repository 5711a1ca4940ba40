"""What the tests of prepare share."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ichfast.data import Pool
from ichfast.data.prepare import prepare_pool


def make(root: Path, out: Path, **options: Any) -> Pool:
    pool = prepare_pool(root, out, **{"size": 16, "workers": 1, "progress": False, **options})
    assert pool is not None
    return pool


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def start(root: Path, out: Path, *more: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ichfast.prepare", str(root), "--out", str(out), *more],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


class Killed(BaseException):
    """Passes by every handler, as a SIGKILL would."""
