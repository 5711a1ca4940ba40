"""What the compiler made of the CUDA kernels, read from its own words.

    python tools/check_kernels.py BUILD_LOG

BUILD_LOG is the output of a build with NVCC_APPEND_FLAGS='-Xptxas=-v'. Fails where a kernel spills
registers or uses local memory on any architecture, and where one that should does not load or store
16 bytes at once. Prints registers and shared memory.
"""

import os
import re
import runpy
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Of these each thread writes several voxels or pixels; the others write sums, one number a thread.
WRITE_VECTORS = ("differentiate", "mask", "whole_ratio")
# These go voxel by voxel, read sums, or gather.
READ_NO_VECTORS = ("finish", "any_ratio", "sample")


def main() -> None:
    kernels = from_log(Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace"))
    if not kernels:
        sys.exit(f"{sys.argv[1]} names no kernel: was it built with NVCC_APPEND_FLAGS=-Xptxas=-v?")
    print(summary(kernels))
    faults = spills(kernels)
    entries = [(name, body) for name, body in ptx_entries() if has_vectors(name)]
    for name, body in entries:
        faults += missing_vectors(name, body)
    print(f"16-byte accesses: looked for in the PTX of {len(entries)} kernels")
    if faults:
        sys.exit("\n".join(faults))
    print("no spills, no local memory, every vector is one")


@dataclass(frozen=True)
class Usage:
    """What one kernel takes on one architecture."""

    name: str
    architecture: str
    stack: int  # bytes a thread in local memory
    spilled: int  # bytes
    registers: int
    shared: int  # bytes


def from_log(log: str) -> list[Usage]:
    pattern = re.compile(
        r"Compiling entry function '(\w+)' for '(sm_\w+)'.*?"
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\s+"
        r"ptxas info\s*: Used (\d+) registers([^\n]*)",
        re.DOTALL,
    )
    kernels = []
    for name, architecture, stack, stores, loads, registers, rest in pattern.findall(log):
        shared = re.search(r"(\d+) bytes smem", rest)
        kernels.append(
            Usage(
                name,
                architecture,
                int(stack),
                int(stores) + int(loads),
                int(registers),
                int(shared[1]) if shared else 0,
            )
        )
    return kernels


def spills(kernels: Sequence[Usage]) -> list[str]:
    return [
        f"{k.name} for {k.architecture}: {k.stack} bytes of stack, {k.spilled} spilled"
        for k in kernels
        if k.stack or k.spilled
    ]


def summary(kernels: Sequence[Usage]) -> str:
    architectures = sorted({k.architecture for k in kernels}, key=lambda a: int(a.strip("sm_af")))
    lines = [
        f"{len(kernels)} kernels for {', '.join(architectures)}",
        f"{'op':16}{'kernel':16}{'variants':>9}{'registers':>12}{'shared, B':>11}",
    ]
    groups: dict[tuple[str, str], list[Usage]] = defaultdict(list)
    for kernel in kernels:
        groups[short(kernel.name)].append(kernel)
    for (op, name), group in sorted(groups.items()):
        registers = [kernel.registers for kernel in group]
        span = f"{min(registers)}-{max(registers)}"
        shared = max(kernel.shared for kernel in group)
        lines.append(f"{op:16}{name:16}{len(group):>9}{span:>12}{shared:>11}")
    return "\n".join(lines)


def has_vectors(name: str) -> bool:
    """Not those that go voxel by voxel, nor those that read sums."""
    # The arguments of the template end with the threads of a block.
    return short(name)[1] not in READ_NO_VECTORS and "5OneOf" not in name.split("Li256E")[0]


def missing_vectors(name: str, ptx: str) -> list[str]:
    faults = []
    # Without a sigmoid the gradient of tversky reads the target alone, which may be bytes.
    reads_target_only = "7tversky13differentiateILb0E" in name
    if "ld.global.nc.v4" not in ptx and not reads_target_only:
        faults.append(f"{name}: no load of 16 bytes in the PTX")
    if "st.global.v4" not in ptx and short(name)[1] in WRITE_VECTORS:
        faults.append(f"{name}: no store of 16 bytes in the PTX")
    return faults


def short(name: str) -> tuple[str, str]:
    """Op and kernel of a mangled name: _ZN7ichfast7tversky6finishI... → tversky, finish."""
    parts: list[str] = []
    at = len("_ZN")
    while len(parts) < 3 and (length := re.match(r"\d+", name[at:])):
        at += len(length[0])
        parts.append(name[at : at + int(length[0])])
        at += int(length[0])
    if len(parts) != 3:
        raise ValueError(f"not the name of a kernel of ichfast: {name}")
    return parts[1], parts[2]


def ptx_entries() -> list[tuple[str, str]]:
    """Each kernel's name and PTX."""
    toolkit, _ = runpy.run_path(str(ROOT / "setup.py"))["find_toolkit"]()
    os.environ["CUDA_HOME"] = str(toolkit)  # else torch guesses, and says so
    from torch.utils.cpp_extension import include_paths

    includes = [flag for path in include_paths() for flag in ("-isystem", path)]
    entries = []
    with tempfile.TemporaryDirectory() as folder:
        for source in sorted((ROOT / "csrc" / "cuda").glob("*.cu")):
            ptx = Path(folder) / f"{source.stem}.ptx"
            flags = ["-std=c++20", "-O3", "-arch=compute_80", "-DUSE_CUDA", *includes]
            flags += [f"-I{ROOT / 'csrc'}", '-DICHFAST_CUDA_ARCHITECTURES="8.0"']
            nvcc = toolkit / "bin" / "nvcc"
            subprocess.run([nvcc, "-ptx", *flags, source, "-o", ptx], check=True)
            text = ptx.read_text(encoding="utf-8")
            entries += re.findall(r"\.entry (\w+)\(.*?\n\{(.*?)\n\}", text, re.DOTALL)
    return entries


if __name__ == "__main__":
    main()
