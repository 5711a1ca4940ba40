"""Builds the native libraries; everything else stands in pyproject.toml.

``ichfast._C``: schemas, CPU kernels and the Python module. ``ichfast._C_cuda``: the CUDA kernels.
ICHFAST_CUDA=1 builds both, 0 the first, auto both where nvcc is found and torch is a CUDA build.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup

ARCHITECTURES = ("7.5", "8.0", "8.6", "9.0", "10.0", "12.0")

# Neither errno nor floating-point traps are looked at, and without them more loops vectorise; the
# results stay what IEEE says.
CXX_FLAGS = ["-std=c++20", "-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"]
NVCC_FLAGS = ["-std=c++20", "-O3", "-lineinfo", "-DUSE_CUDA"]
HIDDEN = "-fvisibility=hidden"  # as torch's stable classes are, of which ours are made


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


def choose_toolkit(torch_version: str, torch_cuda: "str | None") -> "tuple[Path, str] | None":
    """The toolkit to build with, None for the CPU alone; ends the build where neither is right."""
    wish = os.environ.get("ICHFAST_CUDA") or "auto"
    if wish not in ("auto", "0", "1"):
        sys.exit(f"ichfast: ICHFAST_CUDA must be auto, 0 or 1, not '{wish}'.")
    if wish == "0":
        return None
    toolkit = find_toolkit()
    if toolkit is None:
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
        sys.exit(
            f"ichfast: the CUDA toolkit in {toolkit[0]} is {toolkit[1]} but torch {torch_version} "
            f"is built for CUDA {torch_cuda}: name a toolkit {torch_cuda.split('.')[0]}.x in "
            "CUDA_HOME, or build the CPU kernels alone with ICHFAST_CUDA=0."
        )
    else:
        return toolkit
    if wish == "1":
        sys.exit(f"ichfast: ICHFAST_CUDA=1, but {reason}.")
    print(f"ichfast: building CPU kernels only, since {reason}.")
    return None


def architectures(toolkit: Path) -> str:
    """TORCH_CUDA_ARCH_LIST, or else all of ARCHITECTURES that the toolkit knows."""
    named = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").split()
    if named:
        return " ".join(named)
    known = output(toolkit / "bin" / "nvcc", "--list-gpu-arch").split()
    built = [a for a in ARCHITECTURES if f"compute_{a.replace('.', '')}" in known]
    return " ".join(built) + "+PTX"  # of the newest, for the GPUs that come after it


def main() -> None:
    compiler = shlex.split(os.environ.get("CXX", "c++"))[0]
    if shutil.which(compiler) is None:
        sys.exit(
            f"ichfast: no C++ compiler '{compiler}' found: install g++ 12 or newer (Debian, "
            "Ubuntu: `apt install g++`), or name yours in CXX."
        )
    try:
        import pybind11
        import torch

        toolkit = choose_toolkit(torch.__version__, torch.version.cuda)
        if toolkit:  # torch's helper guesses both when it is imported, and guesses wrong
            os.environ["CUDA_HOME"] = str(toolkit[0])
            os.environ["TORCH_CUDA_ARCH_LIST"] = architectures(toolkit[0])
        from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension
    except ImportError as error:
        sys.exit(
            f"ichfast: building needs {error.name}: run `pip install 'torch>=2.11' pybind11 ninja` "
            "first, or leave out --no-build-isolation."
        )

    include = str(Path("csrc").resolve())
    # Error messages name files of the project.
    relative = f"-ffile-prefix-map={Path.cwd()}/="
    built_for = []
    if toolkit:
        built_for = [
            ("ICHFAST_CUDA_TOOLKIT", f'"{toolkit[1]}"'),
            ("ICHFAST_CUDA_ARCHITECTURES", f'"{os.environ["TORCH_CUDA_ARCH_LIST"]}"'),
        ]
    libraries = [
        CppExtension(
            "ichfast._C",
            ["csrc/module.cpp", "csrc/ops.cpp", *map(str, sorted(Path("csrc/cpu").rglob("*.cpp")))],
            include_dirs=[pybind11.get_include(), include],
            define_macros=built_for,
            extra_compile_args=[*CXX_FLAGS, HIDDEN, "-Wall", "-g0", relative],
        )
    ]
    if toolkit:
        libraries.append(
            CUDAExtension(
                "ichfast._C_cuda",
                [*map(str, sorted(Path("csrc/cuda").glob("*.cu")))],
                include_dirs=[include],
                define_macros=built_for,
                extra_compile_args={"nvcc": [*NVCC_FLAGS, f"-Xcompiler={HIDDEN},{relative}"]},
                py_limited_api=True,  # no Python in it
            )
        )
    setup(ext_modules=libraries, cmdclass={"build_ext": BuildExtension})


if __name__ == "__main__":
    main()
