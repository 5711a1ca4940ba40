"""Any folder of DICOM files -> axial CT series: grouped, ordered along the normal, upright."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from ichfast.data import quirks
from ichfast.data.acquisitions import are_interleaved
from ichfast.data.dicom import read_image
from ichfast.data.enhanced import EnhancedFile, Picture, read_pictures
from ichfast.data.grid import SAME_POSITION_MM, Grid
from ichfast.data.image import Header, Image
from ichfast.data.listing import find_files, name_slice, name_source
from ichfast.data.problems import Problems, Refused
from ichfast.data.series import AIR_HU, UNNAMED, Series

MIN_AXIAL = 0.7  # cosine between slice normal and long axis: gantries tilt to 30 degrees, not to 45
SAME_DIRECTION = 1e-2  # between direction cosines of one stack
SAME_SPACING_MM = 1e-3


@dataclass(frozen=True)
class Frame:
    """How a file's rows and columns lie in the patient (DICOM: x to the left, y to the back)."""

    transpose: bool
    flip_rows: bool
    flip_columns: bool
    normal: tuple[float, float, float]  # towards the head, of the upright slice

    def turn_upright(self, pixels: np.ndarray) -> np.ndarray:
        pixels = pixels.T if self.transpose else pixels
        return pixels[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


@lru_cache(maxsize=4096)  # one for each scan
def make_frame(orientation: tuple[float, ...]) -> Frame:
    """From ImageOrientationPatient: the direction along a row, then the direction down a column."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(row @ column)) > SAME_DIRECTION:
        raise Refused("ImageOrientationPatient is not a pair of perpendicular unit vectors")
    if transpose := abs(row[0]) < abs(row[1]):
        row, column = column, row
    flip_columns, flip_rows = bool(row[0] < 0), bool(column[1] < 0)
    normal = np.cross(-row if flip_columns else row, -column if flip_rows else column)
    if normal[2] < MIN_AXIAL:
        raise Refused("not an axial slice", skip=True)
    return Frame(bool(transpose), flip_rows, flip_columns, tuple(normal.tolist()))


def measure_tilt(normal: Sequence[float], gantry: float = 0.0) -> float:
    """Degrees between slice normal and long axis, positive when the slice's front is the higher end
    (nose up); where the geometry is straight, the gantry's own value.
    """
    angle = np.degrees(np.arccos(np.clip(normal[2], -1, 1)))
    if angle > quirks.TILT_DEGREES:
        return float(np.copysign(angle, normal[1]))
    return gantry if abs(gantry) <= 45 else 0.0


def name_series(header: Header, source: str) -> str:
    """Its SeriesInstanceUID or, where that is blank, what else tells its series from others: the
    study, its number in there, the frame of reference, and the folder where these are blank, too.
    """
    if header.series:
        return header.series
    parts = [header.patient, header.study, header.series_number, header.frame_of_reference]
    if not (header.frame_of_reference or (header.study and header.series_number)):
        parts.append(PurePosixPath(source).parent.as_posix())
    return f"{UNNAMED} ({', '.join(part for part in parts if part)})"


@dataclass
class Stack:
    """The pictures of one series that have the same size and orientation."""

    series: str  # as `name_series` has it
    header: Header  # of its first picture
    frame: Frame
    # Position along the normal, file, and number of the frame: 0 in a file with one slice.
    pictures: list[tuple[float, Path, int]] = field(default_factory=list)
    mixed: bool = False  # there are other stacks of the same SeriesInstanceUID

    def takes(self, header: Header) -> bool:
        def exact(h: Header) -> tuple[int, int, str, str]:
            return h.rows, h.columns, h.patient, h.study

        def near(a: Sequence[float], b: Sequence[float], tolerance: float) -> bool:
            return all(abs(x - y) <= tolerance for x, y in zip(a, b, strict=True))

        return (
            exact(header) == exact(self.header)
            and near(header.orientation, self.header.orientation, SAME_DIRECTION)
            and near(header.spacing, self.header.spacing, SAME_SPACING_MM)
        )

    def add(self, header: Header, path: Path, number: int) -> None:
        position = float(np.dot(header.position, self.frame.normal))
        self.pictures.append((position, path, number))


def read_stacks(
    root: Path, problems: Problems, files: Sequence[Path] | None = None, *, progress: bool = False
) -> Iterator[Series]:
    """Every axial CT series among the files (all under the root, if not given), one at a time.

    Two passes: the headers of all, then the pixels of one series after the other, so that memory
    holds one series whatever the size of the tree.
    """
    if files is None:
        files = find_files(root, problems)
    else:
        problems.expect(len(files))
    hidden = None if progress else True  # None: shown on a terminal only
    stacks = _group(root, problems, tqdm(files, "headers", unit="file", disable=hidden))
    total = sum(len(stack.pictures) for stack in stacks)
    with tqdm(desc="slices", total=total, unit="slice", disable=hidden) as bar:
        for stack in stacks:
            series = _read_stack(root, problems, stack)
            bar.update(len(stack.pictures))
            if series is not None:
                yield series


def require_axial(picture: Picture) -> tuple[Header, Frame]:
    """Its header and orientation; `Refused` unless it is an axial slice."""
    if isinstance(picture.header, Refused):
        raise picture.header
    return picture.header, make_frame(picture.header.orientation)


def _list_slices(root: Path, problems: Problems, path: Path) -> Iterator[tuple[int, Header, Frame]]:
    """The number, header and orientation of each axial slice in a file; everything else in it goes
    into the problems by its name.
    """
    source = name_source(path, root)
    try:
        found = read_pictures(path)
    except Refused as refused:
        problems.record(source, refused)
        return
    problems.expect(len(found) - 1)
    for picture in found:
        try:
            header, own = require_axial(picture)
        except Refused as refused:
            problems.record(name_slice(source, picture.number), refused)
        else:
            yield picture.number, header, own


def _group(root: Path, problems: Problems, files: Iterable[Path]) -> list[Stack]:
    by_uid: dict[str, list[Stack]] = {}
    for path in files:
        for number, header, own in _list_slices(root, problems, path):
            name = name_series(header, name_source(path, root))
            stacks = by_uid.setdefault(name, [])
            stack = next((stack for stack in stacks if stack.takes(header)), None)
            if stack is None:
                stacks.append(stack := Stack(name, header, own))
                for other in stacks:
                    other.mixed = len(stacks) > 1
            stack.add(header, path, number)
    return [stack for stacks in by_uid.values() for stack in stacks]


def _read_stack(root: Path, problems: Problems, stack: Stack) -> Series | None:
    stored: list[np.ndarray] = []
    slope: list[float] = []
    intercept: list[float] = []
    padding: list[int | None] = []
    positions: list[float] = []
    corners: list[tuple[float, ...]] = []
    acquisitions: list[tuple[bytes, bytes]] = []
    sources: list[str] = []
    copies = _Copies()
    found: dict[str, None] = {}  # an ordered set
    opened: dict[Path, EnhancedFile] = {}
    for position, path, number in sorted(stack.pictures):
        source = name_slice(name_source(path, root), number)
        try:
            image = _read_slice(path, number, opened)
            names = quirks.correct(image)
        except Refused as refused:
            problems.record(source, refused)
            continue
        pixels = stack.frame.turn_upright(image.stored)
        first = copies.find(position, (pixels, image.slope, image.intercept), source)
        if first is not None:
            problems.skip(source, f"the same image as {first}")
            continue
        stored.append(pixels)
        slope.append(image.slope)
        intercept.append(image.intercept)
        padding.append(image.padding)
        positions.append(position)
        corners.append(image.header.position)
        acquisitions.append(image.header.acquisition)
        sources.append(source)
        found.update(dict.fromkeys(names))
    if not stored:
        return None
    volume, pad = _unify(stored, slope, intercept, padding)
    spacing = stack.header.spacing[:: -1 if stack.frame.transpose else 1]
    series = Series(
        stored=volume,
        slope=np.array(slope),
        intercept=np.array(intercept),
        padding=pad,
        mask=None,
        patient=stack.header.patient,
        study=stack.header.study,
        series=stack.series,
        positions=np.array(positions),
        spacing=(spacing[0], spacing[1]),
        tilt=measure_tilt(stack.frame.normal, stack.header.gantry_tilt),
        sources=tuple(sources),
        mixed=stack.mixed,
        interleaved=are_interleaved(np.array(positions), acquisitions),
        grid=_make_grid(stack, np.array(corners)),
    )
    try:
        found.update(dict.fromkeys(quirks.detect(series)))
    except Refused as refused:
        problems.record(sources[0], refused)
        return None
    return replace(series, quirks=tuple(found))


class _Copies:
    """Of the slices at one position, which come one after another, those that were there before."""

    def __init__(self) -> None:
        self.position = -np.inf
        self.seen: list[tuple[_Pixels, str]] = []
        self.hashes: dict[int, list[int]] | None = None

    def find(self, position: float, pixels: "_Pixels", source: str) -> str | None:
        """The name of an earlier slice with the same position and values; None: it is new."""
        if position - self.position >= SAME_POSITION_MM:
            self.position, self.seen, self.hashes = position, [(pixels, source)], None
            return None
        if self.hashes is None:  # hashing takes as long as reading, and is for several alone
            self.hashes = {_hash(self.seen[0][0]): [0]}
        alike = self.hashes.setdefault(_hash(pixels), [])
        for known, name in (self.seen[i] for i in alike):
            if known[1:] == pixels[1:] and np.array_equal(known[0], pixels[0]):
                return name
        alike.append(len(self.seen))
        self.seen.append((pixels, source))
        return None


_Pixels = tuple[np.ndarray, float, float]  # stored values with slope and intercept


def _hash(pixels: _Pixels) -> int:
    return hash(pixels[0].tobytes())


def _make_grid(stack: Stack, corners: np.ndarray) -> Grid:
    """From the (n, 3) ImagePositionPatient of its slices: the centre of a file's first pixel."""
    header, frame = stack.header, stack.frame
    along_row, down_column = np.array(header.orientation).reshape(2, 3)
    across = along_row / np.linalg.norm(along_row) * header.spacing[1]
    down = down_column / np.linalg.norm(down_column) * header.spacing[0]
    size = header.rows, header.columns
    axes, flips = (0, 1, 2), (False, frame.flip_rows, frame.flip_columns)
    if frame.transpose:
        down, across, size = across, down, size[::-1]
        axes, flips = (0, 2, 1), (False, frame.flip_columns, frame.flip_rows)
    if frame.flip_rows:
        corners, down = corners + (size[0] - 1) * down, -down
    if frame.flip_columns:
        corners, across = corners + (size[1] - 1) * across, -across
    return Grid(corners, down, across, size, (axes, flips), header.thickness)


def _read_slice(path: Path, number: int, opened: dict[Path, EnhancedFile]) -> Image:
    if not number:
        return read_image(path)
    if path not in opened:
        opened[path] = EnhancedFile(path)
    return opened[path].read_image(number)


def _unify(
    stored: list[np.ndarray], slope: list[float], intercept: list[float], padding: list[int | None]
) -> tuple[np.ndarray, float | None]:
    """One array, int16 where it fits, and one padding value; where slices differ in it, their
    padding is overwritten with air.
    """
    pad = padding[0]
    if len(set(padding)) > 1:
        pad = None
        for i, own in enumerate(padding):
            if own is not None:
                air = round((AIR_HU - intercept[i]) / slope[i])
                stored[i] = np.where(stored[i] == own, np.int32(air), stored[i])
    low, high = min(int(s.min()) for s in stored), max(int(s.max()) for s in stored)
    fits = low >= -(2**15) and high < 2**15
    return np.stack(stored, dtype=np.int16 if fits else np.int32, casting="unsafe"), pad
