"""`make check-wheel` refuses a wheel whose libraries ask for more than its name says."""

import importlib.util
import platform
import shutil
import subprocess
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "check_wheel.py"
pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec(package) is None, reason=f"needs {package}, of the extra dev"
    )
    for package in ("abi3audit", "auditwheel", "torch_abi_audit")
] + [pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")]

NAMES = ("ichfast/_C_cpu.abi3.so", "ichfast/_C_python.abi3.so")


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_wheel", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "BUILD", tmp_path)
    return module


def make_wheel(folder: Path, function: str) -> Path:
    """Two libraries that call the function."""
    wheel = folder / "raw" / "ichfast-1-cp311-abi3-linux_x86_64.whl"
    wheel.parent.mkdir()
    calls = "".join(f"extern int {name}(void); int call_{name}(void) {{ return {name}(); }}\n"
                    for name in ("torch_parallel_for", function))  # fmt: skip
    library = folder / "library.so"
    command = ["cc", "-shared", "-fPIC", "-fno-builtin", "-x", "c", "-", "-o", library, "-lm"]
    subprocess.run(command, input=calls, text=True, check=True)
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("ichfast/__init__.py", "")
        for name in NAMES:
            file.write(library, name)
        about = "ichfast-1.dist-info"
        file.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: ichfast\nVersion: 1\n")
        file.writestr(
            f"{about}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\n"
            "Tag: cp311-abi3-linux_x86_64\n",
        )
        file.writestr(f"{about}/RECORD", "".join(f"{name},,\n" for name in NAMES))
    return wheel


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("aoti_torch_get_dim", None),
        ("PyModuleDef_Init", None),
        ("PyUnicode_AsUTF8", "abi3audit"),  # limited API since 3.13
        ("PyCode_NewEmpty", "abi3audit"),  # never in it
        ("torch_tensor_to_pyobject", "does not load under torch 2.11"),  # since 2.14
        ("_ZN2at6detail5emptyEv", "torch-abi-audit"),
    ],
)
def test_audit(check: ModuleType, tmp_path: Path, function: str, message: str | None) -> None:
    wheel = make_wheel(tmp_path, function)
    if message is None:
        assert check.audit(wheel) == wheel
    else:
        with pytest.raises(SystemExit, match=message):
            check.audit(wheel)


def test_manylinux_tag(check: ModuleType, tmp_path: Path) -> None:
    tagged = check.add_manylinux_tag(make_wheel(tmp_path, "aoti_torch_get_dim"))
    assert tagged.name == f"ichfast-1-cp311-abi3-manylinux_2_28_{platform.machine()}.whl"


def test_no_manylinux_tag(check: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="auditwheel"):
        check.add_manylinux_tag(make_wheel(tmp_path, "pthread_cond_clockwait"))  # of glibc 2.30
