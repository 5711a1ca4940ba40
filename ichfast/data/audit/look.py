"""One file: the header of each slice in it, the quirks that it has or may have, and the hash of its
pixels. Of scans that are no DICOM, the hashes alone are found here.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from pydicom.uid import ImplicitVRLittleEndian

from ichfast.data import decoders, quirks
from ichfast.data.dicom import compare_decoders, read_image
from ichfast.data.enhanced import EnhancedFile, Picture
from ichfast.data.headers import NATIVE, EnhancedCT, scan_header
from ichfast.data.image import Header, Image
from ichfast.data.layouts import find_format
from ichfast.data.plausible import Census, take_census
from ichfast.data.problems import Refused, refuse_failures
from ichfast.data.series import AIR_HU, Series
from ichfast.data.stacks import Frame, make_frame

EMPTY = "all pixels alike"
DISAGREE = "decoders disagree"
ROUND = "decoders round lossy compression differently"


@dataclass(slots=True)
class Look:
    header: Header
    frame: Frame
    position: float  # mm along the normal
    found: list[str]  # names of quirks
    possible: list[str]  # of quirks that only the pixels can confirm
    # Hash of the upright HU; None for an empty picture, as all of those are alike.
    pixels: int | None = None
    census: Census | None = None  # of the pixels
    # Where decoders disagree: DISAGREE or ROUND, and the sides ("a, b / c").
    decoders: tuple[str, str] | None = None


def look(path: Path, *, pixels: bool) -> list[tuple[int, Look | Refused]]:
    """Each slice of the file with its number, 0 for the only one. `Refused`, for the file or a
    frame in it, where training would refuse it or leave it out, as far as the header tells.
    """
    if kind := find_format(path.name):
        raise Refused(f"{kind}, not looked into: give the folder of its set", skip=True)
    file: EnhancedFile | None = None
    with refuse_failures("damaged DICOM file"):
        try:
            header, size = scan_header(path)
            make_frame(header.orientation)
            _check_size(header, size)
            pictures = [Picture(0, header)]
        except EnhancedCT:
            file = EnhancedFile(path)
            pictures = file.pictures
    found: list[tuple[int, Look | Refused]] = []
    for picture in pictures:
        try:
            with refuse_failures("damaged DICOM file"):
                found.append((picture.number, _look(path, file, picture, pixels)))
        except Refused as refused:
            if file is None:
                raise
            found.append((picture.number, refused))
    return found


def _look(path: Path, file: EnhancedFile | None, picture: Picture, pixels: bool) -> Look:
    header = picture.header
    if isinstance(header, Refused):
        raise header
    own = make_frame(header.orientation)
    position = sum(x * n for x, n in zip(header.position, own.normal, strict=True))
    if not pixels:
        image = Image(header, make_unread(), header.slope, header.intercept)
        return Look(header, own, position, *find_quirks(quirks.IMAGE_QUIRKS, image))
    image = file.read_image(picture.number) if file else read_image(path)
    found = list(quirks.correct(image))
    rescale = np.array([image.slope]), np.array([image.intercept])
    census = take_census(image.stored[None], *rescale, image.padding)
    code = _hash_slice(image, own)
    groups: list[list[str]] = []
    if header.transfer_syntax not in NATIVE:
        groups = file.compare_decoders(picture.number) if file else compare_decoders(path)
    differ = None
    if len(groups) > 1:
        name = ROUND if header.transfer_syntax in decoders.INEXACT else DISAGREE
        differ = name, " / ".join(map(", ".join, groups))
    found = found if code else [*found, EMPTY]
    return Look(header, own, position, found, [], code, census, differ)


def _check_size(header: Header, size: int) -> None:
    """Uncompressed pixels must all be there; compressed ones only a decoder can check."""
    if header.transfer_syntax not in NATIVE:
        return
    expected = header.rows * header.columns * header.bits_allocated // 8
    # Tag, VR and length before them: 12 bytes, or 8 where the VR is implicit.
    used = 8 if header.transfer_syntax == ImplicitVRLittleEndian else 12
    present = size - header.data_offset - used
    if present < expected:
        raise Refused(f"pixel data is truncated: {max(present, 0):,} bytes of {expected:,}")


def hash_scan(series: Series) -> list[int | None]:
    """Of each slice, as of a DICOM file's."""
    return [hash_hu(series.hu(slice(i, i + 1))[0]) for i in range(len(series))]


def _hash_slice(image: Image, own: Frame) -> int | None:
    hu = image.stored * image.slope + image.intercept
    if image.padding is not None:
        hu[image.stored == image.padding] = AIR_HU
    return hash_hu(own.turn_upright(hu))


def hash_hu(hu: np.ndarray) -> int | None:
    """Of an upright (H, W) picture: the same however its file stores it. None where all pixels are
    alike. Below air there is only padding, which not every format can declare, and noise.
    """
    if hu.min() == hu.max():
        return None
    upright = np.ascontiguousarray(np.rint(np.maximum(hu, AIR_HU)).astype(np.int32))
    digest = hashlib.blake2b(repr(upright.shape).encode(), digest_size=8)
    digest.update(upright.data)
    return int.from_bytes(digest.digest(), "little")


# Quirks are looked for without pixels, too: those that do not depend on them are found as usual,
# and those that get as far as asking for a pixel are possible by the header.


class _NeedsPixels(Exception):
    pass


class _Unread:
    """Stands for an array that was not read, of which only the number of slices is known."""

    def __init__(self, slices: int):
        self.slices = slices

    def __len__(self) -> int:
        return self.slices

    def _refuse(self, *_: Any) -> NoReturn:
        raise _NeedsPixels

    __getattr__ = __getitem__ = __array__ = __add__ = __sub__ = __mul__ = __and__ = _refuse
    __lt__ = __gt__ = __le__ = __ge__ = __eq__ = __ne__ = _refuse  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


def make_unread(slices: int = 1) -> Any:
    return _Unread(slices)


def find_quirks(table: Iterable[quirks.Quirk[Any]], subject: Any) -> tuple[list[str], list[str]]:
    """Names of the quirks that are there, and of those that only pixels can confirm."""
    found, possible = [], []
    for quirk in table:
        try:
            if quirk.detect(subject):
                found.append(quirk.name)
        except _NeedsPixels:
            possible.append(quirk.name)
    return found, possible
