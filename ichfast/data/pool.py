"""A pool: all slices of a data set as int16 HU at one size, memory-mapped, with their sources.
`python -m ichfast.prepare` makes it.
"""

import hashlib
import json
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader, BytesIO
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ichfast.data.problems import Problem, Problems, make_printable
from ichfast.data.series import SUBTYPES
from ichfast.errors import DataError
from ichfast.ops._arrays import to_tensor

FORMAT = 2
IMAGES, MASKS, INDEX, MANIFEST = "pool.npy", "masks.npy", "index.jsonl", "pool.json"
HEADER = 128  # bytes of a pool's .npy before its pixels, whatever the shape: NumPy fills up to 64s
_AGAIN = "delete the folder and make it again with python -m ichfast.prepare"


@dataclass(frozen=True, slots=True)
class PoolRow:
    """Where a slice comes from. Identifiers are the set's own pseudonyms."""

    patient: str
    study: str
    series: str
    position: float  # mm along the slice normal
    spacing: tuple[float, float] | None  # mm between the pool's rows, columns; None: unknown
    source: str  # file relative to the set's root
    subtypes: tuple[str, ...] | None  # of SUBTYPES, those seen; None: not known
    has_mask: bool

    def __repr__(self) -> str:
        """Without names: a notebook prints it."""
        return f"<PoolRow: at {self.position:g} mm, with{'' if self.has_mask else 'out'} a mask>"


class Pool:
    """A pool's folder, checked for format, files and sizes; `verify` reads every byte as well."""

    def __init__(self, path: Path):
        self.path = Path(path)
        content = self._read_manifest()
        with _refuse_damage(self.path / MANIFEST):
            self.size = _parse_count(content["size"])
            self.arguments: dict[str, Any] = {"layout": content["layout"], **content["arguments"]}
            self.source = str(content["source"])  # digest of the names and sizes of the set's files
            self.patients = _parse_count(content["patients"])
            self.series = _parse_count(content["series"])
            # Where given, HU beyond it were cut off before the set was published.
            self.hu_range = _parse_pair(content["hu_range"])
            self._slices = _parse_count(content["slices"])
            self._bytes = {
                str(name): _parse_count(file["bytes"]) for name, file in content["files"].items()
            }
            self._checksum = str(content["files"][INDEX]["sha256"])
            self._problems = [
                Problem(make_printable(str(p["source"])), str(p["reason"]), bool(p["skip"]))
                for p in content["problems"]
            ]
            expected = {IMAGES, INDEX} | ({MASKS} if content["labelled"] else set())
            if self._bytes.keys() != expected or not isinstance(content["layout"], str):
                raise ValueError
        for name, size in self._bytes.items():
            self._check_size(name, size)
        self._check_index()
        self.images: NDArray[np.int16] = self._map(IMAGES, np.dtype("<i2"))  # (N, S, S) HU
        self.masks: NDArray[np.uint8] | None = None  # (N, S, S) 0 or 1
        if MASKS in self._bytes:
            self.masks = self._map(MASKS, np.dtype("u1"))

    def __len__(self) -> int:
        return self._slices

    @cached_property
    def index(self) -> tuple[PoolRow, ...]:
        """One row per slice, in the order of the images."""
        with _refuse_damage(self.path / INDEX), self._open(INDEX) as file:
            rows = tuple(_parse_rows(file))
            if len(rows) != len(self) or (self.masks is None and any(r.has_mask for r in rows)):
                raise ValueError
        return rows

    @property
    def problems(self) -> Problems:
        """What was found while the pool was made."""
        problems = Problems()  # not by its `add`, which stops where there are too many
        problems.items = list(self._problems)
        problems.failed = sum(not problem.skip for problem in problems.items)
        return problems

    def tensor(self) -> Tensor:
        """(N, S, S) int16 over the mapped file, without a copy; read-only."""
        return to_tensor("Pool", "images", self.images)

    def mask_tensor(self) -> Tensor | None:
        """(N, S, S) uint8 likewise; None where the set has no masks."""
        return None if self.masks is None else to_tensor("Pool", "masks", self.masks)

    def fingerprint(self) -> str:
        """sha256 of the index, which holds those of all images and masks."""
        return self._checksum

    def verify(self) -> None:
        """DataError unless every file is as it was written."""
        self.check_slices(range(len(self)))

    def check_slices(self, rows: Collection[int], most: int | None = None) -> None:
        """DataError unless these slices and their masks are as they were written; with ``most``, of
        so many bytes at most, evenly spread over them."""
        own = sum(array[0].nbytes for array in (self.images, self.masks) if array is not None)
        step = 1 if most is None else -(-len(rows) * own // most) or 1
        wanted = set(sorted(rows)[::step])
        with self._open(INDEX) as index:
            for row, line in enumerate(index):
                if row in wanted:
                    self._check_slice(row, line)

    def _check_slice(self, row: int, line: bytes) -> None:
        with _refuse_damage(self.path / INDEX):
            of_image, *of_mask = json.loads(line)["sha256"]
        if checksum(self.images[row].data) != of_image:
            raise self._make_error(IMAGES)
        if self.masks is not None:
            mask = self.masks[row]
            empty = checksum(bytes(mask.nbytes))  # a mask that the set does not have
            if checksum(mask.data) != [*of_mask, empty][0]:
                raise self._make_error(MASKS)
            if mask.max() > 1:
                raise DataError(f"{self.path / MASKS}: has values other than 0 and 1; {_AGAIN}")

    def _check_index(self) -> None:
        with self._open(INDEX) as index:
            if hashlib.file_digest(index, "sha256").hexdigest() != self._checksum:
                raise self._make_error(INDEX)

    def _open(self, name: str) -> BufferedReader:
        try:
            return (self.path / name).open("rb")
        except OSError as error:
            raise DataError(f"{self.path / name}: cannot be read ({error.strerror})") from None

    def _make_error(self, name: str) -> DataError:
        return DataError(
            f"{self.path / name}: changed since it was written (its checksum differs); {_AGAIN}"
        )

    def _read_manifest(self) -> dict[str, Any]:
        path = self.path / MANIFEST
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise DataError(
                f"{self.path}: not a pool, as it has no {MANIFEST}; make one with "
                f"python -m ichfast.prepare ROOT --out {self.path}"
            ) from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise DataError(f"{path}: damaged; {_AGAIN}")
        if content.get("format") != FORMAT:
            raise DataError(
                f"{self.path}: made by another version of ichfast (pool format "
                f"{content.get('format')}, not {FORMAT}); {_AGAIN}"
            )
        return content

    def _check_size(self, name: str, size: int) -> None:
        path = self.path / name
        try:
            found = path.stat().st_size
        except OSError:
            raise DataError(f"{path}: missing; copy it again, or {_AGAIN}") from None
        if found != size:
            raise DataError(
                f"{path}: has {found:,} bytes instead of {size:,}; copy it again, or {_AGAIN}"
            )

    def _map(self, name: str, dtype: np.dtype[Any]) -> Any:
        """The array in a file, which has the header that it was written with."""
        path, shape = self.path / name, (self._slices, self.size, self.size)
        with self._open(name) as file:
            header = file.read(HEADER)
        if header != npy_header(dtype.str, shape):
            raise DataError(
                f"{path}: not the array of {shape[0]} slices of {shape[1]} x {shape[2]} that "
                f"{MANIFEST} names; {_AGAIN}"
            )
        if self._bytes[name] != HEADER + dtype.itemsize * math.prod(shape):
            raise DataError(f"{self.path / MANIFEST}: damaged; {_AGAIN}")
        return np.memmap(path, dtype, "r", HEADER, shape)


def npy_header(kind: str, shape: tuple[int, ...]) -> bytes:
    buffer = BytesIO()
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def checksum(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def _refuse_damage(path: Path) -> Iterator[None]:
    """DataError for whatever a content that no pool has leads to."""
    try:
        yield
    except DataError:
        raise
    except Exception:
        raise DataError(f"{path}: damaged; {_AGAIN}") from None


def _parse_rows(lines: Any) -> Iterator[PoolRow]:
    """Names that many slices share are stored once."""
    for line in lines:
        row = json.loads(line)
        subtypes = row["subtypes"]
        if subtypes is not None and not set(subtypes) <= set(SUBTYPES):
            raise ValueError
        yield PoolRow(
            intern(row["patient"]),
            intern(row["study"]),
            intern(row["series"]),
            _parse_number(row["position"]),
            _parse_pair(row["spacing"]),
            str(row["source"]),
            None if subtypes is None else tuple(map(intern, subtypes)),
            bool(row["has_mask"]),
        )


def _parse_pair(values: list[float] | None) -> tuple[float, float] | None:
    if values is None:
        return None
    first, second = values
    return _parse_number(first), _parse_number(second)


def _parse_number(value: float) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _parse_count(value: int) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError
    return value
