"""What is loaded and built: the native library, and nothing that only a part needs."""

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import ichfast
from ichfast import ops
from ichfast.ops import reference

HEAVY = (
    "pydicom",
    "nibabel",
    "matplotlib",
    "jinja2",
    "scipy",
    "monai",
    "safetensors",
    "tqdm",
    "cupy",
    "pydantic",
    "tomli_w",
)
NATIVE_OPS = sorted(n for n in torch._C._dispatch_get_all_op_names() if n.startswith("ichfast::"))
SETUP = Path(__file__).parents[1] / "setup.py"


def python(code: str, *, path: Path) -> "subprocess.CompletedProcess[str]":
    """Run ``code`` with ``path`` as the only place that ichfast can come from."""
    # An editable install would find the missing submodule in the working tree all the same.
    prepare = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in f.__module__]\n"
        f"sys.path.insert(0, {str(path)!r})\n"
    )
    command = [sys.executable, "-c", prepare + code]
    return subprocess.run(command, cwd=path, capture_output=True, text=True, check=False)


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import torch; before = set(sys.modules); import ichfast, ichfast.losses, ichfast.metrics;"
    )
    code += f"print(*[m for m in {HEAVY} if m in set(sys.modules) - before])"
    result = python(code, path=Path(ichfast.__file__).parents[1])
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def test_build_info() -> None:
    info = ichfast.build_info()
    assert set(info) == {
        *("version", "compiler", "torch_target", "simd"),
        *("cuda", "cuda_toolkit", "cuda_architectures"),
    }
    assert info["version"] == ichfast.__version__
    assert info["torch_target"] == "2.11"
    assert re.search(r"GCC|[Cc]lang", info["compiler"])
    assert info["simd"]
    if info["cuda_toolkit"] is None:
        assert info["cuda"] is False
        assert info["cuda_architectures"] is None
    else:
        assert info["cuda"] is (torch.version.cuda is not None)
        assert re.fullmatch(r"\d+\.\d+", info["cuda_toolkit"])
        assert re.fullmatch(
            r"\d+\.\d+\w?(\+PTX)?( \d+\.\d+\w?(\+PTX)?)*", info["cuda_architectures"]
        )


@pytest.mark.parametrize("name", NATIVE_OPS)
def test_ops_have_kernels(name: str) -> None:
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    assert has_kernel(name, "CPU")
    assert has_kernel(name, "CUDA") == ichfast.build_info()["cuda"]


def test_type_checkers_see_what_the_ops_export(
    build: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    folder = Path(ichfast.__file__).parent
    assert (folder / "py.typed").exists()  # or mypy takes all of ichfast for Any
    shutil.copytree(folder / "ops", tmp_path / "ichfast" / "ops")
    monkeypatch.chdir(tmp_path)
    build.write_stubs()
    for package in (ops, reference):
        stub = tmp_path.joinpath(*package.__name__.split("."), "__init__.pyi")
        modules = re.findall(r"^from (\S+) import \*$", stub.read_text(), re.MULTILINE)
        names = [name for module in modules for name in importlib.import_module(module).__all__]
        assert sorted(names) == package.__all__


def copy_package(folder: Path) -> Path:
    """ichfast without its native libraries."""
    package = Path(ichfast.__file__).parent
    leave_out = shutil.ignore_patterns("_C*", "__pycache__")
    return Path(shutil.copytree(package, folder / "ichfast", ignore=leave_out))


def find_library(name: str) -> str:
    spec = importlib.util.find_spec(f"ichfast.{name}")
    assert spec is not None
    assert spec.origin is not None
    return spec.origin


def test_missing_native_library(tmp_path: Path) -> None:
    """One sentence that says what to do."""
    package = copy_package(tmp_path)
    result = python("import ichfast", path=tmp_path)
    assert result.returncode != 0
    message = result.stderr.strip().splitlines()[-1]
    assert message == (
        "ImportError: ichfast's native libraries do not load (No module named "
        "'ichfast._C_python'); build them with `pip install --no-build-isolation .` in the torch "
        "environment you use, torch>=2.11."
    )
    shutil.copy(find_library("_C_python"), package)
    result = python("import ichfast", path=tmp_path)
    assert "do not load (the library _C_cpu is missing); build them" in result.stderr
    (package / "_C_cpu.abi3.so").write_bytes(b"no library")
    result = python("import ichfast", path=tmp_path)
    assert re.search(r"do not load \(.*_C_cpu.*\); build them", result.stderr)


@pytest.mark.parametrize(
    ("toolkit", "torch_cuda", "library", "message"),
    [
        (
            None,
            "13.0",
            b"",
            "this build of ichfast has CPU kernels only; build with `ICHFAST_CUDA=1",
        ),
        ("13.0", None, b"", "is built without CUDA; install a CUDA build of torch"),
        (
            "13.0",
            "13.0",
            None,
            r"kernels do not load \(the library _C_cuda is missing\); build with `ICHFAST",
        ),
        (
            "13.0",
            "13.0",
            b"no library",
            r"kernels do not load \(.*_C_cuda.*\); build with `ICHFAST",
        ),
    ],
    ids=["not_built", "cpu_torch", "missing", "broken"],
)
def test_without_cuda_kernels(
    toolkit: str | None, torch_cuda: str | None, library: bytes | None, message: str, tmp_path: Path
) -> None:
    """The CPU's work, and what a CUDA tensor meets says why there are no others."""
    package = copy_package(tmp_path)
    # The real kernels, and another story of how they were built.
    shutil.copy(find_library("_C_cpu"), package)
    (package / "_C_python.py").write_text(
        f"def build_info(): return dict(cuda_toolkit={toolkit!r})\n"
    )
    if library is not None:
        (package / "_C_cuda.abi3.so").write_bytes(library)
    code = (
        f"import torch; torch.version.cuda = {torch_cuda!r}\n"
        "from torch._subclasses import FakeTensorMode\n"
        "import ichfast; from ichfast.ops import attention_mask\n"
        "assert not ichfast.build_info()['cuda']\n"
        "x = torch.rand(1, 1, 4, 4)\n"
        "print(attention_mask(x, x).shape)\n"
        "with FakeTensorMode(): x = torch.empty(1, 1, 4, 4, device='cuda')\n"
        "attention_mask(x, x)"
    )
    result = python(code, path=tmp_path)
    assert result.stdout == "torch.Size([1, 2, 4, 4])\n", result.stderr
    error = result.stderr.strip().splitlines()[-1]
    assert re.fullmatch(
        rf"NotImplementedError: attention_mask: image is on cuda:0, but .*{message}.*, "
        r"or move it with image\.cpu\(\)",
        error,
    )


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Any:
    """setup.py as a module, in an environment that names no toolkit and finds none on the PATH."""
    for name in ("ICHFAST_CUDA", "CUDA_HOME", "CUDA_PATH", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    spec = importlib.util.spec_from_file_location("ichfast_setup", SETUP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def toolkit(folder: Path, version: str, known: str = "75 80 86 87 89 90 100 103 120 121") -> Path:
    """A folder with an nvcc that says what setup.py asks it."""
    listed = "; ".join(f"echo compute_{architecture}" for architecture in known.split())
    script(
        folder / "bin" / "nvcc",
        f"""case "$1" in
--version) echo "Cuda compilation tools, release {version}, V{version}.88" ;;
--list-gpu-arch) {listed} ;;
--dryrun) echo '#$ _SPACE_= ' >&2; echo '#$ TOP={folder}/bin/..' >&2 ;;
*) exit 1 ;;
esac""",
    )
    return folder


def test_toolkit_behind_a_wrapper(build: Any, tmp_path: Path, monkeypatch: Any) -> None:
    real = toolkit(tmp_path / "cuda 13", "13.0")
    script(tmp_path / "bin" / "nvcc", f'exec "{real}/bin/nvcc" "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    assert build.find_toolkit() == (real, "13.0")
    other = toolkit(tmp_path / "cuda 12", "12.8")
    for name in ("CUDA_PATH", "CUDA_HOME"):  # the second counts more
        monkeypatch.setenv(name, str(other))
        assert build.find_toolkit() == (other, "12.8")
        monkeypatch.setenv("CUDA_PATH", str(tmp_path))


def test_toolkit_in_use(build: Any, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("CUDA_HOME", str(toolkit(tmp_path, "13.2")))
    for wish in ("auto", "1", ""):
        monkeypatch.setenv("ICHFAST_CUDA", wish)
        assert build.choose_toolkit("2.11.0+cu130", "13.0", "9.0") == (tmp_path, "13.2")
    monkeypatch.setenv("ICHFAST_CUDA", "0")
    assert build.choose_toolkit("2.11.0+cu130", "13.0", "9.0") is None
    assert build.choose_toolkit("2.11.0+cu126", "12.6", "9.0") is None
    assert capsys.readouterr().out == ""


def test_auto_without_cuda(build: Any, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert build.choose_toolkit("2.11.0+cu130", "13.0", "9.0") is None
    assert "CPU kernels only, since no nvcc was found in" in capsys.readouterr().out
    toolkit(tmp_path, "13.0")
    assert build.choose_toolkit("2.11.0+cpu", None, "9.0") is None
    assert "CPU kernels only, since torch 2.11.0+cpu is built without" in capsys.readouterr().out
    assert build.choose_toolkit("2.11.0+cu126", "12.6", "9.0") is None
    assert re.match(
        r"ichfast builds CPU kernels only, since the CUDA toolkit in \S+ is 13\.0 and torch "
        r"2\.11\.0\+cu126 is built for CUDA 12\.6: name a toolkit 12\.x in CUDA_HOME\.",
        capsys.readouterr().out,
    )


def test_auto_without_a_gpu(build: Any, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("CUDA_HOME", str(toolkit(tmp_path, "13.0")))
    assert build.choose_toolkit("2.11.0+cu130", "13.0", "") is None
    assert "CPU kernels only, since nvidia-smi lists no GPU here" in capsys.readouterr().out
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")  # for another machine
    assert build.choose_toolkit("2.11.0+cu130", "13.0", "") == (tmp_path, "13.0")
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST")
    monkeypatch.setenv("ICHFAST_CUDA", "1")
    assert build.choose_toolkit("2.11.0+cu130", "13.0", "") == (tmp_path, "13.0")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("printed", "gpus"),
    [("8.6\n8.6\n9.0", "8.6 9.0"), ("NVIDIA-SMI has failed because it 13.0", ""), ("", "")],
)
def test_gpus(build: Any, tmp_path: Path, monkeypatch: Any, printed: str, gpus: str) -> None:
    assert build.find_gpus() == ""  # no nvidia-smi on this PATH
    script(tmp_path / "nvidia-smi", f"printf '{printed}\n'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert build.find_gpus() == gpus


@pytest.mark.parametrize(
    ("wish", "version", "torch_cuda", "message"),
    [
        ("yes", "13.0", "13.0", "ICHFAST_CUDA must be auto, 0 or 1, not 'yes'."),
        ("1", None, "13.0", r"ICHFAST_CUDA=1, but no nvcc was found in \S+/bin: install a CUDA"),
        ("1", "13.0", None, "ICHFAST_CUDA=1, but torch 2.99 is built without CUDA: install a CUDA"),
        ("1", "13.0", "12.8", r"ICHFAST_CUDA=1, but the CUDA toolkit in \S+ is 13.0 and torch 2.99 "
         "is built for CUDA 12.8: name a toolkit 12.x in CUDA_HOME."),
    ],
)  # fmt: skip
def test_build_refusals(
    build: Any,
    tmp_path: Path,
    monkeypatch: Any,
    wish: str,
    version: str | None,
    torch_cuda: str | None,
    message: str,
) -> None:
    if version:
        toolkit(tmp_path, version)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("ICHFAST_CUDA", wish)
    with pytest.raises(SystemExit, match=f"ichfast: {message}"):
        build.choose_toolkit("2.99", torch_cuda, "9.0")


def test_architectures(build: Any, tmp_path: Path, monkeypatch: Any) -> None:
    newer = toolkit(tmp_path / "13", "13.0")
    older = toolkit(tmp_path / "12", "12.6", "50 75 80 86 87 89 90")
    everything = (
        "7.5 8.0 8.6 9.0 10.0+PTX 12.0",
        ["-gencode=arch=compute_75,code=[sm_75]",
         "-gencode=arch=compute_80,code=[sm_80,sm_86,sm_90]",
         "-gencode=arch=compute_100,code=[sm_100,sm_120]",
         "-gencode=arch=compute_100,code=compute_100"],
    )  # fmt: skip
    all_it_knows = (
        "7.5 8.0+PTX 8.6 9.0",
        ["-gencode=arch=compute_75,code=[sm_75]",
         "-gencode=arch=compute_80,code=[sm_80,sm_86,sm_90]",
         "-gencode=arch=compute_80,code=compute_80"],
    )  # fmt: skip
    assert build.choose_architectures(newer, "8.6 9.0") == ("8.6 9.0", [])
    assert build.choose_architectures(older, "12.0") == all_it_knows  # but no 12.0
    monkeypatch.setenv("ICHFAST_CUDA", "1")
    assert build.choose_architectures(newer, "") == everything
    assert build.choose_architectures(newer, "9.0") == everything  # not this machine's alone
    assert build.choose_architectures(older, "9.0") == all_it_knows
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0;9.0a; 12.0+PTX")
    assert build.choose_architectures(older, "9.0") == ("8.0 9.0a 12.0+PTX", [])


@pytest.mark.parametrize(
    ("says", "message"),
    [
        (None, "no C++ compiler '{path}' found"),
        ("error: unrecognized '-std=c++20'", "the C++ compiler '{path}' (g++ 9) is too old"),
        ("#define __cplusplus 201709L", "the C++ compiler '{path}' (g++ 9) is too old"),  # g++ 10
        ("#define __cplusplus 202002L", None),
    ],
)
def test_compilers(
    build: Any, tmp_path: Path, monkeypatch: Any, says: str | None, message: str | None
) -> None:
    path = tmp_path / "mine"
    if says is not None:
        script(path, f"""case "$*" in *--version) echo g++ 9 ;; *) echo "{says}" ;; esac""")
    monkeypatch.setenv("CXX", f"{path} -pipe")
    if message is None:
        build.check_compiler()
    else:
        with pytest.raises(SystemExit) as refusal:
            build.check_compiler()
        what = f"ichfast: {message.format(path=path)}: install g++ 11 or newer"
        assert str(refusal.value).startswith(what)
    monkeypatch.delenv("CXX")
    build.check_compiler()  # that of this machine


def test_python_s_headers(build: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(build.sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(SystemExit, match=r"ichfast: Python's headers are missing .*python3-dev"):
        build.check_compiler()


def test_setup_refuses_before_it_compiles(tmp_path: Path) -> None:
    """With the torch that is here, whatever its CUDA: none at all, or not 99."""
    environment = {**os.environ, "ICHFAST_CUDA": "1", "CUDA_HOME": str(toolkit(tmp_path, "99.0"))}
    command = [sys.executable, str(SETUP), "build_ext", "--build-lib", str(tmp_path / "lib")]
    result = subprocess.run(
        [*command, "--build-temp", str(tmp_path / "temp")],
        cwd=SETUP.parent, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    (sentence,) = result.stderr.strip().splitlines()
    assert re.match(
        r"ichfast: .*(is 99\.0 and torch .* built for CUDA|built without CUDA)", sentence
    )
    assert not (tmp_path / "lib").exists()
