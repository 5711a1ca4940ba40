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
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Of these each thread writes several voxels or pixels; the others write sums, one number a thread.
WRITE_VECTORS = ("differentiate", "mask", "whole_ratio")
# These go voxel by voxel or read sums.
READ_NO_VECTORS = ("finish", "any_ratio")


def main() -> None:
    kernels = _from_log(Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace"))
    if not kernels:
        sys.exit(f"{sys.argv[1]} names no kernel: was it built with NVCC_APPEND_FLAGS=-Xptxas=-v?")
    faults = []
    table: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    architectures = set()
    for (name, architecture), (stack, spills, registers, shared) in kernels.items():
        architectures.add(architecture)
        table[_short(name)].append((registers, shared))
        if stack or spills:
            faults.append(f"{name} for {architecture}: {stack} bytes of stack, {spills} spilled")
    print(f"{len(kernels)} kernels for {', '.join(sorted(architectures, key=_number))}")
    print(f"{'op':16}{'kernel':16}{'variants':>9}{'registers':>12}{'shared, B':>11}")
    for (op, kernel), values in sorted(table.items()):
        registers = [value[0] for value in values]
        low, high, shared = min(registers), max(registers), max(value[1] for value in values)
        print(f"{op:16}{kernel:16}{len(values):>9}{f'{low}-{high}':>12}{shared:>11}")

    checked = 0
    for name, body in _ptx_entries():
        _, kernel = _short(name)
        # The arguments of the template, which end with the threads of a block.
        if kernel in READ_NO_VECTORS or "5OneOf" in name.split("Li256E")[0]:
            continue
        checked += 1
        # Without a sigmoid the gradient of tversky reads the target alone, which may be bytes.
        reads_target_only = "7tversky13differentiateILb0E" in name
        if "ld.global.nc.v4" not in body and not reads_target_only:
            faults.append(f"{name}: no load of 16 bytes in the PTX")
        if kernel in WRITE_VECTORS and "st.global.v4" not in body:
            faults.append(f"{name}: no store of 16 bytes in the PTX")
    print(f"16-byte accesses: looked for in the PTX of {checked} kernels")
    if faults:
        sys.exit("\n".join(faults))
    print("no spills, no local memory, every vector is one")


def _from_log(log: str) -> dict[tuple[str, str], tuple[int, int, int, int]]:
    """(stack, spilled, registers, shared memory) of each kernel for each architecture."""
    pattern = re.compile(
        r"Compiling entry function '(\w+)' for '(sm_\w+)'.*?"
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\s+"
        r"ptxas info\s*: Used (\d+) registers([^\n]*)",
        re.DOTALL,
    )
    found = {}
    for match in pattern.finditer(log):
        name, architecture, stack, stores, loads, registers, rest = match.groups()
        shared = re.search(r"(\d+) bytes smem", rest)
        found[name, architecture] = (
            int(stack),
            int(stores) + int(loads),
            int(registers),
            int(shared[1]) if shared else 0,
        )
    return found


def _short(name: str) -> tuple[str, str]:
    """Op and kernel of a mangled name: _ZN7ichfast7tversky6finishI... → tversky, finish."""
    parts, at = [], len("_ZN")
    while len(parts) < 3 and (length := re.match(r"\d+", name[at:])):
        at += len(length[0])
        parts.append(name[at : at + int(length[0])])
        at += int(length[0])
    if len(parts) != 3:
        raise ValueError(f"not the name of a kernel of ichfast: {name}")
    return parts[1], parts[2]


def _number(architecture: str) -> int:
    return int(re.sub(r"\D", "", architecture))


def _ptx_entries() -> list[tuple[str, str]]:
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
