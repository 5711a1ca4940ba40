"""Slices ready for training and evaluation: Hounsfield units, from which batches are made."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ichfast.data.residence import Store, make_store
from ichfast.data.series import UNNAMED
from ichfast.errors import DataError
from ichfast.ops.pool_batch import pool_batch

Window = tuple[float, float]  # level and width in HU


class Warp(NamedTuple):
    """How each image of a batch is augmented; `ichfast.ops.augmentation` makes ``theta``."""

    theta: Tensor  # (B, 2, 3) float32, as `pool_batch` takes it
    windows: Tensor  # (B, 1, 2) float32, level and width in HU

    @classmethod
    def plain(cls, window: Window, count: int) -> "Warp":
        """Of ``count`` slices as they are, in one window."""
        theta = torch.eye(2, 3).repeat(count, 1, 1)
        return cls(theta, torch.tensor([[window]], dtype=torch.float32).repeat(count, 1, 1))

    def select(self, places: NDArray[np.int64]) -> "Warp":
        """The warp of some of the images."""
        chosen = torch.from_numpy(places)
        return Warp(self.theta[chosen], self.windows[chosen])


@dataclass(frozen=True, eq=False)
class SliceSet:
    """N slices of a pool of P >= N, S x S pixels each, and where each comes from. Selections share
    the pool; where it lies in a file, only what a batch asks for is read.
    """

    hu: Tensor  # (P, S, S) int16
    masks: Tensor | None  # (P, S, S) uint8, 0 or 1
    rows: Tensor  # (N,) int64, the slices' places in the pool
    window: Window  # that batches are made with
    patients: tuple[str, ...]  # N, as everything below
    series: tuple[str, ...]
    positions: tuple[float, ...]  # mm along the slice normal
    sources: tuple[str, ...]  # files relative to the root
    # mm between rows and between columns at this size; NaN: unknown. Not part of the fingerprint.
    spacings: tuple[tuple[float, float], ...]
    studies: tuple[str, ...] = ()  # where known; not part of the fingerprint
    subtypes: tuple[tuple[str, ...] | None, ...] = ()  # of SUBTYPES, where known; likewise
    pool: str = ""  # fingerprint of the pool's files, where ``hu`` is mapped from one
    store: Store | None = None  # where `to` has put the pixels

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        """Without names: a notebook prints it."""
        masks = "out" if self.masks is None else ""
        patients = len(set(self.patients))
        return (
            f"<SliceSet: {len(self)} slices of {patients} patients, {self.size} x {self.size}, "
            f"with{masks} masks>"
        )

    @property
    def size(self) -> int:
        return self.hu.shape[-1]

    def select(self, indices: Sequence[int]) -> "SliceSet":
        def pick(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[i] for i in indices) if values else ()

        return replace(
            self,
            rows=self.rows[torch.as_tensor(indices, dtype=torch.long)],
            patients=pick(self.patients),
            series=pick(self.series),
            positions=pick(self.positions),
            sources=pick(self.sources),
            spacings=pick(self.spacings),
            studies=pick(self.studies),
            subtypes=pick(self.subtypes),
            store=None,
        )

    def to(self, device: torch.device | str) -> "SliceSet":
        """The same slices, whose batches are made on ``device``. Where the pixels lie depends
        on the free memory, and ``store.place`` names it: see `ichfast.data.residence`.
        """
        device = torch.device(device)
        if self.store is not None and self.store.device == device:
            return self
        return replace(self, store=self._make_store(device))

    def _make_store(self, device: torch.device) -> Store:
        return make_store(device, self.hu, self.masks, self.rows, mapped=bool(self.pool))

    def batch(
        self, indices: Sequence[int] | NDArray[np.int64] | Tensor, warp: Warp | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Images (B, 1, S, S) float32, windowed to [0, 1], and masks (B, 1, S, S) uint8, 0 or 1
        (None where there are none), on the device that the set was moved to. ``indices`` (B,) count
        within this set.
        """
        store = self.store or self._make_store(torch.device("cpu"))
        indices = torch.as_tensor(indices, dtype=torch.long)
        if warp is None:
            warp = Warp.plain(self.window, len(indices))
        hu, masks, places = store.fetch(indices)
        images, targets = pool_batch(
            hu,
            places,
            warp.theta.to(store.device, non_blocking=True),
            warp.windows.to(store.device, non_blocking=True),
            masks=masks,
        )
        return images, targets

    def identifiers(self) -> set[str]:
        """Names by which another set may hold one of these heads."""
        series = (name for name in self.series if not name.startswith(UNNAMED))
        return {*self.patients, *self.studies, *series} - {""}

    @cached_property
    def positive(self) -> Tensor:
        """(N,) bool: the slice's mask is not empty at this size."""
        masks = self.masks
        if masks is None:
            raise DataError("these slices have no masks, so which are positive is unknown")
        found = [bool(masks[row].any()) for row in self.rows.tolist()]
        return torch.tensor(found, dtype=torch.bool)

    def fingerprint(self) -> str:
        """sha256 over pixels, masks and index (of a pool's file, over its checksums and the rows):
        equal exactly when the set is the same. Spacings are the size of a pixel and change
        nothing that a model learns or predicts, so they are left out.
        """
        head = (len(self), self.size, self.masks is None, self.window, self.pool)
        digest = hashlib.sha256(repr(head).encode())
        if self.pool:
            digest.update(self.rows.numpy().tobytes())
            return digest.hexdigest()
        for pixels in [self.hu] if self.masks is None else [self.hu, self.masks]:
            for row in self.rows.tolist():
                digest.update(pixels[row].numpy().tobytes())
        for row in zip(self.patients, self.series, self.positions, self.sources, strict=True):
            digest.update(repr(row).encode())
        return digest.hexdigest()
