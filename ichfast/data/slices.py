"""Windowed slices in memory, ready for training and evaluation."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ichfast.data.layouts import detect_layout, read_series, something
from ichfast.data.problems import Problems
from ichfast.data.resize import resize_masks
from ichfast.data.series import Series
from ichfast.errors import DataError
from ichfast.ops import ct_window


@dataclass(frozen=True, eq=False)
class SliceSet:
    """N slices of S x S pixels and where each comes from."""

    images: Tensor  # (N, 1, S, S) float32, windowed to [0, 1]
    masks: Tensor | None  # (N, 1, S, S) uint8, 0 or 1
    patients: tuple[str, ...]
    series: tuple[str, ...]
    positions: tuple[float, ...]  # mm along the slice normal
    sources: tuple[str, ...]  # files relative to the root
    studies: tuple[str, ...] = ()  # where known; not part of the fingerprint

    def __len__(self) -> int:
        return len(self.images)

    def select(self, indices: Sequence[int]) -> "SliceSet":
        chosen = torch.as_tensor(indices, dtype=torch.long)
        return SliceSet(
            self.images[chosen],
            None if self.masks is None else self.masks[chosen],
            tuple(self.patients[i] for i in indices),
            tuple(self.series[i] for i in indices),
            tuple(self.positions[i] for i in indices),
            tuple(self.sources[i] for i in indices),
            tuple(self.studies[i] for i in indices) if self.studies else (),
        )

    def identifiers(self) -> set[str]:
        """What may tell that another set holds one of these heads."""
        return {*self.patients, *self.studies, *self.series} - {""}

    @property
    def positive(self) -> Tensor:
        """(N,) bool: the slice's mask is not empty at this size."""
        if self.masks is None:
            raise DataError("these slices have no masks, so which are positive is unknown")
        return self.masks.flatten(1).bool().any(1)

    def fingerprint(self) -> str:
        """sha256 over pixels, masks and index: equal exactly when the set is the same."""
        digest = hashlib.sha256(repr((self.images.shape, self.masks is None)).encode())
        for image in self.images:
            digest.update(image.numpy().tobytes())
        for mask in self.masks if self.masks is not None else ():
            digest.update(mask.numpy().tobytes())
        for row in zip(self.patients, self.series, self.positions, self.sources, strict=True):
            digest.update(repr(row).encode())
        return digest.hexdigest()


def load_slices(
    root: Path,
    *,
    size: int,
    window: tuple[float, float],
    labelled: bool,
    slices: Literal["all", "positive"] = "all",
    limit: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> tuple[SliceSet, Problems]:
    """Read a data set and window it to `size` x `size` at `window` = (level, width).

    `slices="positive"` keeps slices whose mask is not empty at this size (labelled) or whose label
    in the set's CSV is positive (unlabelled). `limit` keeps a seeded uniform choice of so many.
    """
    root, positive = Path(root), slices == "positive"
    _check_arguments(size, window, limit)
    layout = detect_layout(root)
    if labelled and layout in ("rsna", "dicom"):
        raise DataError(f"{root}: a set in the layout {layout!r} has no masks to learn from")
    if positive and layout == "dicom":
        raise DataError(f"{root}: plain DICOM has no labels, so positive slices cannot be chosen")
    problems = Problems()
    if layout == "rsna":
        from ichfast.data.rsna import read_rsna  # pydicom is loaded by those who need it

        scans = read_rsna(
            root, problems, positive=positive, limit=limit, seed=seed, progress=progress
        )
        scans = something(scans, root, problems)
    else:
        scans = read_series(root, problems, progress=progress)
    reservoir = _Reservoir(size, labelled, limit, seed)
    for scan in scans:
        _check_window(root, window, scan)
        if labelled and scan.mask is None:
            raise DataError(f"{root}: has no masks; put them into labelsTr, labels or masks there")
        if scan.stored.shape[1] != scan.stored.shape[2]:
            problems.add(scan.sources[0], "its scan is not square")
            continue
        masks = resize_masks(scan, size) if labelled else None
        wanted: np.ndarray = np.ones(len(scan), dtype=bool)
        if positive and masks is not None:
            wanted = masks.flatten(1).any(1).numpy()
        elif positive and layout != "rsna":
            if scan.subtypes is not None:
                wanted = np.asarray(scan.subtypes.any(1))
            elif scan.mask is not None:
                wanted = np.asarray(scan.mask.any((1, 2)))
            else:
                problems.skip(scan.sources[0], "no labels, so its positive slices are not known")
                continue
        reservoir.offer(scan, np.flatnonzero(wanted), masks, window)
    if not reservoir.index and not positive:
        raise DataError(f"{root}: not one slice could be read: {problems.summary()}")
    if reservoir.masks is not None and not reservoir.masks.any():
        raise DataError(
            f"{root}: no mask has haemorrhage at size {size}; check masks/ or raise data.size "
            f"({problems.summary()})"
        )
    if not reservoir.index:
        raise DataError(
            f"{root}: no label says haemorrhage; check the set's CSV or set data.slices = 'all' "
            f"({problems.summary()})"
        )
    return reservoir.collect(), problems


def _check_arguments(size: int, window: tuple[float, float], limit: int | None) -> None:
    if size < 1:
        raise DataError(f"size is {size}; it must be at least 1")
    if not window[1] > 1:
        raise DataError(f"the window's width is {window[1]}; it must be greater than 1")
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}; it must be at least 1")


def _check_window(root: Path, window: tuple[float, float], scan: Series) -> None:
    if scan.hu_range is None:
        return
    (low, high), (level, width) = scan.hu_range, window
    if level - width / 2 < low or level + width / 2 > high:
        raise DataError(
            f"{root}: these pictures hold HU from {low:g} to {high:g} only, but the window is "
            f"{level - width / 2:g} to {level + width / 2:g}; set data.window inside, as "
            f"[{(low + high) / 2:g}, {high - low:g}], for every set of the run"
        )


class _Reservoir:
    """The slices so far: all of them, or a uniform choice of `limit` among a number that is known
    only at the end (Vitter's algorithm R). The arrays grow in place, scan by scan, so that memory
    holds the result and one scan.
    """

    def __init__(self, size: int, labelled: bool, limit: int | None, seed: int):
        self.size = size
        self.limit = limit
        self.random = np.random.default_rng(seed)
        self.seen = 0
        self.images = np.empty((0, 1, size, size), np.float32)
        self.masks = np.empty((0, 1, size, size), np.uint8) if labelled else None
        # by place: (order of arrival, patient, series, position, source, study)
        self.index: list[tuple[int, str, str, float, str, str]] = []

    def offer(
        self, scan: Series, wanted: np.ndarray, masks: Tensor | None, window: tuple[float, float]
    ) -> None:
        """Window and keep the scan's wanted slices, or those of them that the choice falls on."""
        kept = self._places(scan, wanted)
        if not kept:
            return
        places, slices = list(kept), np.array(list(kept.values()))
        # refcheck would trip over a debugger; no view of these arrays exists before `collect`.
        self.images.resize((len(self.index), *self.images.shape[1:]), refcheck=False)
        self.images[places] = ct_window(
            torch.from_numpy(scan.stored[slices]),
            torch.from_numpy(scan.slope[slices]).float(),
            torch.from_numpy(scan.intercept[slices]).float(),
            torch.tensor([window], dtype=torch.float32),
            (self.size, self.size),
            padding=scan.padding,
        ).numpy()
        if self.masks is not None and masks is not None:
            self.masks.resize((len(self.index), *self.masks.shape[1:]), refcheck=False)
            self.masks[places] = masks.numpy()[slices]

    def _places(self, scan: Series, wanted: np.ndarray) -> dict[int, int]:
        """Where slices of this scan go: place -> slice."""
        kept: dict[int, int] = {}
        for i in map(int, wanted):
            entry = (
                self.seen,
                scan.patient,
                scan.series,
                float(scan.positions[i]),
                scan.sources[i],
                scan.study,
            )
            place = self.seen
            self.seen += 1
            if self.limit is None or place < self.limit:
                self.index.append(entry)
            elif (place := int(self.random.integers(self.seen))) < self.limit:
                self.index[place] = entry
            else:
                continue
            kept[place] = i
        return kept

    def collect(self) -> SliceSet:
        _, patients, series, positions, sources, studies = zip(*self.index, strict=True)
        slices = SliceSet(
            torch.from_numpy(self.images),
            None if self.masks is None else torch.from_numpy(self.masks),
            patients,
            series,
            positions,
            sources,
            studies,
        )
        order = sorted(range(len(self.index)), key=lambda place: self.index[place][0])
        return slices if order == list(range(len(order))) else slices.select(order)
