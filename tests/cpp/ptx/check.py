"""The PTX run: the ops' tests on what nvcc makes of the CUDA kernels, run by a CPU.

    python tests/cpp/ptx/check.py [--setting NAME] [pytest's arguments]

Builds into build/ptx-run what has changed, then runs pytest once for each setting: with what the
setting covers, or with the tests that are named. Of tests/ops/test_OP.py alone, only OP is built.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
BUILD = ROOT / "build" / "ptx-run"
OPS = sorted(path.stem for path in ROOT.glob("csrc/cuda/*.cu"))


@dataclass(frozen=True)
class Setting:
    """Of the machine (machine.cpp); and what is run under it, beside the tests of the ops, or left
    out of them by a part of its name."""

    environment: dict[str, str]
    beside: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


# Such as ask nothing of a kernel that others do not ask too: they look at graphs, schemas, threads
# of the CPU, or at how much memory is taken.
NO_KERNEL = (
    "compile", "opcheck", "fake_kernel", "peak_memory", "takes_no_memory", "whatever_the_threads",
)  # fmt: skip
# What a setting changes nothing of: refusals before a kernel starts; and derivatives in float64,
# which no approximation is used for, by launches that other tests make too.
THE_SAME = ("refuse", "bad_arguments", "gradcheck", "transform")
SETTINGS = {
    "plain": Setting({}, ("tests/losses", "tests/test_residence.py"), NO_KERNEL),
    "hazards": Setting({"PTX_ORDER": "reversed", "PTX_HAZARDS": "1"}, (), NO_KERNEL + THE_SAME),
    "perturbed": Setting({"PTX_APPROXIMATIONS": "mixed"}, (), NO_KERNEL + THE_SAME),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--setting", choices=SETTINGS, help="one of them; default all")
    options, arguments = parser.parse_known_args()
    library = build(arguments)
    failed = False
    for name in [options.setting] if options.setting else SETTINGS:
        print(f"[ptx-{name}] {describe(SETTINGS[name])}", flush=True)
        start = time.monotonic()
        failed |= run(SETTINGS[name], library, arguments)
        print(f"[ptx-{name}] took {time.monotonic() - start:.0f} s", flush=True)
    sys.exit(failed)


def build(arguments: list[str]) -> str:
    start = time.monotonic()
    command = [sys.executable, HERE / "build.py", BUILD, *find_sources(arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        sys.exit(result.returncode)
    print(f"[ptx-build] took {time.monotonic() - start:.0f} s", flush=True)
    return result.stdout.strip()


def find_sources(arguments: list[str]) -> list[Path]:
    """Of the ops whose tests are named; none where others are named too, or nothing."""
    sources = []
    for name in filter(is_test, arguments):
        test = re.match(r"tests/ops/test_(\w+)\.py", name)
        if test is None or test[1] not in OPS:
            return []
        sources.append(ROOT / "csrc" / "cuda" / f"{test[1]}.cu")
    return sources


def is_test(argument: str) -> bool:
    return (ROOT / argument.partition("::")[0]).exists()


def describe(setting: Setting) -> str:
    return " ".join(f"{k}={v}" for k, v in setting.environment.items()) or "as it is"


def find_tests(setting: Setting) -> list[str]:
    """Approximations are perturbed where an op uses them; else all would be as it was."""
    ops = OPS
    if "PTX_APPROXIMATIONS" in setting.environment:
        ops = [op for op in OPS if "approximate_" in (BUILD / op / f"{op}.ptx.cpp").read_text()]
    tests = ["tests/cpp/ptx", *(f"tests/ops/test_{op}.py" for op in ops), *setting.beside]
    return [*tests, "-k", f"not ({' or '.join(setting.left_out)})"]


def run(setting: Setting, library: str, arguments: list[str]) -> bool:
    """Whether a test failed."""
    path = [str(HERE), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        **setting.environment,
        "PTX_LIBRARY": library,
        "PYTHONPATH": os.pathsep.join(path),
        "OMP_NUM_THREADS": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # that kernels are replaced is no news
    }
    chosen = [] if any(map(is_test, arguments)) else find_tests(setting)
    pytest = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal"]
    command = [*pytest, "-p", "plug", *arguments, *chosen]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode != 0


if __name__ == "__main__":
    main()
