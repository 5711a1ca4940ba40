"""One task: a few units -> the images, masks and rows of a part, on the disk."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ichfast.data.layouts import get_layout
from ichfast.data.layouts.base import Layout, Unit
from ichfast.data.pool import HEADER, IMAGES, checksum
from ichfast.data.problems import Problem, Problems
from ichfast.data.resize import find_positive, resize_hu, resize_masks, resize_spacing
from ichfast.data.series import Series
from ichfast.errors import DataError
from ichfast.files import open_at, write_whole

PARTS, POOL = "parts", "pool"
AT_ONCE = 8  # slices resized together; with 32, the larger buffers fragmented the heap


@dataclass(frozen=True)
class Part:
    """Where a part lies. Its rows are written last, with a checksum of every image and mask, so
    that what a kill or a failing disk has left unfinished is found.
    """

    work: Path
    number: int
    size: int
    first: int | None  # place of its first slice in the pool's file; None: it has its own file

    @property
    def path(self) -> Path:
        """The file with its images, each followed by its mask where there are masks."""
        if self.first is None:
            return self.work / PARTS / f"{self.number:06}.slices"
        return self.work / POOL / IMAGES

    @property
    def offset(self) -> int:
        """The byte of that file at which the part begins."""
        return 0 if self.first is None else HEADER + 2 * self.size**2 * self.first

    @property
    def rows(self) -> Path:
        return self.work / PARTS / f"{self.number:06}.json"

    def is_done(self) -> bool:
        """Whether all of it is on the disk as it was written."""
        try:
            return all(row["sha256"] == _compute_checksums(data) for row, data in self.slices())
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def slices(self) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
        """Each row with its image, and its mask if it has one."""
        rows, _ = self.read()
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for row in rows:
                of_a_pixel = (2, 1) if row["has_mask"] else (2,)
                yield row, [file.read(k * self.size**2) for k in of_a_pixel]

    def read(self) -> tuple[list[dict[str, Any]], list[Problem]]:
        content = json.loads(self.rows.read_bytes())
        return content["rows"], [Problem(*problem) for problem in content["problems"]]

    def count_bytes(self) -> int:
        rows, _ = self.read()
        return self.size**2 * (2 * len(rows) + sum(bool(row["has_mask"]) for row in rows))


@dataclass(frozen=True)
class Task:
    root: Path
    layout_name: str
    part: Part
    units: tuple[Unit, ...]
    positive: bool
    expected: int  # files of the whole set, of which a few may be bad

    @property
    def layout(self) -> Layout:
        return get_layout(self.layout_name, self.part.work)


def make_part(task: Task) -> list[Problem]:
    problems = Problems()
    problems.expect(task.expected)
    rows: list[dict[str, Any]] = []
    part, room = task.part, sum(unit.slices for unit in task.units)
    with open_at(part.path, part.offset) as file:
        for unit in task.units:
            for scan in task.layout.read_unit(task.root, unit, problems):
                if part.first is not None and len(rows) + len(scan) > room:
                    raise DataError(
                        f"{task.root}: {scan.sources[0]} has changed since the work on the pool "
                        f"began; delete {part.work} and start again"
                    )
                rows += _write(scan, task, problems, file)
    listed = [(problem.source, problem.reason, problem.skip) for problem in problems.items]
    content = json.dumps({"rows": rows, "problems": listed}).encode()
    write_whole(part.rows, content, lasting=False)
    return problems.items


def _write(scan: Series, task: Task, problems: Problems, file: BinaryIO) -> list[dict[str, Any]]:
    """Append the scan's slices to the file and return their rows."""
    size = task.part.size
    if scan.stored.shape[1] != scan.stored.shape[2]:
        problems.add(scan.sources[0], "its scan is not square")
        return []
    blood = None if scan.mask is None else resize_masks(scan, size)
    known = scan.has_mask()
    indices = np.arange(len(scan))
    if task.positive and not task.layout.selects:
        indices = find_positive(scan, blood, problems)
    offset, rows = file.tell(), []
    try:
        for start in range(0, len(indices), AT_ONCE):
            some = indices[start : start + AT_ONCE]
            for i, image in zip(some, resize_hu(scan, some, size), strict=True):
                data = [image.tobytes()]
                if blood is not None and known[i]:
                    data.append(blood[i].numpy().tobytes())
                file.writelines(data)
                rows.append({**_make_row(scan, int(i), size), "sha256": _compute_checksums(data)})
    except DataError as error:
        file.seek(offset)
        problems.add(scan.sources[0], str(error))
        return []
    return rows


def _compute_checksums(data: list[bytes]) -> list[str]:
    return [checksum(one) for one in data]


def _make_row(scan: Series, i: int, size: int) -> dict[str, Any]:
    spacing = resize_spacing(scan, size)
    return {
        "patient": scan.patient,
        "study": scan.study,
        "series": scan.series,
        "position": float(scan.positions[i]),
        "spacing": list(spacing) if np.isfinite(spacing).all() else None,
        "hu_range": scan.hu_range,
        "source": scan.sources[i],
        "subtypes": scan.name_subtypes(i),
        "has_mask": bool(scan.has_mask()[i]),
    }
