"""What a result depends on: machine, versions, commit. No names of hosts, users or folders."""

import os
import platform
import re
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import cuda

import ichfast


def count_physical_cores() -> int:
    """Cores that this process may use, hyper-threads counted once."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    count = len(usable) if usable else os.cpu_count() or 1
    cores = {
        (block.get("physical id"), block.get("core id"))
        for block in _read_processors()
        if "core id" in block and (usable is None or int(block["processor"]) in usable)
    }
    return len(cores) or count


def describe_machine(threads: int) -> dict[str, Any]:
    return {
        "cpu": _read_cpu_model(),
        "cores": count_physical_cores(),
        "threads": threads,
        "memory_gib": _measure_memory_gib(),
        "os": _name_system(),
        "transparent_huge_pages": _read_huge_pages(),
        "load_average_before": [round(load, 2) for load in os.getloadavg()],
    }


def describe_gpu() -> dict[str, Any]:
    """The current CUDA device."""
    device = cuda.get_device_properties(cuda.current_device())
    return {
        "name": device.name,
        "compute_capability": f"{device.major}.{device.minor}",
        "multiprocessors": device.multi_processor_count,
        "l2_mib": round(device.L2_cache_size / 2**20),
        "memory_gib": round(device.total_memory / 2**30),
        "driver": _read_driver(),
    }


def describe_versions(kind: str) -> dict[str, str | None]:
    """``kind``: of the device, "cpu" or "cuda"."""
    build = ichfast.build_info()
    of_gpu: dict[str, str | None] = {}
    if kind == "cuda":
        of_gpu["cuda"] = torch.version.cuda
        of_gpu |= {name: _read_version(name) for name in ("triton", "cupy", "monai")}
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "ichfast": build["version"],
        "compiler": build["compiler"],
        "simd": build["simd"],
        **of_gpu,
    }


def describe_commit() -> dict[str, Any]:
    """The checkout's commit, and whether files that git tracks differ from it."""
    try:
        status = _run_git("status", "--porcelain", "--untracked-files=no")
        return {"hash": _run_git("rev-parse", "HEAD"), "dirty": bool(status)}
    except (OSError, subprocess.CalledProcessError):
        return {"hash": None, "dirty": None}


def make_slug(kind: str) -> str:
    """A file name: "amd-epyc-7742-2-cores", "nvidia-h100-80gb-hbm3"."""
    if kind == "cuda":
        name = describe_gpu()["name"].lower()
    else:
        model = re.sub(r"\((r|tm)\)|\bcpu\b|@.*", " ", _read_cpu_model().lower())
        name = f"{model} {count_physical_cores()} cores"
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def _read_processors() -> list[dict[str, str]]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    blocks = []
    for block in text.strip().split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        blocks.append({key.strip(): value.strip() for key, _, value in pairs})
    return blocks


def _read_cpu_model() -> str:
    for block in _read_processors():
        if "model name" in block:
            return block["model name"]
    return platform.processor() or platform.machine()


def _measure_memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def _name_system() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = f"{platform.system()} {platform.release()}"
    return f"{name}, {platform.machine()}"


def _read_huge_pages() -> str | None:
    """Decides what the first touch of a fresh tensor costs."""
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return None
    chosen = re.search(r"\[(\w+)\]", text)
    return chosen[1] if chosen else None


def _read_driver() -> str | None:
    """Of the first GPU; all of a machine have the same."""
    query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    try:
        done = subprocess.run(query, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.partition("\n")[0].strip() or None


def _read_version(package: str) -> str | None:
    try:
        version: str = import_module(package).__version__
    except ImportError:
        return None
    return version


def _run_git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=Path(__file__).parent,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()
