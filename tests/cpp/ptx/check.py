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


@dataclass(frozen=True)
class Setting:
    """Of the machine (machine.cpp), and what is run under it beside the tests of the ops."""

    environment: dict[str, str]
    tests: tuple[str, ...] = ()


OPS = sorted(f"tests/ops/test_{path.stem}.py" for path in ROOT.glob("csrc/cuda/*.cu"))
# Of these, such as ask nothing of a kernel that others do not ask too.
LEFT_OUT = ("compile", "opcheck", "fake_kernel", "peak_memory", "whatever_the_threads")
SETTINGS = {
    "plain": Setting({}, ("tests/losses", "tests/test_residence.py")),
    "hazards": Setting({"PTX_ORDER": "reversed", "PTX_HAZARDS": "1"}),
    "perturbed": Setting({"PTX_APPROXIMATIONS": "mixed"}),
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
    command = [
        sys.executable,
        HERE / "build.py",
        ROOT / "build" / "ptx-run",
        *find_sources(arguments),
    ]
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
        source = ROOT / "csrc" / "cuda" / f"{test[1]}.cu" if test else None
        if source is None or not source.exists():
            return []
        sources.append(source)
    return sources


def is_test(argument: str) -> bool:
    return (ROOT / argument.partition("::")[0]).exists()


def describe(setting: Setting) -> str:
    return " ".join(f"{k}={v}" for k, v in setting.environment.items()) or "as it is"


def run(setting: Setting, library: str, arguments: list[str]) -> bool:
    """Whether a test failed."""
    path = [str(HERE), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        **setting.environment,
        "PTX_LIBRARY": library,
        "PYTHONPATH": os.pathsep.join(path),
        "OMP_NUM_THREADS": "1",
    }
    tests = ["tests/cpp/ptx", *OPS, *setting.tests, "-k", f"not ({' or '.join(LEFT_OUT)})"]
    pytest = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal"]
    chosen = [] if any(map(is_test, arguments)) else tests
    command = [*pytest, "-p", "plug", *arguments, *chosen]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode != 0


if __name__ == "__main__":
    main()
