"""What the Makefile's targets are made of: stages with their seconds, and torch with its size."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TOOLS = Path(__file__).parents[1] / "tools"


def stage(*command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(TOOLS / "stage"), "build", "usually 1 s", "sh", "-c", *command],
        env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_stage_says_what_it_does_and_how_long_it_took() -> None:
    result = stage("echo done")
    assert result.returncode == 0
    start, done, end = result.stdout.splitlines()
    assert (start, done) == ("[build] usually 1 s", "done")
    assert end in ("[build] took 0 s", "[build] took 1 s")


def test_a_stage_that_fails_ends_the_job() -> None:
    result = stage("exit 3")
    assert result.returncode == 3
    assert "took" not in result.stdout


def test_a_stage_with_a_log_shows_what_matters(tmp_path: Path) -> None:
    log = tmp_path / "log"
    shown = "ichfast builds CPU kernels only, since."
    result = stage(f"echo noise; echo '  {shown}'; echo '  {shown}' >&2", LOG=str(log))
    assert result.returncode == 0
    assert result.stdout.splitlines()[1:-1] == [shown]
    assert log.read_text().count(shown) == 2
    result = stage("echo cause; exit 4", LOG=str(log))
    assert result.returncode == 4
    assert result.stdout.splitlines()[1:] == ["cause"]
    result = stage("echo noise; echo ' ichfast: no compiler.'; exit 1", LOG=str(log))
    assert result.returncode == 1
    assert result.stdout.splitlines()[1:] == ["ichfast: no compiler."]


def test_another_python_is_found(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def find() -> str:
        return subprocess.run(
            [str(TOOLS / "other_python"), sys.executable],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYENV_ROOT": str(tmp_path / "pyenv")},
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip

    write("python3.12", f'exec {sys.executable} "$@"')  # of the same version
    for name in ("python3.13", "python3.14", "python3.11"):
        write(name, "echo no such version >&2; exit 127")
    assert find() == ""
    write("pyenv/versions/3.13.0/bin/python3", "exit 0")
    assert find() == str(tmp_path / "pyenv/versions/3.13.0/bin/python3")
    write("python3.14", "exit 0")
    assert find() == "python3.14"


@pytest.fixture
def install_torch() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install_torch", TOOLS / "install_torch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("packages", "gpu", "warned"),
    [
        (["torch", "nvidia-cublas"], False, True),
        (["torch", "nvidia-cublas"], True, False),
        (["torch", "numpy"], False, False),
        ([], False, False),  # all of it is there
    ],
)
def test_gigabytes_are_announced_before_they_are_fetched(
    packages: list[str],
    gpu: bool,
    warned: bool,
    install_torch: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
) -> None:
    chosen = [{"metadata": {"name": name, "version": "2.99"}} for name in packages]
    (tmp_path / "report").write_text(json.dumps({"install": chosen}))
    python = tmp_path / "python"  # `python -m pip` as far as it is asked
    python.write_text(
        '#!/bin/sh\ncase "$*" in *--dry-run*)'
        f' cat {tmp_path}/report; exit ;; esac\necho "$@"\nexit 5\n'
    )
    python.chmod(0o755)
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\necho {'GPU 0: H100' if gpu else 'No devices were found'}\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(install_torch.sys, "executable", str(python))
    assert install_torch.main(["torch", "ninja"]) == 5  # pip's own
    *announced, installed = capfd.readouterr().out.splitlines()
    assert installed.endswith("install torch ninja")
    assert bool(announced) is warned
    if warned:
        assert announced[0].startswith("torch 2.99 comes with CUDA's libraries")
        assert "PIP_EXTRA_INDEX_URL=ADDRESS" in announced[1]
        assert "pytorch.org/get-started/locally" in announced[2]
