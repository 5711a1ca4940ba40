"""Everything that a GPU can show: `make gpu-check`; some of it: CALL=kernels, STEPS=build,tests.

Where a GPU is lent by the minute, three calls of at most five minutes each show what matters most:
CALL=kernels, then CALL=programs, then CALL=table. Each step has a limit, and a call ends in time
whatever hangs. What is known is on the disk after every step, in the folder that OUT names or
else in build/gpu-check: gpu-check.log, summary.txt and the benchmarks' tables.

Runs with the Python it is started with and with what is installed there; it installs nothing and
needs no network. A step whose packages are missing is not run, and says so.
"""

import argparse
import importlib.util
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Timer
from typing import TextIO

ROOT = Path(__file__).resolve().parents[1]
CALL_SECONDS = 290.0
"""of a call: five minutes with the start of Python and torch"""


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
    seconds: float = 3600
    """limit for all of them"""
    needs: Sequence[str] = ()
    """Python packages without which it is not run"""


CALLS = {
    "kernels": ("build", "tests", "copy"),
    "programs": ("build", "update", "others", "training", "counters", "memcheck", "racecheck"),
    "table": ("build", "benchmarks"),
}
WHOLE = (
    "build", "tests", "large", "kernels", "others", "training", "counters",
    "all-memcheck", "all-racecheck", "all-initcheck", "all-synccheck", "update", "benchmarks",
)  # fmt: skip
"""where nobody counts the minutes"""


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


COUNTED = (
    "tversky", "tversky_bce", "attention_wmse", "attention_mask", "overlap_counts", "ct_window",
    "pool_batch", "strong_view",
)  # fmt: skip
COUNTERS = (
    "gpu__time_duration.sum", "dram__bytes_read.sum", "dram__bytes_write.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed", "smsp__inst_executed.sum",
    "sm__inst_issued.avg.pct_of_peak_sustained_active", "launch__registers_per_thread",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
)  # fmt: skip
# The clocks stay as they are: the GPU may be shared.
PROFILE = (
    "ncu", "--clock-control", "none", "--kernel-name-base", "demangled", "--kernel-name",
    "regex:ichfast", "--csv", "--metrics", ",".join(COUNTERS),
)  # fmt: skip
SHORT = (
    "--out", "build/gpu-check/run", "--set", "training.epochs=5", "--set", "phantom.patients=8",
)  # fmt: skip
OTHER_TESTS = ("tests/training/test_compute.py", "tests/test_residence.py")
SANITIZED = ("test_tversky", "test_pool_batch")  # a reduction, and a kernel with shared memory


def all_steps(out: Path) -> list[Step]:
    python = sys.executable
    pytest = [python, "-m", "pytest", "--durations=10", *_share_tests(), "-m"]
    ops = sorted(path.stem for path in (ROOT / "tests/cpp/ops").glob("test_*.cpp"))
    whole = [python, "-m", "benchmarks", "--device", "cuda"]  # into the repository and its README
    measure = [*whole, "--out"]

    def build_tests(*targets: str) -> list[list[str]]:
        build = ["cmake", "--build", "build/gpu", "--parallel"]
        chosen = ["--target", *targets] if targets else []
        return [["cmake", "-S", ".", "-B", "build/gpu", "-DICHFAST_GPU=ON"], [*build, *chosen]]

    def sanitize(tool: str, tests: Sequence[str]) -> list[list[str]]:
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "1"]
        return [[*command, f"build/gpu/{test}"] for test in tests]

    return [
        Step("build", [[python, "setup.py", "build_ext", "--inplace"]], 120),
        Step("tests", [[*pytest, "gpu and not large", "tests/ops"]], 150),
        Step("large", [[*pytest, "gpu and large", "tests/ops"]]),
        Step("copy", [[*measure, str(out / "copy"), "--alone"]], 100),
        Step(
            "update",
            [[*measure, str(out / "update"), "--ops", "train_step"]],
            60,
            ("pydantic", "tomli_w"),
        ),
        Step(
            "others",
            [
                [
                    *pytest,
                    "gpu and not large",
                    "tests/training/test_compute.py",
                    "tests/test_residence.py",
                ]
            ],
            60,
            ("pydantic", "tomli_w"),
        ),
        Step(
            "training",
            [[python, "-m", "ichfast.train", "--device", "cuda", *SHORT]],
            60,
            ("pydantic", "pydicom", "nibabel", "tomli_w"),
        ),
        Step(
            "counters",
            [[*PROFILE, python, "-m", "benchmarks.launch", *COUNTED]],
            90,
        ),
        Step("memcheck", [*build_tests(*SANITIZED), *sanitize("memcheck", SANITIZED)], 60),
        Step("racecheck", [*build_tests(*SANITIZED), *sanitize("racecheck", SANITIZED)], 60),
        Step(
            "kernels",
            [
                *build_tests(),
                ["ctest", "--test-dir", "build/gpu", "-L", "gpu", "-V", "--no-tests=error"],
            ],
        ),
        *(
            Step(f"all-{tool}", [*build_tests(), *sanitize(tool, ops)])
            for tool in ("memcheck", "racecheck", "initcheck", "synccheck")
        ),
        # Into the repository and its README, unless OUT says where.
        Step(
            "benchmarks", [[*measure, str(out / "table")] if "OUT" in os.environ else measure[:-1]]
        ),
    ]


def _share_tests() -> list[str]:
    """Over eight processes, where pytest-xdist is there: most of their time is not the GPU's."""
    return ["-n", "8"] if importlib.util.find_spec("xdist") else []


def run(step: Step, environment: dict[str, str], log: TextIO, seconds: float) -> str:
    """The outcome: passed, FAILED, timed out, or not run and why."""

    def show(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
        log.write(text)
        log.flush()

    if missing := [name for name in step.needs if importlib.util.find_spec(name) is None]:
        return f"not run: no {', '.join(missing)}"
    outcome, end = "passed", time.monotonic() + seconds
    for program, *arguments in step.commands:
        found = shutil.which(program, path=environment["PATH"])
        if found is None:
            show(f"no {program} on the PATH or in the toolkit\n")
            return f"not run: no {program}"
        show(f"$ {' '.join([program, *arguments])}\n")
        left = end - time.monotonic()
        status, late = _run_command([found, *arguments], environment, left, show)
        if late:
            show(f"stopped after its limit of {seconds:.0f} s\n")
            return "timed out"
        if status != 0:
            show(f"exit status {status}\n")
            outcome = "FAILED"
    return outcome


def _run_command(
    command: Sequence[str], environment: dict[str, str], seconds: float, show: Callable[[str], None]
) -> tuple[int, bool]:
    """Exit status, and whether it was stopped, with all that it has started, after its time."""
    late = Event()
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:

        def stop() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = Timer(max(seconds, 0.0), stop)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                show(line)
        finally:
            timer.cancel()
    return process.returncode, late.is_set()


def run_all(
    steps: Sequence[Step], environment: dict[str, str], out: Path, seconds: float | None = None
) -> int:
    """Every step, whatever became of those before it, if it is not the build, as long as the
    ``seconds`` of them all last; 1 if one failed."""
    out.mkdir(parents=True, exist_ok=True)
    summary: list[tuple[str, str, float]] = []
    began = time.monotonic()
    with (out / "gpu-check.log").open("a") as log:
        for step in steps:
            start = time.monotonic()
            left = step.seconds if seconds is None else seconds - (start - began)
            heading = f"\n== {step.name}\n"
            print(heading, end="", flush=True)
            log.write(heading)
            if ("build", "FAILED") in [(name, outcome) for name, outcome, _ in summary]:
                outcome = "not run: nothing was built"
            elif left < 1:
                outcome = "not run: no time left"
            else:
                outcome = run(step, environment, log, min(step.seconds, left))
            summary.append((step.name, outcome, time.monotonic() - start))
            table = "".join(f"{name:<14}{what:<32}{took:8.1f} s\n" for name, what, took in summary)
            (out / "summary.txt").write_text(table)
    print(f"\n{table}", end="")
    return int(any(outcome in ("FAILED", "timed out") for _, outcome, _ in summary))


def describe_plan(steps: Sequence[Step], seconds: float | None) -> str:
    """What would be run, and for how long at most."""
    lines = []
    for step in steps:
        limit = f"at most {step.seconds / 60:.1f} min" if step.seconds < 3600 else "no limit"
        lines.append(f"{step.name:<14}{limit}")
        lines += [f"    {' '.join(command)}" for command in step.commands]
        if step.needs:
            lines.append(f"    needs {', '.join(step.needs)}")
    if seconds is not None:
        lines.append(f"all of it: at most {seconds / 60:.1f} min")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    out = Path(os.environ.get("OUT") or ROOT / "build" / "gpu-check")
    steps = {step.name: step for step in all_steps(out)}
    parser = argparse.ArgumentParser(prog="gpu_check", description=(__doc__ or "").split("\n")[0])
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--call", choices=CALLS, help="the steps of one, in five minutes")
    chosen.add_argument("--steps", help=f"some of {','.join(steps)}; default all")
    parser.add_argument("--dry-run", action="store_true", help="print the plan; needs no GPU")
    options = parser.parse_args(arguments)
    names = CALLS[options.call] if options.call else WHOLE
    if options.steps:
        names = options.steps.split(",")
    if unknown := [name for name in names if name not in steps]:
        parser.error(f"no step {unknown[0]!r}; there are {', '.join(steps)}")
    seconds = CALL_SECONDS if options.call else None
    plan = [steps[name] for name in names]
    if options.dry_run:
        print(describe_plan(plan, seconds))
        return 0
    try:
        machine = find_machine()
    except CannotRun as error:
        print(f"gpu-check: {str(error).removeprefix('ichfast: ').rstrip('.')}.", file=sys.stderr)
        return 2
    print(machine.name)
    return run_all(plan, machine.environment(), out, seconds)


if __name__ == "__main__":
    sys.exit(main())
