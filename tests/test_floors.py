"""The floors in pyproject.toml are at least those that SECURITY.md gives reasons for."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| ([a-z0-9-]+) \| (\d[\d.]*) \| .*(?:CVE-\d{4}-\d+).* \|$", re.MULTILINE)
REASONS = dict(ROW.findall((ROOT / "SECURITY.md").read_text(encoding="utf-8")))


def list_requirements() -> list[Requirement]:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = content["project"]
    texts = [*content["build-system"]["requires"], *project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        texts += extra
    return [Requirement(text) for text in texts]


def find_floor(requirement: Requirement) -> Version | None:
    floors = [s.version for s in requirement.specifier if s.operator in (">=", "==")]
    return max(map(Version, floors)) if floors else None


def test_the_list_is_read() -> None:
    named = {"pydicom", "python-gdcm", "monai", "pillow", "torch", "setuptools"}
    assert named <= REASONS.keys()
    assert REASONS.keys() <= {requirement.name for requirement in list_requirements()}


@pytest.mark.parametrize("name", REASONS)
def test_floor(name: str) -> None:
    """Wherever it is required, and what is installed here too."""
    for requirement in list_requirements():
        if requirement.name == name:
            floor = find_floor(requirement)
            assert floor is not None, requirement
            assert floor >= Version(REASONS[name]), requirement
    try:
        installed = Version(metadata.version(name))
    except metadata.PackageNotFoundError:
        return
    assert installed >= Version(REASONS[name])


def test_all_but_build_tools_have_a_floor() -> None:
    without = {r.name for r in list_requirements() if find_floor(r) is None}
    assert without <= {"ninja"}


def test_the_makefile_builds_with_the_same_tools() -> None:
    (floor,) = (str(r.specifier) for r in list_requirements() if r.name == "setuptools")
    for named in re.findall(r"'setuptools([^']*)'", (ROOT / "Makefile").read_text()):
        assert Requirement(f"setuptools{named}").specifier == Requirement(f"x{floor}").specifier


def test_gdcm_and_openjpeg_get_no_files() -> None:
    """What the reasons above rest on: their faults are in their readers of files."""
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "ichfast").rglob("*.py"))
    assert not re.search(r"import (gdcm|openjpeg)|(gdcm|openjpeg)\.\w*Reader", sources)
