"""Instructions per voxel of the CUDA kernels, from the machine code for sm_90, against an H200.

    python tools/count_instructions.py FOLDER

FOLDER holds cubins for sm_90, as a build with NVCC_APPEND_FLAGS='--keep --keep-dir=FOLDER' leaves
them. What is counted is the straight piece of a kernel that moves the most bytes, which is its loop
over vectors; what comes once a chunk, before and after the loop, is not. The shares are of what an
H200 could issue, and of what each of its units could start, while a copy moves the same bytes: at
100 the unit takes as long as the memory. Fails where a kernel would miss 85 % of the copy and
EXCUSED does not say why, and where one that is excused needs more than it says.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
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

# Percent of the copy's time that the busiest unit may take, and why it is more than 85 % allows.
EXCUSED = {
    ("tversky", "differentiate", 3): (124, "bytes to widen, half types to pack"),
    ("tversky_bce", "sum_chunks", 3): (155, "the polynomial of its logarithm"),
    ("tversky_bce", "sum_chunks", 4): (132, "the polynomial of its logarithm"),
}
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
    instructions: Counter[str]  # by unit
    voxels: int  # in the loop

    def per_voxel(self, unit: str) -> float:
        return self.instructions[unit] / self.voxels

    def share(self, unit: str) -> float:
        """Of what the unit could start while a copy moves as much, in percent."""
        return 100 * self.per_voxel(unit) / (self.moved * LANES[unit] * CLOCKS_PER_BYTE)

    def busiest(self) -> tuple[float, str]:
        return max((self.share(unit), unit) for unit in LANES)

    def __str__(self) -> str:
        return f"{self.op}::{self.kernel}<{', '.join(self.arguments)}>"


def main() -> None:
    counts = []
    for path in sorted(Path(sys.argv[1]).rglob("*.cubin")):
        if "sm_" not in path.name or "sm_90" in path.name:
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
        if kernel not in ("sum_chunks", "count_chunks", "differentiate", "mask"):
            continue
        loop = max(split_blocks(body), key=lambda block: moved(block, "LDG") + moved(block, "STG"))
        read, wrote = moved(loop, "LDG"), moved(loop, "STG")
        voxels = read // bytes_read(kernel, op, arguments)
        yield Count(op, kernel, arguments, (read + wrote) / voxels, count_units(loop), voxels)


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


def bytes_read(kernel: str, op: str, arguments: tuple[str, ...]) -> int:
    """By a voxel, from the dtypes among the template's arguments (csrc/kernels/<op>.cuh)."""
    types = [a for a in arguments if a in BYTES][1:]  # the first is what it computes in
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
    excuse = EXCUSED.get((count.op, count.kernel, round(count.moved)))
    return excuse[0] if excuse else 100 * MOST


def find_faults(counts: list[Count]) -> list[str]:
    faults = []
    for count in counts:
        share, unit = count.busiest()
        if share > allowed(count):
            faults.append(
                f"{count}: {count.per_voxel(unit):.1f} instructions ({unit}) a voxel of "
                f"{count.moved:.0f} bytes take {share:.0f} % of the time of a copy, "
                f"{allowed(count):.0f} are allowed"
            )
    return faults


def summarise(counts: list[Count]) -> str:
    """A line for each op, kernel and number of bytes: the slowest of its kernels."""
    worst: dict[tuple[str, str, int], Count] = {}
    for count in counts:
        key = count.op, count.kernel, round(count.moved)
        if key not in worst or count.busiest() > worst[key].busiest():
            worst[key] = count
    lines = [
        f"{'op':15}{'kernel':14}{'bytes':>6}{'voxels':>7}{'instructions':>13}"
        + "".join(f"{unit + ' %':>9}" for unit in LANES)
    ]
    for (op, kernel, size), count in sorted(worst.items()):
        shares = "".join(f"{count.share(unit):9.0f}" for unit in LANES)
        lines.append(
            f"{op:15}{kernel:14}{size:6}{count.voxels:7}{count.per_voxel('issue'):13.1f}{shares}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
