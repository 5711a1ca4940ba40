"""Builds the native libraries and lists the ops for type checkers; the rest is in pyproject.toml.

``ichfast._C_cpu``: schemas and CPU kernels. ``ichfast._C_cuda``: the CUDA kernels. Neither knows
Python; ``ichfast._C_python`` is the module that does. One wheel serves every CPython and torch that
pyproject.toml names.

ICHFAST_CUDA=0 builds without CUDA kernels; 1 with them, for every architecture; auto (the default)
what this machine can use: with them for its own GPUs, or without.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import setup

# Each line is compiled once, for its first, and assembled for all: the assembler makes of that PTX
# the bytes that it makes of each one's own (compared for all kernels, CUDA 13.0), and the compiler
# takes most of the time.
ARCHITECTURES = (("75",), ("80", "86", "90"), ("100", "120"))

# Neither errno nor floating-point traps are looked at, and without them more loops vectorise; the
# results stay what IEEE says.
CXX_FLAGS = ["-std=c++20", "-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"]
NVCC_FLAGS = ["-std=c++20", "-O3", "-lineinfo", "-DUSE_CUDA"]
HIDDEN = "-fvisibility=hidden"  # as torch's stable classes are, of which ours are made

# CPython without its lock has no limited API: for it, the module is built for the one at hand.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")


def output(*command: object) -> str:
    """What the command prints, on stdout and stderr; nothing where it cannot be run."""
    try:
        result = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return result.stdout + result.stderr


def find_toolkit() -> "tuple[Path, str] | None":
    """Folder and version of the CUDA toolkit.

    The nvcc on the PATH may be a script or a link somewhere else, so it is asked for its folder.
    """
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if not home:
        top = re.search(r"^#\$ TOP=(.+)$", output("nvcc", "--dryrun", "any.cu"), re.MULTILINE)
        home = top[1] if top else "/usr/local/cuda"
    folder = Path(home).resolve()
    release = re.search(r"release (\d+\.\d+)", output(folder / "bin" / "nvcc", "--version"))
    return (folder, release[1]) if release else None


def pass_to_host(*flags: str) -> list[str]:
    """For nvcc, which hands them to the host's compiler through a shell, and splits them at commas:
    those with a path that such a way would change (spaces, brackets) are left out."""
    plain = [flag for flag in flags if re.fullmatch(r"[\w./=+@%:-]+", flag)]
    return [f"-Xcompiler={','.join(plain)}"] if plain else []


def check_compiler() -> None:
    """End the build where Python's headers are missing, or a C++ compiler that knows C++20."""
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        sys.exit(
            "ichfast: Python's headers are missing (Python.h): install them (Debian, Ubuntu: "
            "`apt install python3-dev`)."
        )
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    advice = "install g++ 11 or newer (Debian, Ubuntu: `apt install g++`), or name yours in CXX"
    if shutil.which(compiler[0]) is None:
        sys.exit(f"ichfast: no C++ compiler '{compiler[0]}' found: {advice}.")
    macros = output(*compiler, "-std=c++20", "-dM", "-E", "-x", "c++", os.devnull)
    standard = re.search(r"^#define __cplusplus (\d+)", macros, re.MULTILINE)
    if standard is None or int(standard[1]) < 202002:
        version = output(*compiler, "--version").partition("\n")[0]
        sys.exit(f"ichfast: the C++ compiler '{compiler[0]}' ({version}) is too old: {advice}.")


def find_gpus() -> str:
    """The compute capabilities of this machine's GPUs, as "8.6 9.0"."""
    listed = output("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
    return " ".join(sorted(set(re.findall(r"^\d+\.\d+$", listed, re.MULTILINE))))


def choose_toolkit(
    torch_version: str, torch_cuda: "str | None", gpus: str
) -> "tuple[Path, str] | None":
    """The toolkit to build with; None for the CPU alone, which auto is content with."""
    wish = os.environ.get("ICHFAST_CUDA") or "auto"
    if wish not in ("auto", "0", "1"):
        sys.exit(f"ichfast: ICHFAST_CUDA must be auto, 0 or 1, not '{wish}'.")
    if wish == "0":
        return None
    toolkit = find_toolkit()
    if wish == "auto" and not gpus and not os.environ.get("TORCH_CUDA_ARCH_LIST"):
        reason = "nvidia-smi lists no GPU here; ICHFAST_CUDA=1 builds the CUDA kernels all the same"
    elif toolkit is None:
        home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
        where = f"in {home}/bin" if home else "on the PATH or in /usr/local/cuda"
        reason = (
            f"no nvcc was found {where}: install a CUDA toolkit, or name its folder in CUDA_HOME"
        )
    elif torch_cuda is None:
        reason = (
            f"torch {torch_version} is built without CUDA: install a CUDA build of torch, and "
            "call pip with --no-build-isolation to build with it"
        )
    elif toolkit[1].split(".")[0] != torch_cuda.split(".")[0]:
        reason = (
            f"the CUDA toolkit in {toolkit[0]} is {toolkit[1]} and torch {torch_version} is built "
            f"for CUDA {torch_cuda}: name a toolkit {torch_cuda.split('.')[0]}.x in CUDA_HOME"
        )
    else:
        return toolkit
    if wish == "1":
        sys.exit(f"ichfast: ICHFAST_CUDA=1, but {reason}.")
    print(f"ichfast builds CPU kernels only, since {reason}.")
    return None


def choose_architectures(toolkit: Path, gpus: str) -> "tuple[str, list[str]]":
    """TORCH_CUDA_ARCH_LIST; or the GPUs' own, where the build is for this machine; or all.

    As that variable has them, and as flags for nvcc where torch is not to make these.
    """
    named = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").split()
    if named:
        return " ".join(named), []
    known = re.findall(r"compute_(\d+)", output(toolkit / "bin" / "nvcc", "--list-gpu-arch"))
    own = gpus.replace(".", "").split()
    if os.environ.get("ICHFAST_CUDA") != "1" and own and set(own) <= set(known):
        return gpus, []
    names, flags = [], []
    for line in filter(None, ([a for a in line if a in known] for line in ARCHITECTURES)):
        compiled = f"compute_{line[0]}"
        flags.append(f"-gencode=arch={compiled},code=[{','.join(f'sm_{a}' for a in line)}]")
        names += [f"{a[:-1]}.{a[-1]}" for a in line]
    flags.append(f"-gencode=arch={compiled},code={compiled}")  # for the GPUs that come after
    names[-len(line)] += "+PTX"
    return " ".join(names), flags


def write_stubs() -> None:
    """Tell type checkers what ``ichfast.ops`` exports, which it finds out only at import."""
    for package in (Path("ichfast/ops"), Path("ichfast/ops/reference")):
        modules = sorted(path.stem for path in package.glob("[!_]*.py"))
        lines = [f"from {'.'.join(package.parts)}.{module} import *\n" for module in modules]
        (package / "__init__.pyi").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    check_compiler()
    try:
        import torch

        gpus = find_gpus()
        toolkit = choose_toolkit(torch.__version__, torch.version.cuda, gpus)
        if toolkit:  # torch's helper guesses both when it is imported, and guesses wrong
            os.environ["CUDA_HOME"] = str(toolkit[0])
            architectures, flags = choose_architectures(toolkit[0], gpus)
            os.environ["TORCH_CUDA_ARCH_LIST"] = architectures
        from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension
    except ImportError as error:
        sys.exit(
            f"ichfast: building needs {error.name}: run `pip install 'torch>=2.11' ninja` "
            "first, or leave out --no-build-isolation."
        )

    include = str(Path("csrc").resolve())
    # Error messages name files of the project.
    relative = f"-ffile-prefix-map={Path.cwd()}/="
    built_for = []
    if toolkit:
        built_for = [
            ("ICHFAST_CUDA_TOOLKIT", f'"{toolkit[1]}"'),
            ("ICHFAST_CUDA_ARCHITECTURES", f'"{architectures}"'),
        ]
    glibc = Path("csrc/common/glibc.cpp")
    libraries = [
        CppExtension(
            f"ichfast.{name}",
            [*map(str, sorted(sources))],
            include_dirs=[include],
            define_macros=built_for,
            extra_compile_args=[*CXX_FLAGS, HIDDEN, "-Wall", "-g0", relative],
            py_limited_api=LIMITED_API,
        )
        for name, sources in (
            ("_C_python", Path("csrc/python").glob("*.cpp")),
            ("_C_cpu", [Path("csrc/ops.cpp"), *Path("csrc/cpu").rglob("*.cpp"), glibc]),
        )
    ]
    if toolkit:
        libraries.append(
            CUDAExtension(
                "ichfast._C_cuda",
                [*map(str, sorted(Path("csrc/cuda").glob("*.cu"))), str(glibc)],
                include_dirs=[include],
                define_macros=built_for,
                extra_compile_args={
                    "cxx": [*CXX_FLAGS, HIDDEN, "-g0", relative],
                    "nvcc": [*NVCC_FLAGS, *pass_to_host(HIDDEN, relative), *flags],
                },
                py_limited_api=LIMITED_API,
            )
        )

    class KeepObjects(BuildExtension):
        """Compiles only what has changed; setuptools would forget an editable build's objects."""

        def finalize_options(self) -> None:
            super().finalize_options()
            if self.editable_mode:
                self.build_temp = "build/objects"

    write_stubs()
    tag = {"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {}
    setup(ext_modules=libraries, cmdclass={"build_ext": KeepObjects}, options=tag)


if __name__ == "__main__":
    main()
