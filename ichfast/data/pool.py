"""A pool: all slices of a data set as int16 HU at one size, memory-mapped, with their sources.
`python -m ichfast.prepare` makes it.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader, BytesIO
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ichfast.data.problems import Problem, Problems
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


class Pool:
    """A pool's folder, checked for format, files and sizes; `verify` reads every byte as well."""

    def __init__(self, path: Path):
        self.path = Path(path)
        content = self._read_manifest()
        try:
            self.size = int(content["size"])
            self.arguments: dict[str, Any] = {"layout": content["layout"], **content["arguments"]}
            self.source = str(content["source"])  # digest of the names and sizes of the set's files
            self.patients, self.series = int(content["patients"]), int(content["series"])
            # Where given, HU beyond it were cut off before the set was published.
            self.hu_range = _parse_pair(content["hu_range"])
            self._slices = int(content["slices"])
            self._bytes = {str(name): int(file["bytes"]) for name, file in content["files"].items()}
            self._checksum = str(content["files"][INDEX]["sha256"])
            self._problems = [
                Problem(str(p["source"]), str(p["reason"]), bool(p["skip"]))
                for p in content["problems"]
            ]
            expected = {IMAGES, INDEX} | ({MASKS} if content["labelled"] else set())
            if self._bytes.keys() != expected:
                raise ValueError
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DataError(f"{self.path / MANIFEST}: damaged; {_AGAIN}") from None
        for name, size in self._bytes.items():
            self._check_size(name, size)
        self.images: NDArray[np.int16] = self._map(IMAGES, np.dtype("<i2"))  # (N, S, S) HU
        self.masks: NDArray[np.uint8] | None = None  # (N, S, S) 0 or 1
        if MASKS in self._bytes:
            self.masks = self._map(MASKS, np.dtype("u1"))

    def __len__(self) -> int:
        return self._slices

    @cached_property
    def index(self) -> tuple[PoolRow, ...]:
        """One row per slice, in the order of the images."""
        path = self.path / INDEX
        try:
            with path.open("rb") as file:
                rows = tuple(_parse_rows(file))
        except (OSError, ValueError, KeyError, TypeError):
            rows = ()
        if len(rows) != len(self):
            raise DataError(f"{path}: damaged; {_AGAIN}")
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
        with self._open(INDEX) as index:
            if hashlib.file_digest(index, "sha256").hexdigest() != self._checksum:
                raise self._make_error(INDEX)
        for place, (name, array) in enumerate(((IMAGES, self.images), (MASKS, self.masks))):
            if array is None:
                continue
            empty = checksum(bytes(array[0].nbytes))  # a mask that the set does not have
            with self._open(INDEX) as index, self._open(name) as file:
                if file.read(HEADER) != npy_header(array.dtype.str, array.shape):
                    raise self._make_error(name)
                for line in index:
                    sums = [*json.loads(line)["sha256"], empty]
                    if checksum(file.read(array[0].nbytes)) != sums[place]:
                        raise self._make_error(name)

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
        except ValueError:
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
        path = self.path / name
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            raise DataError(f"{path}: damaged, not an array of NumPy; {_AGAIN}") from None
        if array.shape != (self._slices, self.size, self.size) or array.dtype != dtype:
            raise DataError(
                f"{path}: holds {array.dtype} {array.shape}, not what {MANIFEST} says; {_AGAIN}"
            )
        return array


def npy_header(kind: str, shape: tuple[int, ...]) -> bytes:
    buffer = BytesIO()
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def checksum(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def _parse_rows(lines: Any) -> Iterator[PoolRow]:
    """Names that many slices share are stored once."""
    for line in lines:
        row = json.loads(line)
        subtypes = row["subtypes"]
        yield PoolRow(
            intern(row["patient"]),
            intern(row["study"]),
            intern(row["series"]),
            float(row["position"]),
            _parse_pair(row["spacing"]),
            str(row["source"]),
            None if subtypes is None else tuple(map(intern, subtypes)),
            bool(row["has_mask"]),
        )


def _parse_pair(values: list[float] | None) -> tuple[float, float] | None:
    return None if values is None else (float(values[0]), float(values[1]))
