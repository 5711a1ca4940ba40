"""Every way in which CT files are known to stray from the plain case, once and by name.

A quirk has a test that recognises it and a correction; one without a correction is handled by the
geometry or the decoder and is only reported. A file whose Hounsfield units cannot be known is
refused, never guessed. docs/data.md lists them with what is done.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np

from ichfast.data.grid import SAME_POSITION_MM, SPACING_MM
from ichfast.data.image import Image
from ichfast.data.plausible import judge, take_census
from ichfast.data.problems import Refused
from ichfast.data.series import AIR_HU, Series

T = TypeVar("T", Image, Series)


@dataclass(frozen=True)
class Quirk(Generic[T]):
    name: str
    detect: Callable[[T], bool]
    correct: Callable[[T], None] | None = None


def correct(image: Image) -> tuple[str, ...]:
    """Make the image's stored·slope + intercept Hounsfield units; return its quirks' names."""
    _refuse_empty(image)
    found = []
    for quirk in IMAGE_QUIRKS:
        if quirk.detect(image):
            if quirk.correct:
                quirk.correct(image)
            found.append(quirk.name)
    _refuse_impossible(image)
    return tuple(found)


def detect(series: Series) -> tuple[str, ...]:
    """The names of the quirks of a whole scan. `Refused` where its values cannot be HU, unless
    others have cut them off.
    """
    found = tuple(quirk.name for quirk in SERIES_QUIRKS if quirk.detect(series))
    if series.hu_range is not None:
        return found
    census = take_census(series.stored, series.slope, series.intercept, series.padding)
    return (*found, *judge(census))


# Bits above BitsStored. Old scanners keep overlays there, some decoders leave them unset on
# negative numbers. Padding is exempt: writers put 63536 (-2000) into 12-bit images on purpose.


def _has_stray_bits(image: Image) -> bool:
    h = image.header
    if h.high_bit != h.bits_stored - 1:
        return True
    if h.bits_stored == h.bits_allocated:
        return False
    top = 1 << (h.bits_stored - h.signed)
    least, greatest = image.ends()
    return greatest >= top or (h.signed and least < -top)


def _drop_stray_bits(image: Image) -> None:
    h, stored = image.header, image.stored
    below = (1 << (h.high_bit + 1 - h.bits_stored)) - 1
    if (stored.view(f"u{stored.itemsize}") & below).any():
        raise Refused("HighBit and BitsStored leave out bits in which there is something")
    value = stored.astype(np.int64) >> (h.high_bit + 1 - h.bits_stored)
    value &= (1 << h.bits_stored) - 1
    if h.signed:
        value -= (value >> (h.bits_stored - 1)) << h.bits_stored
    padding = _find_padding(image)
    if padding is not None:
        value[stored == padding] = padding
    image.stored = value.astype(np.int32)


# Pixel padding (PS3.3 C.7.5.1.1.2): not tissue, whatever number it is.


def _find_padding(image: Image) -> int | None:
    """PixelPaddingValue in the pixels' own signedness, whatever VR it was written with."""
    return _to_pixel(image.header.padding, image)


def _to_pixel(bits: int | None, image: Image) -> int | None:
    if bits is None:
        return None
    size = image.header.bits_allocated
    bits &= (1 << size) - 1
    return bits - (1 << size) if image.header.signed and bits >> (size - 1) else bits


def _has_odd_padding_sign(image: Image) -> bool:
    h = image.header
    if h.padding is None or h.padding_vr not in ("US", "SS") or h.padding < 1 << 15:
        return False
    return h.signed != (h.padding_vr == "SS")


def _has_padding(image: Image) -> bool:
    padding = _find_padding(image)
    if padding is None or image.padding is not None:
        return False
    limit = _to_pixel(image.header.padding_limit, image)
    low, high = sorted((padding, padding if limit is None else limit))
    least, greatest = image.ends()
    if greatest < low or high < least:
        return False
    if low <= least <= high or low <= greatest <= high:  # padding is mostly the least value
        return True
    s = image.stored
    return bool((s == low).any() if low == high else ((s >= low) & (s <= high)).any())


def _mark_padding(image: Image) -> None:
    padding = _find_padding(image)
    assert padding is not None
    limit = _to_pixel(image.header.padding_limit, image)
    if limit is not None and limit != padding:
        low, high = sorted((padding, limit))
        inside = (image.stored >= low) & (image.stored <= high)
        image.stored = np.where(inside, padding, image.stored)
    # Some writers declare 0 while 0 HU is cerebrospinal fluid. In the corners it is padding indeed,
    # and then nothing tells it from fluid; elsewhere the declaration is empty.
    if image.header.table is None and TISSUE_HU[0] < _to_hu(image, padding) < TISSUE_HU[1]:
        if (image.corners() == padding).any():
            raise Refused("PixelPaddingValue lies among the tissues' HU, so the two look the same")
        return
    image.padding = padding


TISSUE_HU = (-500.0, 3000.0)


PADDED = -32768  # no CT number: stands for padding where other values have moved


def _pad_again(image: Image, padded: np.ndarray | None) -> None:
    if padded is not None:
        image.padding = PADDED
        image.stored[padded] = PADDED


def _to_hu(image: Image, stored: float) -> float:
    return stored * image.slope + image.intercept


# Wrapped 12-bit files of RSNA 2019: stored = HU mod 4096 (negative numbers written as unsigned).
# Air at -1000 is then 3096, and it is what the picture's border shows, within any padding. A proper
# file with such a header has cut its air off at 0; a picture of 12-bit grey levels has hardly more
# pixels at 3096 than at any other level.

WRAPPED_AIR = 3096
AIR_NOISE = 74  # HU: to where -1074 and -926 have gone


def _is_wrapped(image: Image) -> bool:
    h = image.header
    if h.bits_stored != 12 or h.signed or image.slope != 1 or image.intercept <= -100 or h.table:
        return False
    if image.ends()[1] <= 3000:
        return False
    s = image.stored
    border = np.concatenate([s[0], s[-1], s[:, 0], s[:, -1]])
    outside = _find_outside(image)
    border = border[border != outside] if outside is not None else border
    sample = s[::2, ::2]
    air = np.abs(sample.astype(np.int32) - WRAPPED_AIR) <= AIR_NOISE
    at_border = np.abs(border.astype(np.int32) - WRAPPED_AIR) <= AIR_NOISE
    return bool(air.mean() > 0.05 and (not border.size or at_border.mean() > 0.5))


def _find_outside(image: Image) -> int | None:
    """The value that fills the corners around a round picture, declared or not, where it is not
    wrapped air: -2000, say, has become 2096.
    """
    corners = image.corners()
    value = int(corners.item(0))
    if (corners == value).all() and abs(value - WRAPPED_AIR) > AIR_NOISE:
        return value
    return _find_padding(image)


def _unwrap(image: Image) -> None:
    # The usual cure adds 1000; 1024 cuts the circle at the bottom of the CT scale instead, so that
    # noise in air (-1001 ... -1024) does not turn into metal (3095 ... 3072).
    outside = _find_outside(image)
    padded = None
    if outside is not None and (alike := image.stored == outside).any():
        from scipy import ndimage  # takes a while to load

        # Declared or not, only what reaches the border: within, the value is dense bone.
        labels, _ = ndimage.label(alike)
        edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        padded = np.isin(labels, edge[edge > 0])
    image.stored = (image.stored.astype(np.int32) + 1024) & 0xFFF
    image.slope, image.intercept = 1.0, -1024.0
    _pad_again(image, padded)


# MONOCHROME1 is about display: the rescaled values should be HU as usual. Where they are not, the
# writer has inverted the pixels as well. Air decides.


def _measure_air(image: Image, stored: np.ndarray) -> float:
    hu = stored * image.slope + image.intercept
    return float((np.abs(hu - AIR_HU) < 100).mean())


def _settle_monochrome1(image: Image) -> None:
    h = image.header
    sample = image.stored[::4, ::4]
    sample = sample[sample != image.padding] if image.padding is not None else sample
    largest_plus_smallest = -1 if h.signed else (1 << h.bits_stored) - 1
    mirrored = largest_plus_smallest - sample.astype(np.int32)
    plain_air, mirrored_air = _measure_air(image, sample), _measure_air(image, mirrored)
    if not sample.size or max(plain_air, mirrored_air) < 0.02:
        raise Refused("MONOCHROME1, with air near -1000 HU neither as it is nor inverted")
    if mirrored_air > plain_air:
        padded = None if image.padding is None else image.stored == image.padding
        image.stored = largest_plus_smallest - image.stored.astype(np.int32)
        _pad_again(image, padded)


# Modality LUT Sequence: takes precedence over slope and intercept.


def _apply_table(image: Image) -> None:
    table = image.header.table
    assert table is not None
    index = np.clip(image.stored.astype(np.int64) - table.first, 0, len(table.entries) - 1)
    padded = None if image.padding is None else image.stored == image.padding
    image.stored, image.slope, image.intercept = table.entries[index], 1.0, 0.0
    if padded is not None:
        image.stored[padded] = AIR_HU
        image.padding = None


# A frame without a picture: what decoders return when they fail quietly, and what a download that
# broke off leaves. Air or padding all over is a slice outside the patient, unless it is written as
# zeros: the two then look the same.


def _refuse_empty(image: Image) -> None:
    stored, value = image.stored, image.stored.item(0)
    rows, columns = stored.shape
    if stored.item(rows // 2, columns // 2) != value:  # most end here
        return
    if (stored[rows // 2] != value).any():  # all but the rarest here
        return
    outside = value != 0 and (value == _find_padding(image) or _to_hu(image, value) <= AIR_HU + 100)
    if not outside and (stored == value).all():
        raise Refused("every pixel has the same value: an empty file, or a decoder that failed")


# Extended CT scales end at 31,743 (metal). Beyond lie numbers read with the wrong sign or byte
# order, or with a damaged rescale. Below there is more room: undeclared padding.

POSSIBLE_HU = (-65_536.0, 32_768.0)


@lru_cache
def _get_limits(kind: np.dtype) -> tuple[int, int]:
    return np.iinfo(kind).min, np.iinfo(kind).max


def _refuse_impossible(image: Image) -> None:
    def possible(*stored: float) -> bool:
        ends = [_to_hu(image, float(end)) for end in stored]
        return min(ends) >= POSSIBLE_HU[0] and max(ends) <= POSSIBLE_HU[1]

    if possible(*_get_limits(image.stored.dtype)) or possible(*image.ends()):
        return
    tissue = image.stored[image.stored != image.padding]
    if tissue.size and not possible(tissue.min(), tissue.max()):
        raise Refused("HU that no scanner makes: wrong PixelRepresentation, byte order or rescale")


# Steps between the values that leave little of the 80 HU in which blood shows, by the slope or by
# what was done to the pixels before; and compression that has changed them.

COARSE_HU = 2.0
SAMPLE, LEVELS = 1 << 14, 32
LOSSY_SYNTAXES = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")


def _is_lossy(image: Image) -> bool:
    return image.header.lossy or image.header.transfer_syntax in LOSSY_SYNTAXES


def _is_coarse(series: Series) -> bool:
    slope = float(np.abs(series.slope).min())
    if slope > COARSE_HU:
        return True
    step = max(1, int(np.sqrt(series.stored.size / SAMPLE)))
    sample = series.stored[:, ::step, ::step].ravel()
    if sample.dtype.kind == "f":
        if (sample != np.rint(sample)).any():
            return False
        sample = sample.astype(np.int64)
    if series.padding is not None:
        sample = sample[sample != series.padding]
    if not sample.size or slope * float(np.gcd.reduce(sample - sample[0])) <= COARSE_HU:
        return False
    return len(np.unique(sample)) >= LEVELS  # fewer are a drawing


IMAGE_QUIRKS: tuple[Quirk[Image], ...] = (
    Quirk("bits above BitsStored", _has_stray_bits, _drop_stray_bits),
    Quirk("padding of the other sign", _has_odd_padding_sign),
    Quirk("wrapped 12-bit", _is_wrapped, _unwrap),
    Quirk("pixel padding", _has_padding, _mark_padding),
    Quirk(
        "modality LUT",
        lambda image: image.header.table is not None,
        _apply_table,
    ),
    Quirk(
        "MONOCHROME1",
        lambda image: image.header.photometric == "MONOCHROME1",
        _settle_monochrome1,
    ),
    Quirk(
        "JPEG 2000 sign mismatch",
        lambda image: image.stream_signed not in (None, image.header.signed),
    ),
    Quirk("several windows", lambda image: image.header.windows > 1),
    Quirk("lossy compression", _is_lossy),
    Quirk("coarse steps", lambda image: abs(image.slope) > COARSE_HU),
    Quirk("no SeriesInstanceUID", lambda image: not image.header.series),
)


# Geometry: nothing to correct slice by slice, but worth knowing.

TILT_DEGREES = 0.5


def _lacks_slices(series: Series) -> bool:
    """A gap of a whole number of steps between slices that keep their step. (Where the step
    changes for good, at the skull base for instance, nothing is missing.)
    """
    gaps = np.diff(series.positions)
    before, gap, after = gaps[:-2], gaps[1:-1], gaps[2:]
    regular = (np.abs(before - after) <= SPACING_MM) & (before > SAME_POSITION_MM)
    steps = gap / np.where(regular, before, np.inf)
    return bool((regular & (steps > 1.5) & (np.abs(steps - np.round(steps)) < 0.05)).any())


SERIES_QUIRKS: tuple[Quirk[Series], ...] = (
    Quirk("gantry tilt", lambda series: abs(series.tilt) > TILT_DEGREES),
    Quirk(
        "uneven spacing",
        lambda series: len(series) > 2 and float(np.ptp(np.diff(series.positions))) > SPACING_MM,
    ),
    Quirk(
        "duplicate positions",
        lambda series: bool((np.diff(series.positions) < SAME_POSITION_MM).any()),
    ),
    Quirk("missing slices", _lacks_slices),
    Quirk("mixed series", lambda series: series.mixed),
    Quirk("interleaved acquisitions", lambda series: series.interleaved),
    Quirk("coarse steps", _is_coarse),
)
