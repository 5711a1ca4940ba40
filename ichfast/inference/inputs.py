"""What there is to segment under the paths that a user gives: DICOM series and other scans."""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ichfast.data.layouts import detect_layout, get_layout
from ichfast.data.layouts.base import EVERYTHING, Map, Unit
from ichfast.data.layouts.dicom_folder import DicomFolder, list_series
from ichfast.data.layouts.nifti_folder import NiftiFolder
from ichfast.data.listing import NIFTI, strip_suffix
from ichfast.data.problems import Problem, Problems, Refused, make_printable
from ichfast.data.series import Series
from ichfast.errors import DataError

LABEL = 40
"""characters of a folder's or a scan's name in that of its results"""
HIDDEN = "…"
"""in the place of a name"""


class Notes(Problems):
    """Problems of a tree of studies, in which no number of bad files stops the work on others."""

    MAX_SHARE = 1.0


@dataclass(frozen=True)
class Item:
    """What is read in one go: the files of one DICOM series, or one scan by its name."""

    root: Path
    layout: str
    unit: Unit
    digest: str = field(compare=False)
    """of the files as they were listed"""

    @property
    def label(self) -> str:
        """A name for people: of the folder that the series lies in, or of the scan."""
        if not self.unit.files:
            return self.unit.name
        path = self.root / self.unit.files[0]
        return strip_suffix(path) if self.layout == NiftiFolder.name else path.parent.name

    def make_name(self, salt: bytes | None = None) -> str:
        """Of its results: the label and twelve digits of its place and id; with a salt, digits
        alone, which nobody without the salt can trace back. No two items have the same."""
        identity = os.fsencode(f"{self.root.resolve()}\n{self.unit.name}")
        digest = hashlib.blake2b(identity, key=salt or b"", digest_size=6).hexdigest()
        return f"scan-{digest}" if salt else f"{make_safe(self.label)}-{digest}"


class Task(NamedTuple):
    name: str
    """of its results, a folder in the output folder"""
    item: Item


def make_safe(label: str) -> str:
    """A label as part of a file's name on any system."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", label).strip("._-")[:LABEL]
    return safe or "scan"


def list_items(path: Path, problems: Problems, run: Map = map) -> list[Item]:
    """The series and scans under one path that a user gave, and in the problems everything else
    there. DataError where there is nothing to segment."""
    path = path.absolute()
    if path.is_file():
        root, layout, units = path.parent, *_list_file(path, problems, run)
    else:
        root, found = path, detect_layout(path)  # which says where there is no such folder
        layout, units = found.name, found.list_units(path, problems, run, EVERYTHING)
    return [Item(root, layout, unit, _digest_listed(root, unit)) for unit in units]


def _digest_listed(root: Path, unit: Unit) -> str:
    """Empty where a file has gone meanwhile: reading then says so, and of this unit alone."""
    try:
        return digest_files(root, unit.files)
    except DataError:
        return ""


def _list_file(path: Path, problems: Problems, run: Map) -> tuple[str, list[Unit]]:
    if path.name.lower().endswith(NIFTI):
        return NiftiFolder.name, [Unit(strip_suffix(path), (path.name,))]
    problems.expect(1)
    units = list_series(path.parent, [path.name], problems, run, EVERYTHING)
    return DicomFolder.name, units


def digest_files(root: Path, names: Sequence[str]) -> str:
    """Of the names, sizes and times of files under the root."""
    digest = hashlib.sha256()
    for name in names:
        try:
            found = os.stat(root / name)
        except OSError as error:
            raise DataError(f"{root / name} cannot be read ({error.strerror})") from None
        text = f"{name}\n{found.st_size}\n{found.st_mtime_ns}\n"
        digest.update(text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def list_sources(series: Series) -> list[str]:
    """The names of its files, each once: without the number of a slice in a file of many."""
    return list(dict.fromkeys(re.sub(r"#\d+$", "", source) for source in series.sources))


def read_item(item: Item, problems: Problems) -> Iterator[Series]:
    """Its series, usually one. DataError where DICOM files have changed since they were listed."""
    if item.layout == NiftiFolder.name and item.unit.files:
        yield _read_nifti_file(item.root / item.unit.files[0], item.unit.name)
    else:
        layout = get_layout(item.layout, item.root)
        yield from layout.read_unit(item.root, item.unit, problems, with_masks=False)
    if digest_files(item.root, item.unit.files) != item.digest:
        raise DataError("its files changed while they were read; run the same command again")


def _read_nifti_file(path: Path, name: str) -> Series:
    from ichfast.data.nifti import read_nifti  # nibabel is loaded only where it is needed

    try:
        return read_nifti(path, None, path.name, name)[0]
    except Refused as refused:
        raise DataError(f"{path.name}: {refused}") from None


def describe_problems(
    problems: Sequence[Problem], limit: int = 20, *, anonymous: bool = False
) -> list[str]:
    """Each once, with its file unless ``anonymous``; what is beyond the limit as a number."""
    lines = list(
        dict.fromkeys(f"{'a file' if anonymous else one.source}: {one.reason}" for one in problems)
    )
    more = len(lines) - limit
    return [*lines[:limit], f"and {more} more"] if more > 0 else lines


def hide_place(text: str, item: Item) -> str:
    """An error about the item without its paths and its name."""
    own = {str(item.root), item.unit.name, *item.unit.files}
    names = own | {make_printable(name) for name in own} | {Path(name).name for name in own}
    for name in sorted(names - {""}, key=len, reverse=True):
        text = text.replace(name, HIDDEN)
    return text
