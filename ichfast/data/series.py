"""One scan as its files hold it, whatever the file format."""

from dataclasses import dataclass

import numpy as np

from ichfast.data.grid import Grid

SUBTYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
AIR_HU = -1000.0
UNNAMED = "no SeriesInstanceUID"  # begins the name of a series that has none


@dataclass(frozen=True, eq=False)
class Series:
    """n axial slices, inferior -> superior along the slice normal; rows run anterior -> posterior
    and columns from the patient's right to left, as usual. HU = stored·slope + intercept.
    """

    stored: np.ndarray  # (n, H, W) int16, int32 or float32
    slope: np.ndarray  # (n,)
    intercept: np.ndarray  # (n,)
    padding: float | None  # stored value that means "outside the field of view"
    mask: np.ndarray | None  # (n, H, W) bool, haemorrhage
    patient: str
    study: str
    series: str
    positions: np.ndarray  # (n,) mm along the normal, increasing
    spacing: tuple[float, float]  # mm between rows, between columns
    tilt: float  # degrees from the slice normal to the patient's long axis
    sources: tuple[str, ...]  # n, relative to the root; "ct_scans/049.nii#3" is its third slice
    subtypes: np.ndarray | None = None  # (n, 5) bool in the order of SUBTYPES
    # (n,) bool, the slices of which `mask` and `subtypes` tell; None: all
    mask_known: np.ndarray | None = None
    subtypes_known: np.ndarray | None = None
    mixed: bool = False  # its SeriesInstanceUID holds images of another size, spacing or direction
    interleaved: bool = False  # slices of several acquisitions lie between each other
    quirks: tuple[str, ...] = ()  # names from ichfast.data.quirks
    hu_range: tuple[float, float] | None = None  # where given, HU beyond it were cut off by others
    # (n, H, W) uint8: 0, or 1 + the place in SUBTYPES of the voxel's haemorrhage, where masks tell
    kinds: np.ndarray | None = None
    grid: Grid | None = None  # None: the files do not say where they lie

    def __len__(self) -> int:
        return len(self.stored)

    def __repr__(self) -> str:
        """Without names: a notebook prints it."""
        height, width = self.stored.shape[1:]
        masks = "out a" if self.mask is None else " a"
        return f"<Series: {len(self)} slices, {height} x {width}, with{masks} mask>"

    def name_subtypes(self, i: int) -> tuple[str, ...] | None:
        """Names of the haemorrhages in slice i; None where they are not known."""
        if self.subtypes is None or not self.has_subtypes()[i]:
            return None
        return tuple(name for name, has in zip(SUBTYPES, self.subtypes[i], strict=True) if has)

    def has_mask(self) -> np.ndarray:
        """(n,) bool: the slice's mask is known, be it empty."""
        every = np.full(len(self), self.mask is not None)
        return every if self.mask_known is None else every & self.mask_known

    def has_subtypes(self) -> np.ndarray:
        """(n,) bool: the slice's subtypes are known, be there none."""
        every = np.full(len(self), self.subtypes is not None)
        return every if self.subtypes_known is None else every & self.subtypes_known

    def hu(self, slices: slice = slice(None)) -> np.ndarray:
        """(n, H, W) float32 Hounsfield units of these slices, all if not given, air where the file
        has padding."""
        slope, intercept = (
            values[slices].astype(np.float32)[:, None, None]
            for values in (self.slope, self.intercept)
        )
        stored = self.stored[slices]
        hu = stored.astype(np.float32) * slope + intercept
        if self.padding is not None:
            hu[stored == self.padding] = AIR_HU
        return hu
