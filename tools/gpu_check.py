"""Everything that a GPU can show, in one go: `make gpu-check`; some of it: STEPS=build,tests.

Runs with the Python it is started with and with what is installed there; it installs nothing and
needs no network. Each step prints to the screen and to build/gpu-check/<step>.log.
"""

import argparse
import os
import runpy
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "build" / "gpu-check"


class CannotRun(Exception):
    """This is no machine for the check; says in one sentence what is missing."""


@dataclass(frozen=True)
class Machine:
    """What there is to build for and to run on."""

    name: str
    architectures: str  # as in TORCH_CUDA_ARCH_LIST
    toolkit: Path

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(self.toolkit / "bin")])
        return {
            **os.environ,
            "CUDA_HOME": str(self.toolkit),
            "ICHFAST_CUDA": "1",
            "PATH": path,
            "PYTHONUNBUFFERED": "1",
            "TORCH_CUDA_ARCH_LIST": self.architectures,
        }


@dataclass(frozen=True)
class Step:
    """Commands, each run whatever became of those before it."""

    name: str
    commands: Sequence[Sequence[str]]


def find_machine() -> Machine:
    try:
        import torch
    except ImportError as error:
        raise CannotRun(
            f"{sys.executable} cannot import torch ({error}); name a Python that has a CUDA build "
            "of it: PYTHON=/path/to/python3 make gpu-check"
        ) from error
    if torch.version.cuda is None:
        raise CannotRun(
            f"torch {torch.__version__} of {sys.executable} is built without CUDA; name a Python "
            "that has a CUDA build of torch: PYTHON=/path/to/python3 make gpu-check"
        )
    with warnings.catch_warnings():  # of a missing driver; the sentence below covers it
        warnings.simplefilter("ignore")
        found = torch.cuda.is_available()
    if not found:
        raise CannotRun(
            f"torch {torch.__version__} finds no GPU that it can use; `nvidia-smi` must list one, "
            f"with a driver for CUDA {torch.version.cuda}"
        )
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    gpus = " ".join(sorted({f"{device.major}.{device.minor}" for device in devices}))
    os.environ["ICHFAST_CUDA"] = "1"
    try:
        choose = runpy.run_path(str(ROOT / "setup.py"))["choose_toolkit"]
        toolkit, release = choose(torch.__version__, torch.version.cuda, gpus)
    except SystemExit as refusal:
        raise CannotRun(str(refusal)) from refusal
    return Machine(
        name=f"{', '.join(device.name for device in devices)}; torch {torch.__version__}, "
        f"toolkit {release}, Python {sys.version.split()[0]}",
        architectures=gpus,
        toolkit=toolkit,
    )


def all_steps() -> list[Step]:
    python = sys.executable
    pytest = [python, "-m", "pytest", "tests/ops", "--durations=10", "-m"]
    ops = sorted(path.stem for path in (ROOT / "tests/cpp/ops").glob("test_*.cpp"))

    def sanitizer(tool: str) -> Step:
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "1"]
        return Step(tool, [[*command, f"build/gpu/{op}"] for op in ops])

    return [
        Step("build", [[python, "setup.py", "build_ext", "--inplace"]]),
        Step("tests", [[*pytest, "gpu and not large"]]),
        Step("large", [[*pytest, "gpu and large"]]),
        Step(
            "kernels",
            [
                ["cmake", "-S", ".", "-B", "build/gpu", "-DICHFAST_GPU=ON"],
                ["cmake", "--build", "build/gpu", "--parallel"],
                ["ctest", "--test-dir", "build/gpu", "-L", "gpu", "-V", "--no-tests=error"],
            ],
        ),
        *map(sanitizer, ("memcheck", "racecheck", "initcheck", "synccheck")),
        Step("benchmarks", [[python, "-m", "benchmarks", "--device", "cuda"]]),
    ]


def run(step: Step, environment: dict[str, str], log: Path) -> str:
    """The outcome: passed, FAILED, or not run and why."""
    outcome = "passed"
    with log.open("w") as file:

        def show(text: str) -> None:
            sys.stdout.write(text)
            sys.stdout.flush()
            file.write(text)

        for program, *arguments in step.commands:
            found = shutil.which(program, path=environment["PATH"])
            if found is None:
                show(f"no {program} on the PATH or in the toolkit\n")
                return f"not run: no {program}"
            show(f"$ {' '.join([program, *arguments])}\n")
            with subprocess.Popen(
                [found, *arguments],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    show(line)
            if process.returncode != 0:
                show(f"exit status {process.returncode}\n")
                outcome = "FAILED"
    return outcome


def run_all(steps: Sequence[Step], environment: dict[str, str], logs: Path) -> int:
    """Every step, whatever became of those before it, if it is not the build; 1 if one failed."""
    logs.mkdir(parents=True, exist_ok=True)
    summary: list[tuple[str, str, float]] = []
    for step in steps:
        print(f"\n== {step.name}", flush=True)
        start = time.monotonic()
        if ("build", "FAILED") in [(name, outcome) for name, outcome, _ in summary]:
            outcome = "not run: nothing was built"
        else:
            outcome = run(step, environment, logs / f"{step.name}.log")
        summary.append((step.name, outcome, time.monotonic() - start))
    print()
    for name, outcome, seconds in summary:
        print(f"{name:<12}{outcome:<32}{seconds:8.1f} s")
    return int(any(outcome == "FAILED" for _, outcome, _ in summary))


def main(arguments: Sequence[str] | None = None) -> int:
    steps = {step.name: step for step in all_steps()}
    parser = argparse.ArgumentParser(prog="gpu_check", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", help=f"some of {','.join(steps)}; default all")
    chosen = parser.parse_args(arguments).steps
    names = chosen.split(",") if chosen else list(steps)
    if unknown := [name for name in names if name not in steps]:
        parser.error(f"no step {unknown[0]!r}; there are {', '.join(steps)}")
    try:
        machine = find_machine()
    except CannotRun as error:
        print(f"gpu-check: {str(error).removeprefix('ichfast: ').rstrip('.')}.", file=sys.stderr)
        return 2
    print(machine.name)
    return run_all([steps[name] for name in names], machine.environment(), LOGS)


if __name__ == "__main__":
    sys.exit(main())
