"""What a mask amounts to: mL by slabs, areas, components, and ABC/2 to compare with."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

from ichfast.data.series import Series
from ichfast.data.slabs import describe_gap, find_gaps, measure_slabs, measure_volume, pixel_area


@dataclass(frozen=True)
class Component:
    """Voxels that touch each other, be it by a corner."""

    pixels: int  # over all slices
    ml: float | None
    first: int  # of its slices, from 0
    last: int


@dataclass(frozen=True)
class Ellipsoid:
    """Kothari's estimate of one component (Kothari et al., Stroke 27(8):1304-1305, 1996)."""

    a: float  # mm, the longest diameter on the slice with the largest area
    b: float  # mm, the longest one across it
    c: float  # mm, the slabs of the slices, weighted by their areas
    ml: float  # a·b·c/2


@dataclass(frozen=True)
class Measures:
    """Of n slices, inferior -> superior. What needs mm is None where the files do not give them,
    and `unknown` says what is missing.
    """

    pixels: tuple[int, ...]  # n
    areas: tuple[float, ...] | None  # n, mm²
    slabs: tuple[float, ...] | None  # n, mm
    ml: float | None
    components: tuple[Component, ...]  # the largest first
    abc2: Ellipsoid | None  # of the largest component
    gaps: tuple[str, ...]  # a sentence for each place where slices are missing
    unknown: str | None


def measure(series: Series, mask: np.ndarray) -> Measures:
    """The mask, (n, H, W) bool on the voxels of the series, in numbers."""
    if mask.shape != series.stored.shape or mask.dtype != bool:
        raise ValueError(
            f"mask is {mask.dtype} {mask.shape}; pass bool {series.stored.shape}, as its series is"
        )
    area = pixel_area(series.spacing)
    slabs = measure_slabs(series.positions, series.grid.thickness if series.grid else None)
    counts = np.count_nonzero(mask, axis=(1, 2))
    labels, number = label_components(mask)
    by_slice = _count_by_slice(labels, number)
    components = [_describe_component(own, area, slabs) for own in by_slice]
    order = sorted(range(number), key=lambda i: _rank(components[i]), reverse=True)
    abc2 = None
    if order and area is not None and slabs is not None:
        abc2 = measure_abc2(labels == order[0] + 1, series.spacing, slabs)
    return Measures(
        pixels=tuple(counts.tolist()),
        areas=None if area is None else tuple((counts * area).tolist()),
        slabs=None if slabs is None else tuple(slabs.tolist()),
        ml=None if area is None or slabs is None else measure_volume(counts, area, slabs),
        components=tuple(components[i] for i in order),
        abc2=abc2,
        gaps=tuple(_describe_gaps(series.positions, counts, area)),
        unknown=_name_unknown(area, slabs),
    )


def label_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """(n, H, W) int32, 0 outside and from 1 on in each component, and their number."""
    labels = np.zeros(mask.shape, np.int32)
    box = ndimage.find_objects(mask.view(np.uint8))
    if not box:
        return labels, 0
    found, number = ndimage.label(mask[box[0]], structure=np.ones((3, 3, 3)))
    labels[box[0]] = found
    return labels, int(number)


def measure_abc2(
    component: np.ndarray, spacing: tuple[float, float], slabs: np.ndarray
) -> Ellipsoid:
    """Of a component, (n, H, W) bool with at least one voxel; spacing in mm between rows and
    between columns, and the (n,) mm of the slabs. A slice counts whole from three quarters of the
    largest area on, half from a quarter on, and else not at all.
    """
    areas = np.count_nonzero(component, axis=(1, 2))
    share = areas / areas.max()
    c = float(slabs @ np.where(share >= 0.75, 1.0, np.where(share >= 0.25, 0.5, 0.0)))
    centres = np.argwhere(component[areas.argmax()]) * spacing
    # The middles of a pixel's edges: from corner to corner would be too long, from centre to
    # centre too short.
    half = np.diag(spacing) / 2
    edges = np.concatenate([centres + way for way in (*half, *-half)])
    hull = edges[ConvexHull(edges).vertices]
    distances = squareform(pdist(hull))
    one, other = np.unravel_index(distances.argmax(), distances.shape)
    a = float(distances[one, other])
    along = (hull[one] - hull[other]) / a
    b = _measure_across(centres, along, spacing)
    return Ellipsoid(a, b, c, a * b * c / 2000)


def _measure_across(centres: np.ndarray, along: np.ndarray, spacing: tuple[float, float]) -> float:
    """The longest of the lines perpendicular to `along`, from the first to the last pixel on it."""
    across = np.array([-along[1], along[0]])
    strip = np.floor(centres @ along / max(spacing)).astype(int)
    strip -= strip.min()
    place = centres @ across
    least, greatest = np.full((2, strip.max() + 1), [[np.inf], [-np.inf]])
    np.minimum.at(least, strip, place)
    np.maximum.at(greatest, strip, place)
    return float((greatest - least).max() + np.abs(across * spacing).max())


def _count_by_slice(labels: np.ndarray, number: int) -> np.ndarray:
    """(number, n) voxels of each component on each slice."""
    counts = np.stack([np.bincount(one.ravel(), minlength=number + 1) for one in labels])
    return counts.T[1:]


def _describe_component(
    counts: np.ndarray, area: float | None, slabs: np.ndarray | None
) -> Component:
    there = np.flatnonzero(counts)
    return Component(
        pixels=int(counts.sum()),
        ml=None if area is None or slabs is None else measure_volume(counts, area, slabs),
        first=int(there[0]),
        last=int(there[-1]),
    )


def _rank(component: Component) -> float:
    return component.pixels if component.ml is None else component.ml


def _describe_gaps(positions: np.ndarray, counts: np.ndarray, area: float | None) -> list[str]:
    sentences = []
    for gap in find_gaps(positions):
        text = f"{describe_gap(gap)}; each side counts up to the middle"
        if area is not None:
            beyond = (gap.mm - gap.step) / 2  # of each side's slab
            ml = measure_volume(counts[gap.after : gap.after + 2], area, np.full(2, beyond))
            text += f", which adds {ml:.1f} mL"
        sentences.append(text)
    return sentences


def _name_unknown(area: float | None, slabs: np.ndarray | None) -> str | None:
    if area is None:
        return "no mL: the files do not say how large a pixel is"
    if slabs is None:
        return "no mL: all slices are at one position, and the files have no SliceThickness"
    return None
