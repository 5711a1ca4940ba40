"""What the native libraries ask of torch, Python and glibc: what one wheel for all of them may."""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import ichfast

LIBRARIES = ("_C_python", "_C_cpu", "_C_cuda")
# Of manylinux_2_28, the tag of torch's own wheels.
NEWEST = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11)}
SHIMS = ("stable/c/shim.h", "inductor/aoti_torch/c/shim.h")
"""the C functions on which torch's stable ABI stands, beside torch/csrc"""


def find_library(name: str) -> str:
    if name == "_C_cuda" and not ichfast.build_info()["cuda"]:
        pytest.skip("no CUDA kernels are loaded")
    spec = importlib.util.find_spec(f"ichfast.{name}")
    assert spec is not None
    assert spec.origin is not None
    return spec.origin


@pytest.mark.skipif(shutil.which("ldd") is None, reason="needs ldd")
@pytest.mark.parametrize("library", LIBRARIES)
def test_nothing_is_missing_beside_torch(library: str) -> None:
    """What a library needs is what torch has loaded, and the symbols are there."""
    loaded = re.findall(r"\s(/\S+)/[^/\s]+\.so", Path("/proc/self/maps").read_text())
    result = subprocess.run(
        ["ldd", "-r", find_library(library)],
        env={**os.environ, "LD_LIBRARY_PATH": ":".join(sorted(set(loaded)))},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = (result.stdout + result.stderr).splitlines()
    assert any("libtorch_cpu.so => /" in line for line in lines)
    assert not [line for line in lines if "not found" in line]
    # Python's own symbols are in the interpreter.
    assert not [line for line in lines if re.search(r"undefined symbol: (?!_?Py)", line)]


def find_faults(symbols: str) -> list[str]:
    """Those of `nm`'s undefined symbols that not every torch and glibc has."""
    headers = Path(torch.__file__).parent / "include" / "torch" / "csrc"
    declared = "".join((headers / shim).read_text() for shim in SHIMS)
    stable = set(re.findall(r"\b((?:aoti_)?torch_\w+)\(", declared))
    faults = []
    for line in symbols.splitlines():
        name, _, version = line.split()[-1].partition("@")
        of_torch = re.match(r"(aoti_)?torch_|_ZN?K?[^@]*?(2at|3c10|5torch|6caffe2)[^a-z]", name)
        library, _, number = version.partition("_")
        if (of_torch and name not in stable) or (
            library in NEWEST and tuple(map(int, number.split("."))) > NEWEST[library]
        ):
            faults.append(line)
    return faults


def list_undefined(library: str) -> str:
    command = ["nm", "-D", "--undefined-only", find_library(library)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
@pytest.mark.parametrize("library", LIBRARIES)
def test_symbols(library: str) -> None:
    symbols = list_undefined(library)
    assert "torch_" in symbols
    assert find_faults(symbols) == []
    if library != "_C_python":  # of which abi3audit says whether it keeps to the limited API
        assert not re.search(r"\bU _?Py", symbols)


@pytest.mark.parametrize(
    ("symbol", "is_fault"),
    [
        ("U aoti_torch_get_dim", False),
        ("U torch_call_dispatcher", False),
        ("U torch_invented_yesterday", True),
        ("U _ZN2at6detail10empty_cpuEN3c108ArrayRefIlEE", True),
        ("U _ZNK3c1010TensorImpl4sizeEl", True),
        ("U _ZN5torch3jit8toIValueEv", True),
        ("U memcpy@GLIBC_2.14", False),
        ("U exp@GLIBC_2.29", True),
        ("U __libc_single_threaded@GLIBC_2.32", True),
        ("U _ZNSt13runtime_errorC1EPKc@GLIBCXX_3.4.21", False),
        ("U _ZSt21__glibcxx_assert_failPKciS0_S0_@GLIBCXX_3.4.30", True),
        ("U __cxa_call_terminate@CXXABI_1.3.15", True),
        ("w __cxa_finalize@GLIBC_2.2.5", False),
        ("U _PyArg_ParseTuple_SizeT", False),
    ],
)
def test_faults_are_found(symbol: str, is_fault: bool) -> None:
    assert find_faults(f"                 {symbol}\n") == [f"                 {symbol}"] * is_fault
