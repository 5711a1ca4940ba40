"""An op has one name, and all its files are found by it: nothing is missing, nothing left over.

The names are those of the loaded library. CUDA kernels need not be built: their registrations are
read from the source.
"""

import inspect
import re
from pathlib import Path

import pytest
import torch
from harness import OPS, find_testers

from benchmarks.registry import find_benchmarks
from ichfast import ops
from ichfast.ops import reference
from ichfast.ops._exports import export_modules

ROOT = Path(__file__).parents[2]
SCHEMAS = sorted(
    name.removeprefix("ichfast::")
    for name in torch._C._dispatch_get_all_op_names()
    if name.startswith("ichfast::")
)
# What an op has beside the native op of its name: passes over the data that come before or after.
PASSES = re.compile(r"(_moments|_sums)?(_backward)?$")
FORWARD = [name for name in SCHEMAS if PASSES.sub("", name, count=1) == name]
# The files of an op; a folder marked True holds nothing but ops.
FILES = {
    "math": ("csrc/math/{}.h", False),
    "checks and results": ("csrc/ops/{}.h", True),
    "CPU kernel": ("csrc/cpu/{}.cpp", False),
    "CUDA kernels": ("csrc/kernels/{}.cuh", True),
    "CUDA launch": ("csrc/cuda/{}.cu", True),
    "Python function": ("ichfast/ops/{}.py", True),
    "plain form": ("ichfast/ops/reference/{}.py", True),
    "test": ("tests/ops/test_{}.py", False),
    "C++ test": ("tests/cpp/ops/test_{}.cpp", True),
    "benchmark": ("benchmarks/bench_{}.py", False),
}


# What a folder of csrc may include, beside itself.
ROOMS = {
    "math": set(),
    "dicom": set(),
    "common": {"math"},
    "kernels": {"math", "common/elements.h", "common/strides.h"},  # these two are without torch
    "ops": {"common", "math"},
    "cpu": {"ops", "common", "math"},
    "cuda": {"ops", "kernels", "common", "math"},
}


def has_kernel(name: str, key: str) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(f"ichfast::{name}", key))


@pytest.mark.parametrize("what", FILES)
def test_files(what: str) -> None:
    pattern, ops_only = FILES[what]
    missing = [pattern.format(op) for op in FORWARD if not (ROOT / pattern.format(op)).exists()]
    assert not missing, f"csrc/ops.cpp has an op without its {what}: write {', '.join(missing)}"
    if ops_only:
        folder, name = pattern.rsplit("/", 1)
        shape = re.compile(re.escape(name).replace(r"\{\}", "([a-z]\\w*)"))
        found = [m[1] for path in (ROOT / folder).iterdir() if (m := shape.fullmatch(path.name))]
        orphans = [pattern.format(op) for op in found if op not in FORWARD]
        assert not orphans, f"csrc/ops.cpp has no schema for {', '.join(orphans)}"


@pytest.mark.parametrize("room", ROOMS)
def test_includes_point_downward(room: str) -> None:
    for path in sorted((ROOT / "csrc" / room).rglob("*.*")):
        for name in re.findall(r'^#include "(.+)"', path.read_text(encoding="utf-8"), re.MULTILINE):
            known = {name, name.split("/")[0]} & ROOMS[room]
            assert name.startswith(f"{room}/") or known, f"{path.relative_to(ROOT)} includes {name}"


@pytest.mark.parametrize("name", SCHEMAS)
def test_kernels(name: str) -> None:
    op = PASSES.sub("", name, count=1)
    assert op in FORWARD, f"csrc/ops.cpp has {name} but no {op}"
    for file, what in ((f"csrc/cpu/{op}.cpp", "CPU"), (f"csrc/cuda/{op}.cu", "CUDA")):
        registered = re.findall(r'm\.impl\(\s*"(\w+)"', (ROOT / file).read_text(encoding="utf-8"))
        assert name in registered, f"{file} registers no {what} kernel for {name}"
    assert has_kernel(name, "CPU"), f"{name} has no CPU kernel: rebuild the library"
    assert has_kernel(name, "Meta"), f"ichfast/ops/{op}.py registers no fake kernel for {name}"


def test_the_library_is_that_of_the_source() -> None:
    """Otherwise the other tests speak of an older one."""
    source = (ROOT / "csrc" / "ops.cpp").read_text(encoding="utf-8")
    assert sorted(re.findall(r'm\.def\(\s*"(\w+)\(', source)) == SCHEMAS, "rebuild the library"


def test_an_older_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The import fails with torch's error, which does not say what to do."""
    (tmp_path / "newer").mkdir()
    source = "import torch\n@torch.library.register_fake('ichfast::newer')\ndef _(x): return x\n"
    for name, text in (("__init__", ""), ("newer", source)):
        (tmp_path / "newer" / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RuntimeError, match="ichfast::newer does not exist") as caught:
        export_modules({"__name__": "newer", "__path__": [str(tmp_path / "newer")]})
    assert "rebuild it" in caught.value.__notes__[0]


def test_exports() -> None:
    assert OPS == FORWARD, "an ichfast/ops/<op>.py does not export <op>: name it in __all__"
    missing = set(FORWARD) - set(reference.__all__)
    assert not missing, f"ichfast/ops/reference does not export {missing}: name it in __all__"
    assert list(find_testers()) == FORWARD
    assert set(FORWARD) <= find_benchmarks()[0].keys()


@pytest.mark.parametrize("op", OPS)
def test_the_plain_form_takes_the_same_arguments(op: str) -> None:
    """Their names, order and defaults; but no group, since it knows a single process."""
    own = dict(inspect.signature(getattr(ops, op)).parameters)
    own.pop("group", None)
    plain = inspect.signature(getattr(reference, op)).parameters
    assert [(p.name, p.kind, p.default) for p in own.values()] == [
        (p.name, p.kind, p.default) for p in plain.values()
    ]


@pytest.mark.parametrize("op", OPS)
def test_the_docstring_is_the_documentation(op: str) -> None:
    """It describes every argument, what is returned and what is raised."""
    function = getattr(ops, op)
    assert function.__module__ == f"ichfast.ops.{op}"
    text = inspect.getdoc(function) or ""
    sections = [section for section in ("Args:", "Returns:", "Raises:") if section not in text]
    assert not sections, f"the docstring of ichfast.ops.{op} has no {', '.join(sections)}"
    names = inspect.signature(function).parameters
    missing = [name for name in names if not re.search(rf"\b{name}\b", text)]
    assert not missing, f"the docstring of ichfast.ops.{op} does not describe {', '.join(missing)}"
