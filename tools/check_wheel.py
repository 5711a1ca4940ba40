"""Builds the wheel as a user does, and shows that it is what its name says; for `make check-wheel`.

    python tools/check_wheel.py [ENVIRONMENT ...]

A wheel is made of the sdist, unpacked where the path has spaces. torch-abi-audit, abi3audit and
auditwheel look into it, and the last gives it its manylinux tag. Then it is installed into a fresh
environment that has the torch of this one, and into one for each other that is named, and tests
run there. The wheel is left in build/wheel/.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from packaging.utils import parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "wheel"
FOLDER = BUILD / "a path (with spaces)"
OLDEST_TORCH = Version("2.11")
GLIBC = "2_28"
"""of the manylinux tag; torch's own wheels have the same"""
BESIDE_TORCH = ("libtorch*.so*", "libc10*.so*", "libcudart.so*")
TESTS = (
    "tests/test_libraries.py",
    "tests/test_python_module.py",
    "tests/ops/test_overlap_counts.py",
    "tests/ops/test_tversky.py",
)


def main(environments: Sequence[str]) -> None:
    shutil.rmtree(BUILD, ignore_errors=True)
    wheel = add_manylinux_tag(audit(build()))
    pythons = {test(wheel, Path(environment)) for environment in (sys.prefix, *environments)}
    print(f"check-wheel: {wheel.relative_to(ROOT)}, {wheel.stat().st_size / 2**20:.1f} MiB")
    if len(pythons) == 1:
        print(
            f"check-wheel: tested on CPython {min(pythons)} alone, since no environment of another "
            "one was found (`make cuda-venv` makes it where there are nvcc and a second Python)"
        )


def build() -> Path:
    """The wheel as pip makes it."""
    sdist = f"from setuptools import build_meta; build_meta.build_sdist({str(BUILD)!r})"
    run(sys.executable, "-c", sdist, folder=ROOT)
    (archive,) = BUILD.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(FOLDER, filter="data")
    options = ("--no-build-isolation", "--no-deps", "--wheel-dir", FOLDER)
    pip("wheel", *options, FOLDER / archive.name.removesuffix(".tar.gz"))
    (wheel,) = FOLDER.glob("*.whl")
    tags = {(tag.interpreter, tag.abi) for tag in parse_wheel_filename(wheel.name)[3]}
    if tags != {("cp311", "abi3")}:
        sys.exit(f"check-wheel: {wheel.name} is not for every CPython from 3.11 on")
    return wheel


def audit(wheel: Path) -> Path:
    """What its libraries ask of torch and of Python."""
    run("abi3audit", "--strict", "--summary", wheel)
    with zipfile.ZipFile(wheel) as file:
        file.extractall(BUILD / "unpacked")
    package = json.loads(
        run("torch-abi-audit", "--check", "both", "--json", BUILD / "unpacked" / "ichfast")
    )
    libraries = [*package["extensions"], *package["bundled_libs"]]
    for library in libraries:
        name, torch = Path(library["path"]).name, library["torch"]
        newest = Version(torch["min_torch_version"] or "0")
        print(f"check-wheel: {name} needs torch {newest}: {torch['version_defining_symbols']}")
        if not torch["stable"] or torch["unknown_shim_symbols"] or newest > OLDEST_TORCH:
            sys.exit(f"check-wheel: {name} does not load under torch {OLDEST_TORCH}: {torch}")
    if len(libraries) < 2:
        sys.exit(f"check-wheel: {wheel.name} lacks a library: {libraries}")
    return wheel


def add_manylinux_tag(wheel: Path) -> Path:
    """Fails where a library needs a newer glibc, or another library than torch brings."""
    excluded = [part for name in BESIDE_TORCH for part in ("--exclude", name)]
    name = f"manylinux_{GLIBC}_{platform.machine()}"
    run("auditwheel", "repair", "--only-plat", "--plat", name, *excluded, "-w", BUILD, wheel)
    (tagged,) = BUILD.glob("*.whl")
    return tagged


def test(wheel: Path, environment: Path) -> str:
    """Run tests on the wheel in a fresh environment; the version of its Python, as 3.11."""
    asked = "import platform, sysconfig, torch; print(platform.python_version(), torch.__version__)"
    asked += "; print(sysconfig.get_path('purelib'))"
    versions, packages = run(environment / "bin" / "python", "-c", asked).splitlines()
    print(f"check-wheel: installed and tested on CPython and torch {versions}")
    fresh = FOLDER / versions
    run(environment / "bin" / "python", "-m", "venv", "--without-pip", fresh)
    python = fresh / "bin" / "python"
    pip("--python", python, "install", "--no-deps", wheel)
    (own,) = fresh.glob("lib/python*/site-packages")
    (own / "torch.pth").write_text(packages)  # after its own, and no further .pth is read there
    place = "import ichfast; print(ichfast.__file__)"
    origin = run(python, "-P", "-c", place, folder=FOLDER).strip()
    if not Path(origin).is_relative_to(own):
        sys.exit(f"check-wheel: it is {origin} that is imported, and not what was installed")
    print(run(python, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, folder=ROOT))
    return ".".join(versions.split(".")[:2])


def pip(*arguments: object) -> None:
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)


def run(*command: object, folder: Path = ROOT) -> str:
    """What it prints; of a command that fails all of it, and the end."""
    path = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        print(done.stdout + done.stderr)
        sys.exit(f"check-wheel: status {done.returncode} of {' '.join(map(str, command))}")
    return done.stdout


if __name__ == "__main__":
    main(sys.argv[1:])
