"""Builds the library of the PTX run.

    python tests/cpp/ptx/build.py FOLDER [SOURCE.cu ...]

The sources are csrc/cuda/*.cu and faults.cu unless others are named. What `make check-cuda` has
compiled of them is taken; where it has not, or they have changed since, they are compiled with the
flags of setup.py. Prints the library's path.
"""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from torch.utils import cpp_extension

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
JOBS = 2


def build(folder: Path, sources: list[Path]) -> Path:
    setup = runpy.run_path(str(ROOT / "setup.py"))
    toolkit = setup["find_toolkit"]()
    if toolkit is None:
        sys.exit("no nvcc was found: install a CUDA toolkit, or name its folder in CUDA_HOME")
    # The assembler makes of it what runs on an H100 and an H200.
    architecture = next(line[0] for line in setup["ARCHITECTURES"] if "90" in line)
    includes = cpp_extension.include_paths()
    libraries = Path(torch.__file__).parent / "lib"
    nvcc = [
        *setup["NVCC_FLAGS"],
        *cpp_extension.COMMON_NVCC_FLAGS,
        f"-gencode=arch=compute_{architecture},code=compute_{architecture}",  # the PTX alone
        f'-DICHFAST_CUDA_TOOLKIT="{toolkit[1]}"',
        '-DICHFAST_CUDA_ARCHITECTURES="9.0+PTX"',
        f"-I{ROOT / 'csrc'}",
        *(f"-isystem={path}" for path in includes),
        # The host's part waits for the kernels: to compile it fast is what counts.
        f"-Xcompiler=-fPIC,-O0,{setup['HIDDEN']}",
    ]
    settings = {
        "PYTHON": [sys.executable],
        "CUDA_HOME": [toolkit[0]],
        "SOURCES": sources,
        "ARCHITECTURE": [architecture],
        "COMPILED": find_compiled(),
        "NVCC_FLAGS": nvcc,
        "TORCH_INCLUDES": includes,
        "TORCH_LIBRARIES": [libraries / "libtorch_cpu.so", libraries / "libc10.so"],
    }
    definitions = [f"-D{name}={';'.join(map(str, values))}" for name, values in settings.items()]
    # Ninja, since make builds with what is old where one command makes two files.
    cmake, ninja = find_tool("cmake"), find_tool("ninja")
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    for command in (
        [cmake, *generator, "-S", HERE, "-B", folder, *definitions],
        [cmake, "--build", folder, "--parallel", str(JOBS)],
    ):
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
            sys.exit("the library of the PTX run was not built")
    return folder / "libptx.so"


def find_compiled() -> list[Path]:
    """The folder where `make check-cuda` built these sources; none, if it did not."""
    folder = ROOT / "build" / "cuda"
    sources = [ROOT / "setup.py", *(path for path in ROOT.glob("csrc/**/*") if path.is_file())]
    newest = max(path.stat().st_mtime for path in sources)
    made = [path.stat().st_mtime for path in folder.glob("lib/ichfast/_C_cuda*.so")]
    return [folder] if made and min(made) > newest else []


def find_tool(name: str) -> str:
    """Beside this Python, whatever the PATH, else there."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    tool = shutil.which(name, path=path)
    if tool is None:
        sys.exit(f"no {name} was found: pip install {name}")
    return tool


if __name__ == "__main__":
    named = [Path(name).resolve() for name in sys.argv[2:]]
    sources = named or [*sorted(ROOT.glob("csrc/cuda/*.cu")), HERE / "faults.cu"]
    print(build(Path(sys.argv[1]).resolve(), sources))
