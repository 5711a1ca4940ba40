"""What every layout is and does. A layout is the way in which a data set lies on the disk."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn

from ichfast.data.problems import Problems
from ichfast.data.series import Series
from ichfast.errors import DataError

Map = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]  # as the built-in, in order


class Selection(NamedTuple):
    """The slices that are wanted, and what of them."""

    positive: bool = False  # those with haemorrhage
    limit: int | None = None  # a seeded uniform choice of this many
    seed: int = 0
    with_masks: bool = True  # their masks too, where there are any


EVERYTHING = Selection()


@dataclass(frozen=True)
class Unit:
    """What a worker reads on its own: the files of a DICOM series, or a scan by its name."""

    name: str
    files: tuple[str, ...] = ()  # relative to the root
    labels: tuple[int, ...] = ()  # one number per file, as the layout encodes them
    slices: int = 0  # whole ones in the files; 0 for a scan by its name


class Layout(ABC):
    """One kind of data set: recognised, listed and read. Its module is imported whenever
    ichfast.data is, so what parses the files (pydicom, nibabel, Pillow) is imported inside methods.
    """

    name: ClassVar[str]  # in the manifest of a pool and in messages
    signs: ClassVar[str]  # what it is recognised by, for the message when nothing is
    has_masks: ClassVar[bool]  # its sets may have masks
    has_labels: ClassVar[bool]  # its sets have a table of labels per slice
    # Whether a table and the file names settle the selection before a file is opened. Otherwise the
    # caller of `read` chooses among the slices.
    selects: ClassVar[bool] = False
    # Suffix -> format, of files other than DICOM that it reads. Where a set has another layout, the
    # audit lists them without looking into them.
    formats: ClassVar[Mapping[str, str]] = {}
    no_export: ClassVar[str] = ""  # why its scans cannot be exported as volumes; empty: they can

    def detect(self, root: Path, entries: Mapping[str, Path]) -> bool:
        """Whether the names in the folder show that it has this layout. `entries` maps its names in
        lower case to its entries.
        """
        return False

    def detect_files(self, root: Path) -> bool:
        """Whether its files show it, for a folder in which no layout is detected by the names."""
        return False

    @classmethod
    def find_format(cls, name: str) -> str | None:
        """The format of a file by its name, where it is one of its `formats`."""
        endings = cls.formats.items()
        return next((kind for end, kind in endings if name.lower().endswith(end)), None)

    def read(
        self,
        root: Path,
        problems: Problems,
        selection: Selection = EVERYTHING,
        *,
        progress: bool = False,
    ) -> Iterator[Series]:
        """Every scan, one at a time. Bad files go into the problems and the rest is read; DataError
        when there are too many, or when nothing at all could be read.
        """
        empty = True
        for series in self._read(root, problems, selection, progress):
            empty = False
            yield series
        if empty:
            refuse_empty(root, problems)

    @abstractmethod
    def _read(
        self, root: Path, problems: Problems, selection: Selection, progress: bool
    ) -> Iterator[Series]: ...

    @abstractmethod
    def list_units(
        self, root: Path, problems: Problems, run: Map, selection: Selection
    ) -> list[Unit]:
        """The set in its own order, without decoding a pixel. `run` maps a function over the
        workers.
        """

    @abstractmethod
    def read_unit(
        self, root: Path, unit: Unit, problems: Problems, *, with_masks: bool = True
    ) -> Iterator[Series]:
        """The scans of one unit, with their masks where there are any and they are wanted; problems
        of the set as a whole are recorded every time."""

    def require_masks(self, root: Path, purpose: str) -> None:
        """DataError where no set has masks; `purpose` is a verb, what they are needed for."""
        if not self.has_masks:
            raise DataError(f"{root}: a set in the layout {self.name!r} has no masks to {purpose}")

    def require_positive(self, root: Path, *, with_masks: bool) -> None:
        """DataError where nothing tells which slices have haemorrhage: labels, or masks where these
        are read.
        """
        if not (self.has_labels or (with_masks and self.has_masks)):
            raise DataError(
                f"{root}: a set in the layout {self.name!r} has no labels, so positive slices "
                f"cannot be chosen"
            )


class ScanLayout(Layout):
    """A layout whose scans have names and can be read one by one."""

    @abstractmethod
    def list_scans(self, root: Path) -> dict[str, int]:
        """The names of the set's scans, in its order, each with its number of files."""

    @abstractmethod
    def read_scans(
        self,
        root: Path,
        problems: Problems,
        only: str | None = None,
        *,
        with_masks: bool = True,
        progress: bool = False,
    ) -> Iterator[Series]:
        """Every scan, or `only` the one of this name; `with_masks` where the set has them."""

    def _read(
        self, root: Path, problems: Problems, selection: Selection, progress: bool
    ) -> Iterator[Series]:
        return self.read_scans(root, problems, with_masks=selection.with_masks, progress=progress)

    def list_units(
        self, root: Path, problems: Problems, run: Map, selection: Selection
    ) -> list[Unit]:
        scans = self.list_scans(root)
        problems.expect(sum(scans.values()))
        return [Unit(name) for name in scans]

    def read_unit(
        self, root: Path, unit: Unit, problems: Problems, *, with_masks: bool = True
    ) -> Iterator[Series]:
        return self.read_scans(root, problems, unit.name, with_masks=with_masks)


def refuse_empty(root: Path, problems: Problems) -> NoReturn:
    raise DataError(f"{root}: nothing could be read: {problems.summary()}")
