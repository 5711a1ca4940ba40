"""Several processes that ask for one phantom at once, and workers whose parent is killed."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ichfast.data.phantom import write_phantom
from ichfast.errors import OutputError
from ichfast.files import lock

SMALL = {"patients": 3, "unlabelled_patients": 2, "size": 64, "slices": 3, "seed": 5}
DRAW = f"""
from pathlib import Path
import sys
from ichfast.data.phantom import write_phantom
if __name__ == "__main__":
    write_phantom(Path(sys.argv[1]), **{SMALL}, workers=int(sys.argv[2]), progress=False)
"""


def start(script: Path, out: Path, workers: int) -> subprocess.Popen[str]:
    script.write_text(DRAW)
    return subprocess.Popen(
        [sys.executable, str(script), str(out), str(workers)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_three_started_together_end_with_one_phantom(tmp_path: Path) -> None:
    children = [start(tmp_path / "draw.py", tmp_path / "runs" / "phantom", 1) for _ in range(3)]
    errors = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0], errors
    write_phantom(tmp_path / "alone", **SMALL, workers=1, progress=False)
    ours, theirs = contents(tmp_path / "runs" / "phantom"), contents(tmp_path / "alone")
    del ours[".lock"], theirs[".lock"]
    assert ours == theirs


def test_who_waits_says_for_whom(tmp_path: Path) -> None:
    (tmp_path / "phantom").mkdir()
    with lock(tmp_path / "phantom" / ".lock"):
        child = start(tmp_path / "draw.py", tmp_path / "phantom", 1)
        assert child.stderr is not None
        assert "which draws the phantom" in child.stderr.readline()
        assert child.poll() is None
    assert child.wait(60) == 0
    assert (tmp_path / "phantom" / "phantom.json").exists()


def test_a_finished_phantom_is_read_without_a_lock(tmp_path: Path) -> None:
    write_phantom(tmp_path, **SMALL, workers=1, progress=False)
    with lock(tmp_path / ".lock"):
        write_phantom(tmp_path, **SMALL, workers=1)
        with pytest.raises(OutputError, match="other parameters"):
            write_phantom(tmp_path, **{**SMALL, "seed": 6}, workers=1)


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = start(tmp_path / "draw.py", tmp_path / "phantom", 2)
    wait_for(lambda: list(tmp_path.glob("phantom/labelled/ct_scans/*.nii")))
    assert len(list_group(parent.pid)) > 2
    parent.kill()
    parent.communicate()
    wait_for(lambda: not list_group(parent.pid))


def list_group(group: int) -> list[str]:
    """Processes of the group, without those that are dead but not buried."""
    states = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            states.append(path.read_text().rpartition(")")[2].split())
    return [state for state, _, own, *_ in states if own == str(group) and state not in "ZX"]


def wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
