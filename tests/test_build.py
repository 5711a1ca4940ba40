"""What is loaded and built: the native library, and nothing that only a part needs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch

import ichfast

HEAVY = ("pydicom", "nibabel", "matplotlib", "jinja2", "scipy", "monai", "safetensors", "tqdm")


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
    assert set(info) == {"version", "compiler", "torch_target", "simd", "cuda"}
    assert info["version"] == ichfast.__version__
    assert info["torch_target"] == "2.11"
    assert re.search(r"GCC|[Cc]lang", info["compiler"])
    assert info["simd"]
    assert info["cuda"] in (False, True)


def test_ops_are_registered_for_the_cpu() -> None:
    ops = ["attention_mask", "attention_wmse", "ct_window", "overlap_counts", "tversky"]
    for name in [*ops, "attention_mask_backward", "attention_wmse_backward", "tversky_backward"]:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"ichfast::{name}", "CPU")


def test_missing_native_library(tmp_path: Path) -> None:
    """One sentence that says what to do."""
    package = Path(ichfast.__file__).parent
    shutil.copytree(
        package, tmp_path / "ichfast", ignore=shutil.ignore_patterns("_C*", "__pycache__")
    )
    result = python("import ichfast", path=tmp_path)
    assert result.returncode != 0
    message = result.stderr.strip().splitlines()[-1]
    assert message == (
        "ImportError: ichfast's native library does not load (No module named 'ichfast._C'); "
        "build it with `pip install --no-build-isolation .` in the torch environment you use, "
        "torch>=2.11."
    )
