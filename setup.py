"""Builds the native library ``ichfast._C``; everything else stands in pyproject.toml."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from setuptools import setup

try:
    import pybind11
    from torch.utils.cpp_extension import BuildExtension, CppExtension
except ImportError as error:
    sys.exit(
        f"ichfast: building needs {error.name}: run `pip install 'torch>=2.11' pybind11 ninja` "
        "first, or leave out --no-build-isolation."
    )

compiler = shlex.split(os.environ.get("CXX", "c++"))[0]
if shutil.which(compiler) is None:
    sys.exit(
        f"ichfast: no C++ compiler '{compiler}' found: install g++ 12 or newer (Debian, Ubuntu: "
        "`apt install g++`), or name yours in CXX."
    )

# Neither errno nor floating-point traps are looked at, and without them more loops vectorise; the
# results stay what IEEE says.
flags = ["-std=c++20", "-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"]

setup(
    ext_modules=[
        CppExtension(
            "ichfast._C",
            ["csrc/module.cpp", "csrc/ops.cpp", *map(str, sorted(Path("csrc/cpu").glob("*.cpp")))],
            include_dirs=[pybind11.get_include(), str(Path("csrc").resolve())],
            extra_compile_args=[
                *flags,
                "-Wall",
                "-g0",
                f"-ffile-prefix-map={Path.cwd()}/=",  # error messages name files of the project
            ],
        )
    ],
    cmdclass={"build_ext": BuildExtension},
)
