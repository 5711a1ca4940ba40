"""From a data set's folder, or a pool made of it, to the slices of a run."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ichfast.data.layouts import detect_layout, get_layout
from ichfast.data.layouts.base import Layout, Selection
from ichfast.data.pool import MANIFEST, Pool
from ichfast.data.problems import Problems
from ichfast.data.resize import find_positive, resize_hu, resize_masks, resize_spacing
from ichfast.data.series import Series
from ichfast.data.slices import SliceSet, Window
from ichfast.errors import DataError

CHECKED = 2 << 30
"""bytes of a pool's slices that are compared with their checksums before they are trained on: all
of most labelled sets, every tenth slice or so of RSNA's; `prepare --verify` reads all"""


def load_slices(
    root: Path,
    *,
    size: int,
    window: Window,
    labelled: bool,
    slices: Literal["all", "positive"] = "all",
    limit: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> tuple[SliceSet, Problems]:
    """Read a data set at `size` x `size`, or map a pool that was prepared at this size. Batches are
    windowed at `window` = (level, width).

    `slices="positive"` keeps slices whose mask is not empty at this size (labelled) or whose label
    in the set's table is positive (unlabelled). Labelled, slices whose mask is missing are left out
    and counted in the problems; unlabelled, no mask is read. `limit` keeps a seeded uniform choice
    of that many.
    """
    root, positive = Path(root), slices == "positive"
    _check_arguments(size, window, limit)
    if (root / MANIFEST).is_file():
        return _load_pool(
            root, size, window, labelled=labelled, positive=positive, limit=limit, seed=seed
        )
    layout = detect_layout(root)
    if labelled:
        layout.require_masks(root, "learn from")
    if positive:
        layout.require_positive(root, with_masks=labelled)
    problems = Problems()
    selection = Selection(positive, limit, seed, with_masks=labelled)
    unknown: list[tuple[str, ...] | None] = []
    reservoir = _Reservoir(size, labelled, limit, seed)
    for scan in layout.read(root, problems, selection, progress=progress):
        _check_window(root, window, scan.hu_range)
        if scan.stored.shape[1] != scan.stored.shape[2]:
            problems.add(scan.sources[0], "its scan is not square")
            continue
        known = scan.has_mask() if labelled else np.full(len(scan), True)
        unknown += [scan.name_subtypes(int(i)) for i in np.flatnonzero(~known)]
        if not known.any():
            continue
        masks = resize_masks(scan, size) if labelled else None
        wanted = np.arange(len(scan))
        if positive and not layout.selects:
            wanted = find_positive(scan, masks, problems)
        reservoir.offer(scan, wanted[known[wanted]], masks)
    _report_unknown(root, unknown, problems)
    blood = None if reservoir.masks is None else bool(reservoir.masks.any())
    _require_some(root, len(reservoir.index), blood, positive, problems)
    return reservoir.collect(window), problems


def find_layout(root: Path) -> Layout:
    """The layout of a data set's folder, or of the set that a pool was made from."""
    root = Path(root)
    if (root / MANIFEST).is_file():
        return get_layout(Pool(root).arguments["layout"], root)
    return detect_layout(root)


def _load_pool(
    root: Path,
    size: int,
    window: Window,
    *,
    labelled: bool,
    positive: bool,
    limit: int | None,
    seed: int,
) -> tuple[SliceSet, Problems]:
    pool, problems = Pool(root), Problems()
    if pool.size != size:
        raise DataError(
            f"{root}: this pool has slices of {pool.size} x {pool.size}, but {size} x {size} are "
            f"wanted; set data.size = {pool.size}, or prepare it again with --size {size}"
        )
    _check_window(root, window, pool.hu_range)
    if labelled and pool.masks is None:
        raise DataError(f"{root}: this pool has no masks to learn from")
    masks = pool.mask_tensor() if labelled else None
    index = pool.index
    rows = [i for i, row in enumerate(index) if row.has_mask or not labelled]
    if labelled:
        _report_unknown(root, [row.subtypes for row in index if not row.has_mask], problems)
    if positive and masks is not None:
        rows = [i for i in rows if masks[i].any()]
    elif positive:
        unlabelled = sum(index[i].subtypes is None for i in rows)
        if unlabelled:
            problems.skip(root.name, f"{unlabelled} slices without a known label")
        rows = [i for i in rows if index[i].subtypes]
    if limit is not None and limit < len(rows):
        chosen = np.random.default_rng(seed).choice(len(rows), limit, replace=False)
        rows = [rows[i] for i in sorted(chosen)]
    pool.check_slices(rows, CHECKED)
    kept = [index[i] for i in rows]
    blood = None if masks is None else any(bool(masks[i].any()) for i in rows)
    _require_some(root, len(rows), blood, positive, problems)
    return (
        SliceSet(
            hu=pool.tensor(),
            masks=masks,
            rows=torch.tensor(rows, dtype=torch.long),
            window=window,
            patients=tuple(row.patient for row in kept),
            series=tuple(row.series for row in kept),
            positions=tuple(row.position for row in kept),
            sources=tuple(row.source for row in kept),
            spacings=tuple(row.spacing or (math.nan, math.nan) for row in kept),
            studies=tuple(row.study for row in kept),
            subtypes=tuple(row.subtypes for row in kept),
            pool=pool.fingerprint(),
        ),
        problems,
    )


def _check_arguments(size: int, window: Window, limit: int | None) -> None:
    if size < 1:
        raise DataError(f"size is {size}; it must be at least 1")
    if not window[1] > 1:
        raise DataError(f"the window's width is {window[1]}; it must be greater than 1")
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}; it must be at least 1")


def _check_window(root: Path, window: Window, hu_range: tuple[float, float] | None) -> None:
    if hu_range is None:
        return
    (low, high), (level, width) = hu_range, window
    if level - width / 2 < low or level + width / 2 > high:
        raise DataError(
            f"{root}: these pictures hold HU from {low:g} to {high:g} only, but the window is "
            f"{level - width / 2:g} to {level + width / 2:g}; set data.window inside, such as "
            f"[{(low + high) / 2:g}, {high - low:g}], for every set of the run"
        )


class _Reservoir:
    """The slices so far: all of them, or a uniform choice of `limit` from a number that is known
    only at the end (Vitter's algorithm R). The arrays grow in place, scan by scan, so that memory
    holds the result and one scan.
    """

    def __init__(self, size: int, labelled: bool, limit: int | None, seed: int):
        self.size = size
        self.limit = limit
        self.random = np.random.default_rng(seed)
        self.seen = 0
        self.hu = np.empty((0, size, size), np.int16)
        self.masks = np.empty((0, size, size), np.uint8) if labelled else None
        self.index: list[_Entry] = []  # by place

    def offer(self, scan: Series, wanted: np.ndarray, masks: Tensor | None) -> None:
        """Keep the scan's wanted slices, or those of them that are chosen."""
        kept = self._assign_places(scan, wanted)
        if not kept:
            return
        places, slices = list(kept), np.array(list(kept.values()))
        # refcheck would trip over a debugger; no view of these arrays exists before `collect`.
        self.hu.resize((len(self.index), self.size, self.size), refcheck=False)
        self.hu[places] = resize_hu(scan, slices, self.size)
        if self.masks is not None and masks is not None:
            self.masks.resize(self.hu.shape, refcheck=False)
            self.masks[places] = masks.numpy()[slices, 0]

    def _assign_places(self, scan: Series, wanted: np.ndarray) -> dict[int, int]:
        """Where slices of this scan go: place -> slice."""
        kept: dict[int, int] = {}
        for i in map(int, wanted):
            entry = _Entry(
                self.seen,
                scan.patient,
                scan.series,
                float(scan.positions[i]),
                scan.sources[i],
                resize_spacing(scan, self.size),
                scan.study,
                scan.name_subtypes(i),
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

    def collect(self, window: Window) -> SliceSet:
        """The slices in the order of their arrival; the pixels stay where they are."""
        rows = sorted(range(len(self.index)), key=lambda place: self.index[place].arrival)
        _, patients, series, positions, sources, spacings, studies, subtypes = zip(
            *(self.index[place] for place in rows), strict=True
        )
        return SliceSet(
            hu=torch.from_numpy(self.hu),
            masks=None if self.masks is None else torch.from_numpy(self.masks),
            rows=torch.tensor(rows, dtype=torch.long),
            window=window,
            patients=patients,
            series=series,
            positions=positions,
            sources=sources,
            spacings=spacings,
            studies=studies,
            subtypes=subtypes,
        )


class _Entry(NamedTuple):
    arrival: int
    patient: str
    series: str
    position: float
    source: str
    spacing: tuple[float, float]
    study: str
    subtypes: tuple[str, ...] | None


def _report_unknown(
    root: Path, subtypes: Sequence[tuple[str, ...] | None], problems: Problems
) -> None:
    """Say how many slices of a labelled set are left out, given what is known of these."""
    if subtypes:
        positive = sum(bool(kinds) for kinds in subtypes)
        problems.skip(
            root.name,
            f"{len(subtypes)} slices have no mask and are left out, {positive} of them labelled as "
            f"haemorrhage",
        )


def _require_some(
    root: Path, count: int, blood: bool | None, positive: bool, problems: Problems
) -> None:
    if not count and not positive:
        raise DataError(f"{root}: no slice could be read: {problems.summary()}")
    if blood is False:
        raise DataError(
            f"{root}: no mask has haemorrhage at this size; check the masks or raise data.size "
            f"({problems.summary()})"
        )
    if not count:
        raise DataError(
            f"{root}: no slice is labelled with haemorrhage; check the set's table or set "
            f"data.unlabelled_slices = 'all' ({problems.summary()})"
        )
