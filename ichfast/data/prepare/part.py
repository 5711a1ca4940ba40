"""One task: a few units -> the images, masks and rows of a part, on the disk."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ichfast.data.layouts import Layout
from ichfast.data.prepare.durable import whole
from ichfast.data.prepare.units import Unit, read_unit
from ichfast.data.problems import Problem, Problems
from ichfast.data.resize import positive_slices, resize_hu, resize_masks, resize_spacing
from ichfast.data.series import Series
from ichfast.errors import DataError

AT_ONCE = 8  # slices resized together; with 32, the larger buffers fragmented the heap


@dataclass(frozen=True)
class Part:
    """Where a part lies. Its rows come last, so with them all of it is there."""

    folder: Path
    number: int
    size: int

    @property
    def images(self) -> Path:
        return self.folder / f"{self.number:06}.images"

    @property
    def masks(self) -> Path:
        return self.folder / f"{self.number:06}.masks"

    @property
    def rows(self) -> Path:
        return self.folder / f"{self.number:06}.json"

    def done(self) -> bool:
        """Whether it is there, as large as its rows say (a disk may lose what it had promised)."""
        try:
            rows, _ = self.read()
            masked = sum(row["has_mask"] for row in rows)
            return (self.images.stat().st_size, self.masks.stat().st_size) == (
                2 * self.size**2 * len(rows),
                self.size**2 * masked,
            )
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def read(self) -> tuple[list[dict[str, Any]], list[Problem]]:
        content = json.loads(self.rows.read_bytes())
        return content["rows"], [Problem(*problem) for problem in content["problems"]]

    def bytes(self) -> int:
        return sum(path.stat().st_size for path in (self.images, self.masks, self.rows))


@dataclass(frozen=True)
class Task:
    root: Path
    layout: Layout
    part: Part
    units: tuple[Unit, ...]
    positive: bool
    expected: int  # files of the whole set, of which a few may be bad


def make_part(task: Task) -> list[Problem]:
    problems = Problems()
    problems.expect(task.expected)
    rows: list[dict[str, Any]] = []
    part = task.part
    with whole(part.images) as images, whole(part.masks) as masks:
        for unit in task.units:
            for scan in read_unit(task.root, task.layout, unit, problems):
                rows += _write(scan, task, problems, images, masks)
    listed = [(problem.source, problem.reason, problem.skip) for problem in problems.items]
    with whole(part.rows) as file:
        file.write(json.dumps({"rows": rows, "problems": listed}).encode())
    return problems.items


def _write(
    scan: Series, task: Task, problems: Problems, images: BinaryIO, masks: BinaryIO
) -> Iterator[dict[str, Any]]:
    """Append the scan's slices to the files; their rows."""
    size = task.part.size
    if scan.stored.shape[1] != scan.stored.shape[2]:
        problems.add(scan.sources[0], "its scan is not square")
        return
    blood = None if scan.mask is None else resize_masks(scan, size)
    indices = np.arange(len(scan))
    if task.positive and task.layout != "rsna":  # there the files were chosen by the table
        indices = positive_slices(scan, blood, problems)
    begin = images.tell()
    try:
        for start in range(0, len(indices), AT_ONCE):
            images.write(resize_hu(scan, indices[start : start + AT_ONCE], size).tobytes())
    except DataError as error:
        images.seek(begin)
        images.truncate()
        problems.add(scan.sources[0], str(error))
        return
    if blood is not None:
        masks.write(blood.numpy()[indices].tobytes())
    for i in indices:
        yield _row(scan, int(i), size)


def _row(scan: Series, i: int, size: int) -> dict[str, Any]:
    spacing = resize_spacing(scan, size)
    return {
        "patient": scan.patient,
        "study": scan.study,
        "series": scan.series,
        "position": float(scan.positions[i]),
        "spacing": list(spacing) if np.isfinite(spacing).all() else None,
        "hu_range": scan.hu_range,
        "source": scan.sources[i],
        "subtypes": scan.kinds(i),
        "has_mask": scan.mask is not None,
    }
