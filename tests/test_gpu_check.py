"""tools/gpu_check.py as far as it goes without a GPU: its refusals, and its steps."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "tools" / "gpu_check.py"


@pytest.fixture
def gpu_check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check", module)  # for its dataclasses
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with three GPUs."""
    monkeypatch.setenv("ICHFAST_CUDA", "0")  # which the check knows better, here and now
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    capabilities = [(9, 0), (8, 0), (9, 0)]
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda i: SimpleNamespace(
            name=f"GPU {i}", major=capabilities[i][0], minor=capabilities[i][1]
        ),
    )


def nvcc(folder: Path, version: str) -> None:
    (folder / "bin").mkdir()
    (folder / "bin" / "nvcc").write_text(f"#!/bin/sh\necho release {version}, V{version}.1\n")
    (folder / "bin" / "nvcc").chmod(0o755)


def test_no_gpu_is_one_sentence() -> None:
    """With the torch that is here, CUDA or not, and no GPU in sight."""
    result = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith(f"gpu-check: torch {torch.__version__}")
    assert ("finds no GPU" if torch.version.cuda else "built without CUDA") in sentence


def test_what_is_missing(
    gpu_check: ModuleType, gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))

    def sentence() -> str:
        assert gpu_check.main([]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return str(line)

    assert f"no nvcc was found in {tmp_path}/bin" in sentence()
    nvcc(tmp_path, "12.8")
    assert "is 12.8 and torch" in sentence()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "finds no GPU" in sentence()
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in sentence()
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "cannot import torch" in sentence()


def test_builds_for_the_gpus_there_are(
    gpu_check: ModuleType, gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvcc(tmp_path, "13.1")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.5")
    machine = gpu_check.find_machine()
    environment = machine.environment()
    assert environment["TORCH_CUDA_ARCH_LIST"] == "8.0 9.0"
    assert environment["ICHFAST_CUDA"] == "1"
    assert environment["CUDA_HOME"] == str(tmp_path)
    assert "GPU 0, GPU 1, GPU 2; torch" in machine.name
    assert "toolkit 13.1" in machine.name


def test_steps_go_on_and_are_summed_up(gpu_check: ModuleType, tmp_path: Path, capfd: Any) -> None:
    def python(code: str) -> list[str]:
        return [sys.executable, "-c", code]

    steps = [
        gpu_check.Step("good", [python("print('one')"), python("print('two')")]),
        gpu_check.Step("bad", [python("print('before'); 1 / 0"), python("print('after')")]),
        gpu_check.Step("missing", [["no-such-program", "--tool"]]),
        gpu_check.Step("last", [python("import os; print(os.getcwd(), os.environ['KEY'])")]),
    ]
    environment = {**os.environ, "KEY": "value"}
    out = tmp_path / "logs"
    assert gpu_check.run_all(steps, environment, out) == 1
    screen = capfd.readouterr().out
    assert [line.split()[:2] for line in screen.splitlines()[-4:]] == [
        ["good", "passed"],
        ["bad", "FAILED"],
        ["missing", "not"],
        ["last", "passed"],
    ]
    assert "not run: no no-such-program" in screen
    log = (out / "gpu-check.log").read_text()
    assert log.index("one") < log.index("two") < log.index("== bad")
    assert "ZeroDivisionError" in log
    assert "exit status 1" in log
    assert "after" in log.splitlines()
    assert f"{SCRIPT.parents[1]} value" in log
    assert (out / "summary.txt").read_text() in screen
    assert gpu_check.run_all([steps[0], steps[2]], environment, out) == 0


def test_a_step_that_hangs_is_stopped_with_what_it_started(
    gpu_check: ModuleType, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    child = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    steps = [
        gpu_check.Step("hangs", [[sys.executable, "-c", code]], seconds=2),
        gpu_check.Step("next", [[sys.executable, "-c", "print('there')"]]),
    ]
    assert gpu_check.run_all(steps, dict(os.environ), tmp_path, 60) == 1
    summary = (tmp_path / "summary.txt").read_text()
    assert [line.split()[:2] for line in summary.splitlines()] == [
        ["hangs", "timed"],
        ["next", "passed"],
    ]
    if pid.exists():  # a slow machine may not have got so far
        state = Path("/proc", pid.read_text(), "stat")
        assert not state.exists() or ") Z " in state.read_text()  # ended, if nobody has noticed yet
    assert gpu_check.run_all(steps, dict(os.environ), tmp_path, 0.5) == 0
    assert "not run: no time left" in (tmp_path / "summary.txt").read_text()


def test_what_is_known_is_on_the_disk_after_every_step(
    gpu_check: ModuleType, tmp_path: Path
) -> None:
    look = f"print(open({str(tmp_path / 'summary.txt')!r}).read())"
    steps = [
        gpu_check.Step("first", [[sys.executable, "-c", "print('one')"]]),
        gpu_check.Step("second", [[sys.executable, "-c", look]]),
        gpu_check.Step("third", [["true"]], needs=("no_such_package",)),
    ]
    gpu_check.run_all(steps, dict(os.environ), tmp_path)
    log = (tmp_path / "gpu-check.log").read_text()
    assert "first         passed" in log
    assert "not run: no no_such_package" in (tmp_path / "summary.txt").read_text()


def test_a_call_fits_its_five_minutes(gpu_check: ModuleType, capsys: Any) -> None:
    """And its files fit what a lent machine hands back: few, and all in one folder or the next."""
    assert gpu_check.CALL_SECONDS < 300
    steps = {step.name: step for step in gpu_check.all_steps(Path("/out"))}
    for call, names in gpu_check.CALLS.items():
        assert gpu_check.main(["--call", call, "--dry-run"]) == 0
        plan = capsys.readouterr().out
        assert "all of it: at most 4.8 min" in plan
        assert all(name in plan for name in names)
        assert names[0] == "build"
        assert all(steps[name].seconds <= 200 for name in names[:-1])
    assert set(gpu_check.WHOLE) <= steps.keys()


def test_steps_are_chosen(
    gpu_check: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    ran: list[str] = []
    machine = gpu_check.Machine("GPU", "9.0", Path("/toolkit"))
    monkeypatch.setattr(gpu_check, "find_machine", lambda: machine)
    monkeypatch.setattr(
        gpu_check, "run_all", lambda steps, *_: ran.extend(step.name for step in steps) or 0
    )
    assert gpu_check.main(["--steps", "tests,memcheck"]) == 0  # without a limit for all
    assert ran == ["tests", "memcheck"]
    ran.clear()
    assert gpu_check.main([]) == 0
    assert ran[0] == "build"
    assert {"tests", "large", "kernels", "all-racecheck", "benchmarks"} < set(ran)
    with pytest.raises(SystemExit) as error:
        gpu_check.main(["--steps", "tests,biuld"])
    assert error.value.code == 2
    assert "no step 'biuld'" in capsys.readouterr().err
