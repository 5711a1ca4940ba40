"""Slices of any shape in the square that a network takes, and back."""

import math
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from ichfast.data.resize import average_hu
from ichfast.data.series import AIR_HU

Spacing = tuple[float, float]


class Fit(NamedTuple):
    """The part of a square of ``size`` pixels that a slice fills; the rest is air."""

    size: int
    top: int
    left: int
    height: int
    width: int

    @classmethod
    def make(cls, rows: int, columns: int, spacing: Spacing | None, size: int) -> "Fit":
        """Of a slice with so many rows and columns, centred, at its true proportions: by
        ``spacing`` (mm between rows, between columns), or with square pixels where it is None or
        NaN."""
        high, wide = measure_sides(rows, columns, spacing)
        side = max(high, wide)
        height, width = (max(1, round(size * own / side)) for own in (high, wide))
        return cls(size, (size - height) // 2, (size - width) // 2, height, width)

    def place(
        self, stored: Tensor, slope: Tensor, intercept: Tensor, padding: float | None
    ) -> Tensor:
        """(B, S, S) int16 HU of the (B, H, W) stored values."""
        hu = average_hu(stored, slope, intercept, (self.height, self.width), padding)
        if (self.height, self.width) == (self.size, self.size):
            return hu.contiguous()
        square = hu.new_full((len(hu), self.size, self.size), int(AIR_HU))
        square[:, self.top : self.top + self.height, self.left : self.left + self.width] = hu
        return square

    def restore(self, logits: Tensor, rows: int, columns: int) -> Tensor:
        """(B, rows, columns) of the (B, 1, S, S) logits, bilinear."""
        own = logits[:, :, self.top :, self.left :][:, :, : self.height, : self.width]
        return F.interpolate(own, (rows, columns), mode="bilinear", align_corners=False)[:, 0]


def measure_sides(rows: int, columns: int, spacing: Spacing | None) -> tuple[float, float]:
    """Height and width of a slice in mm, or in pixels where its spacing is not known."""
    if spacing is None or (len(spacing) == 2 and any(map(math.isnan, spacing))):
        return float(rows), float(columns)
    if len(spacing) != 2 or not all(0 < one < math.inf for one in spacing):
        raise ValueError(f"spacing must be mm between rows and columns, above 0; got {spacing}.")
    return rows * spacing[0], columns * spacing[1]
