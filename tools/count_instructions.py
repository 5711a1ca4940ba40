"""Instructions per voxel of the CUDA kernels, and bytes that they keep in flight, from the machine
code for sm_90, against an H200.

    python tools/count_instructions.py FOLDER

FOLDER holds cubins for sm_90, as a build with NVCC_APPEND_FLAGS='--keep --keep-dir=FOLDER' leaves
them. What is counted is the straight piece of a kernel that moves the most bytes, which is its loop
over vectors; what comes once a chunk, before and after the loop, is not. A voxel of norm_relu is
one channel of a pixel of the input; where it pools, the pooled value counts by a quarter. Shares
are of what an H200 could issue, and of what each of its units could start, while a copy moves the
same bytes: at 100 the unit takes as long as the memory. In flight is what the threads that fit on a
multiprocessor load in that piece, by the registers that they take. Fails where a kernel would miss
85 % of the copy and EXCUSED does not say why, where one that is excused needs more than it says,
and where one keeps too little in flight.

Not counted are kernels that are no such loop: ct_window, pool_batch, paste and strong_view
(docs/kernels.md).
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# An H200: 132 multiprocessors at 1.98 GHz (data sheet); a copy moves 4.3 TB/s of its 4.8.
CLOCKS_PER_BYTE = 132 * 1.98e9 / 4.3e12
# Threads' instructions that a multiprocessor starts per clock (CUDA C++ Programming Guide, compute
# capability 9.0): of any kind, and of each kind of unit.
LANES = {"issue": 128, "fma": 128, "alu": 64, "mufu": 16}
FMA = ("FADD", "FFMA", "FMUL", "IMAD", "HADD2", "HFMA2", "HMUL2")
ALU = (
    "BMSK", "FMNMX", "FSEL", "FSET", "F2FP", "IABS", "IADD", "IMNMX", "ISETP", "LEA", "LOP", "MOV",
    "PLOP", "PRMT", "SEL", "SGXT", "SHF", "VABS", "VIADD", "VIMNMX",
)  # fmt: skip
MOST = 1 / 0.85
"""of the copy's time: what 85 % of its bandwidth allows"""
# Of a multiprocessor (compute capability 9.0).
REGISTERS, THREADS, BLOCK = 65536, 2048, 256
IN_FLIGHT = 4.8e12 * 0.8e-6 / 132
"""Bytes that a multiprocessor must have under way: bandwidth times latency"""

# Percent of the copy's time that the busiest unit may take, and why it is more than 85 % allows.
EXCUSED: dict[tuple[str, str, float], tuple[int, str]] = {
    ("tversky_bce", "sum_chunks", 3): (155, "the polynomial of its logarithm"),
    ("tversky_bce", "sum_chunks", 4): (132, "the polynomial of its logarithm"),
}
# Tensors that norm_relu's kernels read, without and with their first flag: a gradient of the pooled
# value is a quarter, and that of the output is there or not.
READS = {
    "collect_moments": (1, 1),
    "normalise": (1, 1),
    "normalise_and_pool": (1, 1),
    "copy_pixels": (1, 1),
    "sum_pixels": (2, 2),
    "sum_windows": (1.25, 2.25),
    "differentiate_pixels": (2, 2),
    "differentiate_windows": (1.25, 2.25),
}
LOOPS = {"sum_chunks", "count_chunks", "differentiate", "mask", *READS}
HALF = ("ichfast::Half", "ichfast::BFloat16")
BYTES = {
    **dict.fromkeys(HALF, 2),
    "float": 4,
    "unsigned char": 1,
    "ichfast::Bool": 1,
    "ichfast::One": 0,
}


@dataclass(frozen=True)
class Count:
    """Of one kernel's loop, per voxel."""

    op: str
    kernel: str
    arguments: tuple[str, ...]
    moved: float  # bytes
    read: float  # bytes, of these
    instructions: Counter[str]  # by unit
    voxels: int  # in the loop
    registers: int  # of a thread

    def per_voxel(self, unit: str) -> float:
        return self.instructions[unit] / self.voxels

    def share(self, unit: str) -> float:
        """Of what the unit could start while a copy moves as much, in percent."""
        return 100 * self.per_voxel(unit) / (self.moved * LANES[unit] * CLOCKS_PER_BYTE)

    def busiest(self) -> tuple[float, str]:
        return max((self.share(unit), unit) for unit in LANES)

    def in_flight(self) -> float:
        """Bytes that a multiprocessor's threads load in a step of the loop."""
        registers = -(-self.registers // 8) * 8  # as they are handed out
        blocks = min(REGISTERS // (registers * BLOCK), THREADS // BLOCK)
        return blocks * BLOCK * self.voxels * self.read

    def needed(self) -> float:
        """Bytes in flight: nothing waits for those that are written, and fewer are needed where
        arithmetic takes longer than a copy."""
        return IN_FLIGHT * self.read / self.moved / max(1, self.busiest()[0] / 100)

    def __str__(self) -> str:
        return f"{self.op}::{self.kernel}<{', '.join(self.arguments)}>"


def main() -> None:
    counts = []
    for path in sorted(Path(sys.argv[1]).rglob("*.cubin")):
        if re.search("(sm|compute)_90", path.name):
            counts += list(read_sass(disassemble(path)))
    if not counts:
        sys.exit(
            f"{sys.argv[1]} has no cubin for sm_90: was it built with --keep-dir={sys.argv[1]}?"
        )
    print(summarise(counts))
    faults = find_faults(counts)
    if faults:
        sys.exit("\n".join(faults))
    print(f"{len(counts)} kernels reach 85 % of a copy's bandwidth by count, or are excused")


def disassemble(cubin: Path) -> str:
    tool = find_nvdisasm()
    result = subprocess.run([tool, "-c", cubin], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{tool} cannot read {cubin}: {result.stderr.strip()}")
    return result.stdout


def find_nvdisasm() -> str:
    """The toolkit's, or that of triton, which comes with a CUDA torch."""
    home = Path(os.environ.get("CUDA_HOME") or "/usr/local/cuda") / "bin"
    found = shutil.which("nvdisasm") or shutil.which("nvdisasm", path=str(home))
    if found:
        return found
    triton = importlib.util.find_spec("triton")
    for folder in (triton and triton.submodule_search_locations) or ():
        tool = Path(folder, "backends", "nvidia", "bin", "nvdisasm")
        if tool.exists():
            return str(tool)
    sys.exit("no nvdisasm was found: install the CUDA toolkit's (cuda-nvdisasm), or triton")


def read_sass(text: str) -> Iterator[Count]:
    """The kernels of which every tensor has a known dtype: any other goes voxel by voxel."""
    sections = re.findall(r"^\.text\.(\w+):\n(.*?)(?=^//-|\Z)", text, re.DOTALL | re.MULTILINE)
    names = demangle([name for name, _ in sections])
    for name, (_, body) in zip(names, sections, strict=True):
        match = re.match(r"(?:void )?ichfast::(\w+)::(\w+)<(.*?)>\(", name)
        if match is None or match[2] == "finish" or "OneOf<" in match[3]:
            continue
        op, kernel, arguments = match[1], match[2], tuple(match[3].split(", "))
        if kernel not in LOOPS or "double" in arguments:
            continue
        loop = max(split_blocks(body), key=rank)
        read, wrote = moved(loop, "LDG"), moved(loop, "STG")
        voxels = round(read / bytes_read(kernel, op, arguments))
        registers = 1 + max(int(number) for number in re.findall(r"\bR(\d+)", body))
        yield Count(
            op,
            kernel,
            arguments,
            (read + wrote) / voxels,
            read / voxels,
            count_units(loop),
            voxels,
            registers,
        )


def rank(block: list[str]) -> tuple[int, int, int]:
    """The loop over vectors moves the most, in 16-byte accesses and in all; of two, the longer."""
    wide = [opcode for opcode in block if ".128" in opcode]
    return (
        moved(wide, "LDG") + moved(wide, "STG"),
        moved(block, "LDG") + moved(block, "STG"),
        len(block),
    )


def demangle(names: list[str]) -> list[str]:
    result = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    return result.stdout.splitlines()


def split_blocks(body: str) -> list[list[str]]:
    """Instructions that run one after another, without their predicates."""
    blocks: list[list[str]] = [[]]
    for line in body.splitlines():
        if re.match(r"\.L_\w+:", line):
            blocks.append([])
        elif match := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(\S+)", line):
            blocks[-1].append(match[1])
            if match[1].split(".")[0] in ("BRA", "EXIT", "RET"):
                blocks.append([])
    return blocks


def moved(block: list[str], access: str) -> int:
    """Bytes that a thread loads ("LDG") or stores ("STG")."""
    sizes = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
    total = 0
    for opcode in block:
        name, *modifiers = opcode.rstrip(";").split(".")
        if name == access:
            total += next((sizes[m] for m in modifiers if m in sizes), 4)
    return total


def bytes_read(kernel: str, op: str, arguments: tuple[str, ...]) -> float:
    """By a voxel, from the dtypes among the template's arguments (csrc/kernels/<op>.cuh)."""
    types = [a for a in arguments if a in BYTES]
    if op == "norm_relu":
        return BYTES[types[-1]] * READS[kernel][arguments[0] == "true"]
    types = types[1:]  # the first is what it computes in
    if op == "attention_wmse":
        image, logits, reconstruction = types
        return BYTES[image] + BYTES[logits] + 2 * BYTES[reconstruction]
    if op == "attention_mask" and kernel == "differentiate":
        *gradient, image, logits = types  # none where it is one number for all
        of_image = BYTES[image] if arguments[-2] == "true" else 0  # for the logits' gradient
        return sum(2 * BYTES[t] for t in gradient) + of_image + BYTES[logits]
    if op == "tversky" and kernel == "differentiate" and arguments[0] == "false":
        return BYTES[types[1]]  # of the prediction no gradient depends
    return sum(BYTES[t] for t in types)


def count_units(block: list[str]) -> Counter[str]:
    units: Counter[str] = Counter()
    for opcode in block:
        name = opcode.rstrip(";").split(".")[0]
        units["issue"] += 1
        if name == "MUFU":
            units["mufu"] += 1
        elif name.startswith(FMA):
            units["fma"] += 1
        elif name.startswith(ALU) or name in ("FSETP", "HSETP2"):
            units["alu"] += 1
    return units


def allowed(count: Count) -> float:
    """Percent."""
    excuse = EXCUSED.get((count.op, count.kernel, count.moved))
    return excuse[0] if excuse else 100 * MOST


def find_faults(counts: list[Count]) -> list[str]:
    faults = []
    for count in counts:
        share, unit = count.busiest()
        if share > allowed(count):
            faults.append(
                f"{count}: {count.per_voxel(unit):.1f} instructions ({unit}) a voxel of "
                f"{count.moved:g} bytes take {share:.0f} % of the time of a copy, "
                f"{allowed(count):.0f} are allowed"
            )
        if count.in_flight() < count.needed():
            faults.append(
                f"{count}: {count.in_flight() / 1024:.0f} KiB in flight at {count.registers} "
                f"registers, {count.needed() / 1024:.0f} are needed"
            )
    return faults


def summarise(counts: list[Count]) -> str:
    """A line for each op, kernel and number of bytes: the slowest of its kernels."""
    groups: dict[tuple[str, str, float], list[Count]] = defaultdict(list)
    for count in counts:
        groups[count.op, count.kernel, count.moved].append(count)
    lines = [
        f"{'op':15}{'kernel':22}{'bytes':>6}{'voxels':>7}{'instructions':>13}"
        + "".join(f"{unit + ' %':>9}" for unit in LANES)
        + f"{'in flight, KiB':>15}"
    ]
    for (op, kernel, size), group in sorted(groups.items()):
        count = max(group, key=Count.busiest)
        shares = "".join(f"{count.share(unit):9.0f}" for unit in LANES)
        in_flight = min(each.in_flight() for each in group) / 1024
        lines.append(
            f"{op:15}{kernel:22}{size:6g}{count.voxels:7}{count.per_voxel('issue'):13.1f}"
            f"{shares}{in_flight:15.0f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
