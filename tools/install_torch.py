"""Installs torch and what else is named, and says first where pip is about to fetch gigabytes.

    python tools/install_torch.py 'torch>=2.11' ninja

On Linux, PyPI's torch comes with CUDA's libraries, of no use on a machine without a GPU.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

ADVICE = """\
torch {version} comes with CUDA's libraries here, several gigabytes, and this machine has no NVIDIA
GPU. Its CPU build is 0.2 GB: stop with Ctrl-C, and start again with PIP_EXTRA_INDEX_URL=ADDRESS in
front, the index that pytorch.org/get-started/locally names for pip and the platform CPU."""


def main(requirements: Sequence[str]) -> int:
    if not has_gpu() and (version := cuda_torch(resolve(requirements))):
        print(ADVICE.format(version=version), flush=True)
    return pip(*requirements).returncode


def pip(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    return subprocess.run([*command, *arguments], text=True, check=False, **options)


def has_gpu() -> bool:
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return "GPU 0:" in listed.stdout


def resolve(requirements: Sequence[str]) -> dict[str, str]:
    """Name and version of what pip would fetch; nothing where it cannot say."""
    done = pip("--dry-run", "--report", "-", *requirements, capture_output=True)
    if done.returncode != 0:  # the install itself says why
        return {}
    chosen = [item["metadata"] for item in json.loads(done.stdout)["install"]]
    return {item["name"]: item["version"] for item in chosen}


def cuda_torch(chosen: dict[str, str]) -> str | None:
    """The version of torch that brings CUDA's libraries with it."""
    return chosen.get("torch") if any(name.startswith("nvidia-") for name in chosen) else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
