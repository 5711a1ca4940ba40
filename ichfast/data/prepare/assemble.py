"""All parts -> the pool, in the order of the plan. Begun anew whenever it was cut short."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

import ichfast
from ichfast.data.pool import FORMAT, IMAGES, INDEX, MANIFEST, MASKS
from ichfast.data.prepare.durable import flush, flush_folder, writing
from ichfast.data.prepare.part import Part
from ichfast.data.prepare.plan import Plan
from ichfast.data.prepare.units import choose
from ichfast.data.problems import Problem
from ichfast.errors import DataError


def assemble(plan: Plan, parts: Sequence[Part], folder: Path, problems: list[Problem]) -> None:
    """Write the pool into the folder, which is made anew and complete only when this returns."""
    with writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    size, limit, seed = (plan.arguments[name] for name in ("size", "limit", "seed"))
    sources = [row["source"] for part in parts for row in part.read()[0]] if limit else []
    chosen = set(choose(sources, limit, seed)) if limit and limit < len(sources) else None
    patients, series, ranges = set(), set(), set()
    slices, labelled = 0, False
    for row, _, _ in _chosen(parts, chosen):
        slices += 1
        labelled |= row["has_mask"]
        patients.add(row["patient"])
        series.add((row["study"], row["series"]))
        ranges |= {tuple(row["hu_range"])} if row["hu_range"] else set()
    if not slices:
        raise DataError("not one slice for the pool")
    shape = (slices, size, size)
    with (
        _File(folder / IMAGES) as images,
        _File(folder / MASKS) as masks,
        _File(folder / INDEX) as index,
    ):
        images.write(_npy_header("<i2", shape))
        masks.write(_npy_header("|u1", shape))
        for row, image, mask in _chosen(parts, chosen, size):
            images.write(image)
            if labelled:
                masks.write(mask or bytes(size**2))
            del row["hu_range"]  # told once, for the whole pool
            index.write(json.dumps(row).encode() + b"\n")
    files = {IMAGES: images, MASKS: masks, INDEX: index}
    if not labelled:
        files.pop(MASKS).path.unlink()
    content = {
        "format": FORMAT,
        "ichfast": ichfast.__version__,
        "slices": slices,
        "size": size,
        "patients": len(patients),
        "series": len(series),
        "labelled": labelled,
        "hu_range": [max(r[0] for r in ranges), min(r[1] for r in ranges)] if ranges else None,
        "layout": plan.layout,
        "arguments": plan.arguments,
        "source": plan.source_digest(),
        "files": {
            name: {"bytes": file.bytes, "sha256": file.digest.hexdigest()}
            for name, file in files.items()
        },
        "problems": [
            {"source": problem.source, "reason": problem.reason, "skip": problem.skip}
            for problem in problems
        ],
    }
    with _File(folder / MANIFEST) as manifest:
        manifest.write(json.dumps(content, indent=1).encode() + b"\n")
    with writing(folder):
        flush_folder(folder)


def _chosen(
    parts: Sequence[Part], chosen: set[str] | None, size: int = 0
) -> Iterator[tuple[dict[str, Any], bytes, bytes]]:
    """Each row with its image and mask, part by part; with size 0, the rows alone."""
    for part in parts:
        with part.images.open("rb") as images, part.masks.open("rb") as masks:
            for row in part.read()[0]:
                image = images.read(2 * size**2)
                mask = masks.read(size**2) if row["has_mask"] else b""
                if chosen is None or row["source"] in chosen:
                    yield row, image, mask


def _npy_header(kind: str, shape: tuple[int, ...]) -> bytes:
    buffer = BytesIO()
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


class _File:
    """A file that is hashed while it is written, and on the disk when it is closed."""

    def __init__(self, path: Path):
        self.path = path
        self.digest = hashlib.sha256()
        self.bytes = 0

    def __enter__(self) -> Self:
        with writing(self.path):
            self.file = self.path.open("wb")
        return self

    def write(self, data: bytes) -> None:
        with writing(self.path):
            self.file.write(data)
        self.digest.update(data)
        self.bytes += len(data)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with writing(self.path), self.file:
            flush(self.file)
