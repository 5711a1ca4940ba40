"""Coordinates, soft edges and smooth random fields: the drawing tools of the phantom.

Everything is in float64 and free of BLAS: results that differ between machines only in the last
bits of a double round to the same integer HU.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

AIR = -1000.0  # HU
FAR = 1e3  # mm
SLAB = 5.0  # mm: slice thickness, whose partial volume blurs whatever crosses the slice obliquely


@dataclass(eq=False)
class Plane:
    """One slice in head coordinates, in mm: x to the patient's left, y to the front, z up.

    `x, y, z, depth` belong to the skull; `brain_x, brain_y, cover` are the same after the brain has
    been displaced by the lesions' mass effect.
    """

    rows: slice  # the part of the image that the head takes up; arrays cover only that
    columns: slice
    across: Array  # (W,) mm of the columns, before the head's rotation: the axes of noise fields
    along: Array  # (H,) mm of the rows
    level: float  # mm of the slice
    pixel: float  # mm
    x: Array
    y: Array
    z: Array
    depth: Array = field(init=False)  # mm inside the inner table of the skull, negative outside
    blur: Array = field(init=False)  # mm over which the skull's surfaces fade (partial volume)
    brain_x: Array = field(init=False)
    brain_y: Array = field(init=False)
    cover: Array = field(init=False)  # mm below the surface of the brain's envelope (the dura)
    fields: dict["Noise", Array] = field(default_factory=dict)  # those already evaluated here

    def holds(self, low: float, high: float) -> bool:
        """Whether any pixel lies between these heights; lets most structures skip most slices."""
        return bool(self.z.min() < high and self.z.max() > low)


def pixel_centres(size: int, pixel: float) -> Array:
    """mm from the middle of the image, along rows or columns."""
    return (np.arange(size, dtype=np.float64) - (size - 1) / 2) * pixel


def edge(distance: Array, width: float | Array = 1.0) -> Array:
    """Fraction of a voxel inside a surface at a signed `distance` (mm, positive inside)."""
    coverage = distance / width
    coverage += 0.5
    return np.clip(coverage, 0.0, 1.0, out=coverage)


def paint(hu: Array, coverage: Array, value: float | Array) -> None:
    """Mix `value` into the image, in place."""
    hu += coverage * (value - hu)


def tube(
    plane: Plane,
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    radii: tuple[float, float],
    tall: float = 1.0,
    mirror: bool = True,
    margin: float = 4.0,
) -> Array | None:
    """Signed distance (mm, positive inside) to a tapered capsule in the brain's coordinates.

    `tall` stretches its cross-section upwards; `mirror` puts its twin on the other side. It is
    right up to `margin` outside, and -FAR in rows further away; None where the slice is.
    """
    reach = max(radii) + margin
    if not plane.holds(min(start[2], end[2]) - tall * reach, max(start[2], end[2]) + tall * reach):
        return None
    near = plane.brain_y.max(axis=1) > min(start[1], end[1]) - reach
    near &= plane.brain_y.min(axis=1) < max(start[1], end[1]) + reach
    if not near.any():
        return None
    rows = np.flatnonzero(near)
    part = slice(int(rows[0]), int(rows[-1]) + 1)
    x = np.abs(plane.brain_x[part]) if mirror else plane.brain_x[part]
    dx, dy = x - start[0], plane.brain_y[part] - start[1]
    dz = (plane.z[part] - start[2]) / tall
    ax, ay, az = end[0] - start[0], end[1] - start[1], (end[2] - start[2]) / tall
    length2 = max(ax * ax + ay * ay + az * az, 1e-6)
    t = np.clip((dx * ax + dy * ay + dz * az) / length2, 0.0, 1.0)
    dx, dy, dz = dx - t * ax, dy - t * ay, dz - t * az
    distance = np.full_like(plane.brain_x, -FAR)
    distance[part] = radii[0] + t * (radii[1] - radii[0]) - np.sqrt(dx * dx + dy * dy + dz * dz)
    return distance


class Noise:
    """A smooth random field of unit variance, fixed in space: cubic B-splines over a lattice.

    `scale` is the lattice's spacing in mm; the field's detail is about twice that wide.
    """

    REACH = (100.0, 170.0, 170.0)  # mm covered to either side: upwards, along, across

    def __init__(self, rng: np.random.Generator, scale: float) -> None:
        self.scale = scale
        self.lattice = rng.standard_normal([int(2 * reach / scale) + 5 for reach in self.REACH])

    def _find_taps(self, at: Array, axis: int) -> tuple[npt.NDArray[np.int64], Array]:
        """First lattice index and the four spline weights of each coordinate."""
        place = np.clip((at + self.REACH[axis]) / self.scale, 0.0, self.lattice.shape[axis] - 4.001)
        first = place.astype(np.int64)
        t = place - first
        weights = np.stack(
            [(1 - t) ** 3, (3 * t - 6) * t * t + 4, ((3 - 3 * t) * t + 3) * t + 1, t**3]
        )
        return first, weights / np.sqrt((weights**2).sum(0))

    def __call__(self, plane: Plane) -> Array:
        if self not in plane.fields:
            plane.fields[self] = self._evaluate(plane)
        return plane.fields[self]

    def _evaluate(self, plane: Plane) -> Array:
        k, wz = self._find_taps(np.array([plane.level]), 0)
        layer = _add_up(wz[tap] * self.lattice[k[0] + tap] for tap in range(4))
        j, wy = self._find_taps(plane.along, 1)
        rows = _add_up(wy[tap][:, None] * layer[j + tap] for tap in range(4))
        i, wx = self._find_taps(plane.across, 2)
        return _add_up(wx[tap] * rows[:, i + tap] for tap in range(4))


def _add_up(terms: Iterable[Array]) -> Array:
    return functools.reduce(np.add, terms)


def blur(image: Array, sigma: float) -> Array:
    """Gaussian blur of a 2-D image, sigma in pixels, edges repeated."""
    radius = max(1, int(3.0 * sigma + 0.5))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma, 1e-3)) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        n = image.shape[axis]
        pad = [(radius, radius) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(image, pad, mode="edge")
        window = [slice(None), slice(None)]
        image = np.zeros_like(image)
        for k, weight in enumerate(kernel):
            window[axis] = slice(k, k + n)
            image += weight * padded[tuple(window)]
    return image
