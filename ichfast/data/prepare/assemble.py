"""All parts -> the pool, in the order of the plan. Starts over whenever it was cut short."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ichfast
from ichfast.data.layouts.base import Map
from ichfast.data.pool import FORMAT, HEADER, IMAGES, INDEX, MANIFEST, MASKS, npy_header
from ichfast.data.prepare.part import POOL, Part
from ichfast.data.prepare.plan import PoolPlan
from ichfast.data.problems import Problem
from ichfast.data.sampling import choose
from ichfast.errors import DataError
from ichfast.files import flush, flush_path, open_at, report_errors

COPY = "pool-copy"


@dataclass(frozen=True)
class Move:
    """The slices of a part with these sources (None: all), and where in the pool the first goes."""

    part: Part
    sources: frozenset[str] | None
    folder: Path
    first: int


def assemble(
    plan: PoolPlan, parts: Sequence[Part], work: Path, problems: list[Problem], run: Map
) -> Path:
    """The folder with the pool, complete when this returns. Where all slices lie at their places in
    the pool's own file already, only the index is written; otherwise they are copied.
    """
    size, limit, seed = (plan.arguments[name] for name in ("size", "limit", "seed"))
    sources = [row["source"] for part in parts for row in part.read()[0]] if limit else []
    chosen = set(choose(sources, limit, seed)) if limit and limit < len(sources) else None
    patients, series, ranges = set(), set(), set()
    slices, labelled, settled = 0, False, chosen is None
    moves = []
    for part in parts:
        rows = _read_rows(part, chosen)
        own = frozenset(row["source"] for row in rows) if chosen is not None else None
        settled &= part.first == slices
        moves.append(Move(part, own, work / COPY, slices))
        slices += len(rows)
        for row in rows:
            labelled |= row["has_mask"]
            patients.add(row["patient"])
            series.add((row["study"], row["series"]))
            ranges |= {tuple(row["hu_range"])} if row["hu_range"] else set()
    if not slices:
        raise DataError("no slice for the pool")
    folder = work / (POOL if settled else COPY)
    if not settled:
        with report_errors(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        for _ in run(_move, moves):
            pass
    files: dict[str, dict[str, Any]] = {}
    for name, kind, pixel in ((IMAGES, "<i2", 2), (MASKS, "|u1", 1)):
        if name == IMAGES or labelled:
            files[name] = {"bytes": HEADER + pixel * size**2 * slices}
            with open_at(folder / name, 0) as file:
                file.write(npy_header(kind, (slices, size, size)))
                file.truncate(files[name]["bytes"])
                flush(file)
    digest = hashlib.sha256()
    with report_errors(folder / INDEX), (folder / INDEX).open("wb") as file:
        for part in parts:
            for row in _read_rows(part, chosen):
                del row["hu_range"]  # stored once, for the whole pool
                line = json.dumps(row).encode() + b"\n"
                file.write(line)
                digest.update(line)
        files[INDEX] = {"bytes": file.tell(), "sha256": digest.hexdigest()}
        flush(file)
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
        "source": plan.digest_sources(),
        "files": files,
        "problems": [
            {"source": problem.source, "reason": problem.reason, "skip": problem.skip}
            for problem in problems
        ],
    }
    with report_errors(folder / MANIFEST), (folder / MANIFEST).open("wb") as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")
        flush(file)
    with report_errors(folder):
        flush_path(folder)
    return folder


def _read_rows(part: Part, chosen: set[str] | None) -> list[dict[str, Any]]:
    rows, _ = part.read()
    return [row for row in rows if chosen is None or row["source"] in chosen]


def _move(move: Move) -> None:
    size, at = move.part.size, move.first
    with open_at(move.folder / IMAGES, HEADER + 2 * size**2 * at) as images:
        for row, (image, *masks) in move.part.slices():
            if move.sources is not None and row["source"] not in move.sources:
                continue
            images.write(image)
            for mask in masks:  # where there is none, the file has a hole, which reads as zeros
                with open_at(move.folder / MASKS, HEADER + size**2 * at) as file:
                    file.write(mask)
            at += 1
