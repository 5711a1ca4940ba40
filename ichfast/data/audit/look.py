"""One file: what its header says, which quirks it has or may have, and the hash of its pixels."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ichfast.data import quirks
from ichfast.data.dicom import read_image
from ichfast.data.headers import NATIVE, quick_header
from ichfast.data.image import Header, Image
from ichfast.data.problems import Refused, refusing
from ichfast.data.series import AIR_HU
from ichfast.data.stacks import Frame, frame

EMPTY = "all pixels alike"


@dataclass(slots=True)
class Look:
    header: Header
    frame: Frame
    position: float  # mm along the normal
    found: list[str]  # names of quirks
    possible: list[str]  # of quirks that only the pixels can confirm
    pixels: (
        int | None
    )  # hash of the upright HU; of an empty picture none, for all of them are alike


def look(path: Path, *, pixels: bool) -> Look:
    """`Refused` where training would refuse the file, or leave it out, as far as is known."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        raise Refused("NIfTI, not looked into", skip=True)
    with refusing("damaged DICOM file"):
        header, size = quick_header(path)
        own = frame(header.orientation)
        _check_size(header, size)
        position = sum(x * n for x, n in zip(header.position, own.normal, strict=True))
        if not pixels:
            image = Image(header, unread(), header.slope, header.intercept)
            return Look(header, own, position, *present(quirks.IMAGE_QUIRKS, image), None)
        image = read_image(path)
        found = list(quirks.correct(image))
        code = _hash(image, own)
        return Look(header, own, position, found if code else [*found, EMPTY], [], code)


def _check_size(header: Header, size: int) -> None:
    """Uncompressed pixels must all be there; of compressed ones only a decoder knows."""
    if header.transfer_syntax not in NATIVE:
        return
    expected = header.rows * header.columns * header.bits_allocated // 8
    # Tag, VR and length before them: 12 bytes, or 8 where the VR is implicit.
    present = size - header.data_offset - (8 if header.transfer_syntax == NATIVE[0] else 12)
    if present < expected:
        raise Refused(f"pixel data is truncated: {max(present, 0):,} bytes of {expected:,}")


def _hash(image: Image, own: Frame) -> int | None:
    """The same for the same picture in HU, however its file stores it."""
    hu = np.rint(image.stored * image.slope + image.intercept)
    if image.padding is not None:
        hu[image.stored == image.padding] = AIR_HU
    if hu.min() == hu.max():
        return None
    upright = np.ascontiguousarray(own.upright(hu.astype(np.int32)))
    digest = hashlib.blake2b(repr(upright.shape).encode(), digest_size=8)
    digest.update(upright.data)
    return int.from_bytes(digest.digest(), "little")


# The table of quirks is asked without pixels too: one that does not touch them answers as ever, the
# others get as far as the pixels, so the header says that they are possible.


class _NeedsPixels(Exception):
    pass


class _Unread:
    """In the place of an array that was not read. Its number of slices is known, no more."""

    def __init__(self, slices: int):
        self.slices = slices

    def __len__(self) -> int:
        return self.slices

    def _refuse(self, *_: Any) -> NoReturn:
        raise _NeedsPixels

    __getattr__ = __getitem__ = __array__ = __add__ = __sub__ = __mul__ = __and__ = _refuse
    __lt__ = __gt__ = __le__ = __ge__ = __eq__ = __ne__ = _refuse  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


def unread(slices: int = 1) -> Any:
    return _Unread(slices)


def present(table: Iterable[quirks.Quirk[Any]], subject: Any) -> tuple[list[str], list[str]]:
    """Names of the quirks that are there, and of those that only pixels can tell."""
    found, possible = [], []
    for quirk in table:
        try:
            if quirk.detect(subject):
                found.append(quirk.name)
        except _NeedsPixels:
            possible.append(quirk.name)
    return found, possible
