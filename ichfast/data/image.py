"""One DICOM CT slice: its header, and its pixels on their way to Hounsfield units."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class LookUpTable:
    """Modality LUT (PS3.3 C.11.1): stored value `first` and below maps to the first entry."""

    first: int
    entries: np.ndarray


@dataclass(frozen=True, slots=True)
class Header:
    transfer_syntax: str
    patient: str
    study: str
    series: str  # "" where SeriesInstanceUID is blank: then the next two are read
    series_number: str
    frame_of_reference: str
    acquisition: tuple[bytes, bytes]  # AcquisitionNumber and AcquisitionTime as they are written
    position: tuple[float, ...]  # ImagePositionPatient, 3
    orientation: tuple[float, ...]  # ImageOrientationPatient, 6
    spacing: tuple[float, ...]  # PixelSpacing, 2
    thickness: float | None  # SliceThickness in mm, None where it is not given
    gantry_tilt: float  # degrees, 0 when not given; its sign is the vendor's
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool  # PixelRepresentation
    photometric: str
    slope: float
    intercept: float
    padding: int | None  # the low BitsAllocated bits of PixelPaddingValue, unsigned
    padding_limit: int | None  # likewise PixelPaddingRangeLimit
    padding_vr: str  # SS, US, or "" when implicit
    windows: int  # how many WindowCenter values
    lossy: bool  # LossyImageCompression
    table: LookUpTable | None
    data_offset: int  # of the PixelData element in the file

    def __repr__(self) -> str:
        """Without names: a notebook prints it."""
        return f"<Header: {self.rows} x {self.columns}, at {self.position}>"


@dataclass(slots=True)
class Image:
    """HU = stored·slope + intercept, once the quirks have been through it."""

    header: Header
    stored: np.ndarray  # (rows, columns), as decoded
    slope: float
    intercept: float
    padding: int | None = None  # stored value that means "outside the field of view"
    stream_signed: bool | None = None  # the sign in the header of a JPEG 2000 stream
    _ends: tuple[np.ndarray, int, int] | None = field(default=None, init=False, repr=False)

    def ends(self) -> tuple[int, int]:
        """The least and the greatest stored value; computed once per array."""
        if self._ends is None or self._ends[0] is not self.stored:
            self._ends = self.stored, int(self.stored.min()), int(self.stored.max())
        return self._ends[1:]

    def corners(self, side: int = 8) -> np.ndarray:
        """Four patches that in a head CT show air or padding, never tissue."""
        s = self.stored
        return np.stack([s[:side, :side], s[:side, -side:], s[-side:, :side], s[-side:, -side:]])
