"""What the compiler made of the CUDA kernels, read from its log and its PTX.

    python tools/check_kernels.py BUILD_LOG PTX

BUILD_LOG is the output of a build with NVCC_APPEND_FLAGS='-Xptxas=-v --keep --keep-dir=PTX', and
PTX is the folder with what it kept. Fails where a kernel spills registers or uses local memory on
any architecture, but for KNOWN_SPILLS, and where it does not both load and store 16 bytes at once.
A kernel that need not says why in the comment above it, in one of these forms:

    // 16-byte accesses: none, since it reads sums.
    // 16-byte accesses: loads, since a block writes no more than its sums.
    // 16-byte accesses: stores where kSigmoid is false, since ...

Variants for any mixture of dtypes (OneOf) go voxel by voxel, and nothing is asked of them. Prints
registers and shared memory.
"""

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# 16 bytes, as PTX has them; and 8, where a step is four voxels and each is stored in two bytes.
WIDE = {"loads": r"ld\.global\.nc\.v4\.u32", "stores": r"st\.global\.v4\.u32"}
HALF_AS_WIDE = r"st\.global\.(v4\.u16|u64)"

# Of these, some variants spill a few registers, most at the bounds that keep four blocks on a
# multiprocessor: attention_mask on 8.0 and 8.6, the others on 7.5; none on an H100 or H200. What
# that costs has to be measured on such a GPU before it is mended.
KNOWN_SPILLS = {
    ("attention_mask", "mask"),
    ("attention_wmse", "differentiate"),
    ("norm_relu", "normalise"),
    ("tversky", "differentiate"),
}
FEW_BYTES = 64  # stored and loaded by a thread


def main() -> None:
    usages = read_log(Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace"))
    if not usages:
        sys.exit(f"{sys.argv[1]} names no kernel: was it built with NVCC_APPEND_FLAGS=-Xptxas=-v?")
    print(summarise(usages))
    kernels = {
        path.stem: read_kernels(path.read_text(encoding="utf-8"))
        for path in (ROOT / "csrc" / "kernels").glob("*.cuh")
    }
    entries = read_ptx(Path(sys.argv[2]))
    if not entries:
        sys.exit(f"{sys.argv[2]} has no PTX: was it built with NVCC_APPEND_FLAGS=--keep-dir?")
    variants = parse_variants([name for name, _ in entries])
    known, faults = find_spills(usages)
    asked = 0
    for variant, (_, ptx) in zip(variants, entries, strict=True):
        wide = choose_wide(variant, kernels)
        asked += bool(wide)
        faults += find_narrow(variant, wide, ptx)
    print(f"16-byte accesses: looked for in the PTX of {asked} kernels")
    if faults:
        sys.exit("\n".join(faults))
    print("\n".join(["few registers spilled, known:", *known]) if known else "no spills")
    print("no other local memory, every vector is one")


@dataclass(frozen=True)
class Variant:
    """A kernel with its template's arguments."""

    op: str
    kernel: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.op}::{self.kernel}<{', '.join(self.arguments)}>"


@dataclass(frozen=True)
class Usage:
    """What one variant takes on one architecture."""

    variant: Variant
    architecture: str
    stack: int  # bytes per thread in local memory
    spilled: int  # bytes
    registers: int
    shared: int  # bytes


def read_log(log: str) -> list[Usage]:
    pattern = re.compile(
        r"Compiling entry function '(\w+)' for '(sm_\w+)'.*?"
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\s+"
        r"ptxas info\s*: Used (\d+) registers([^\n]*)",
        re.DOTALL,
    )
    found = pattern.findall(log)
    usages = []
    for variant, (_, architecture, stack, stores, loads, registers, rest) in zip(
        parse_variants([name for name, *_ in found]), found, strict=True
    ):
        shared = re.search(r"(\d+) bytes smem", rest)
        usages.append(
            Usage(
                variant,
                architecture,
                int(stack),
                int(stores) + int(loads),
                int(registers),
                int(shared[1]) if shared else 0,
            )
        )
    return usages


def parse_variants(names: Sequence[str]) -> list[Variant]:
    """Of mangled names."""
    demangled = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    variants = []
    for name in demangled:
        match = re.match(r"(?:void )?ichfast::(\w+)::(\w+)([<(].*)", name)
        if match is None:
            raise ValueError(f"not the name of a kernel of an op of ichfast: {name}")
        op, kernel, rest = match.groups()
        variants.append(Variant(op, kernel, tuple(split_list(rest)) if rest[0] == "<" else ()))
    return variants


def split_list(text: str) -> list[str]:
    """``<int, View<a, b>, 2>...`` → int, View<a, b>, 2."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "<") - (character == ">")
        if depth == 0:
            break
        if depth == 1 and character == ",":
            parts.append("")
        elif depth > 1 or character != "<":
            parts[-1] += character
    return [part.strip() for part in parts]


@dataclass(frozen=True)
class Exemption:
    """Only ``wide`` is asked for; with ``parameter`` only of variants where that is ``value``."""

    wide: str  # "loads", "stores" or "none"
    parameter: str
    value: str


@dataclass(frozen=True)
class Kernel:
    """What its source says of it."""

    parameters: tuple[str, ...]  # names of the template's
    exemptions: tuple[Exemption, ...]


def read_kernels(source: str) -> dict[str, Kernel]:
    """The kernels of a ``kernels/<op>.cuh``."""
    pattern = re.compile(
        r"((?:^//[^\n]*\n)*)(?:^template (<[^{;]*>)\n)?"
        r"^__global__\s+void\s+(?:__launch_bounds__\(.*?\)\s+)?(\w+)\(",
        re.DOTALL | re.MULTILINE,
    )
    kernels = {}
    for comment, template, name in pattern.findall(source):
        text = re.sub(r"\s*\n?// ?", " ", comment)
        exemptions = re.findall(
            r"16-byte accesses: (none|loads|stores)(?: where (\w+) is (\w+))?, since \w", text
        )
        if len(exemptions) != text.count("16-byte accesses"):
            raise ValueError(f"the comment above {name} is none of those that check_kernels reads")
        parameters = tuple(part.split()[-1] for part in split_list(template)) if template else ()
        kernels[name] = Kernel(parameters, tuple(Exemption(*parts) for parts in exemptions))
    return kernels


def choose_wide(variant: Variant, kernels: Mapping[str, Mapping[str, Kernel]]) -> set[str]:
    """The accesses that must be of 16 bytes, of ``loads`` and ``stores``."""
    kernel = kernels.get(variant.op, {}).get(variant.kernel)
    if kernel is None:
        raise ValueError(f"csrc/kernels/{variant.op}.cuh has no __global__ {variant.kernel}")
    if any("OneOf<" in argument for argument in variant.arguments):
        return set()
    arguments = dict(zip(kernel.parameters, variant.arguments, strict=True))
    for exemption in kernel.exemptions:
        if not exemption.parameter or arguments[exemption.parameter] == exemption.value:
            return {exemption.wide} - {"none"}
    return set(WIDE)


def find_narrow(variant: Variant, wide: set[str], ptx: str) -> list[str]:
    types = variant.arguments
    # Of two "float", one is what the kernel computes in.
    mixed = types.count("float") > 1 and {"ichfast::Half", "ichfast::BFloat16"} & set(types)
    return [
        f"{variant}: no 16-byte {kind} in the PTX; if none are needed, say why above the kernel"
        for kind in sorted(wide)
        if not re.search(WIDE[kind], ptx)
        and not (kind == "stores" and mixed and re.search(HALF_AS_WIDE, ptx))
    ]


def find_spills(usages: Sequence[Usage]) -> tuple[list[str], list[str]]:
    """Those that are known and small, and the others."""
    known: list[str] = []
    others: list[str] = []
    for u in usages:
        if u.stack or u.spilled:
            is_known = (u.variant.op, u.variant.kernel) in KNOWN_SPILLS and u.spilled <= FEW_BYTES
            (known if is_known else others).append(
                f"{u.variant} for {u.architecture}: {u.stack} bytes of stack, {u.spilled} spilled"
            )
    return known, others


def summarise(usages: Sequence[Usage]) -> str:
    architectures = sorted({u.architecture for u in usages}, key=lambda a: int(a.strip("sm_af")))
    lines = [
        f"{len(usages)} kernels for {', '.join(architectures)}",
        f"{'op':16}{'kernel':16}{'variants':>9}{'registers':>12}{'shared, B':>11}",
    ]
    groups: dict[tuple[str, str], list[Usage]] = defaultdict(list)
    for usage in usages:
        groups[usage.variant.op, usage.variant.kernel].append(usage)
    for (op, name), group in sorted(groups.items()):
        registers = [usage.registers for usage in group]
        span = f"{min(registers)}-{max(registers)}"
        shared = max(usage.shared for usage in group)
        lines.append(f"{op:16}{name:16}{len(group):>9}{span:>12}{shared:>11}")
    return "\n".join(lines)


def read_ptx(folder: Path) -> list[tuple[str, str]]:
    """Each variant's mangled name and PTX, once for every architecture that it is compiled for."""
    entries = []
    for path in sorted(folder.glob("*.ptx")):
        text = path.read_text(encoding="utf-8")
        entries += re.findall(r"\.entry (\w+)\(.*?\n\{(.*?)\n\}", text, re.DOTALL)
    return entries


if __name__ == "__main__":
    main()
