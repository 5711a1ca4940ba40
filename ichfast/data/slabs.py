"""How much of the patient each slice stands for. Volumes are areas times these slabs: positions are
along the slice normal, so the product is right for tilted and for unevenly spaced slices.
"""

from dataclasses import dataclass

import numpy as np

from ichfast.data.grid import SAME_POSITION_MM

WIDE = 1.5  # times the steps on both sides: slices are missing


@dataclass(frozen=True)
class Gap:
    """Between slice `after` and the next one: wider than the steps on both of its sides."""

    after: int  # from 0
    mm: float
    step: float  # mm, the wider of the steps beside it


def find_gaps(positions: np.ndarray) -> list[Gap]:
    """Where slices are missing, for (n,) positions in mm, ascending. A step that changes for good
    is no gap.
    """
    where = np.flatnonzero(np.diff(positions) >= SAME_POSITION_MM)  # the last of each position
    steps = np.diff(positions)[where]
    gaps = []
    for i, mm in enumerate(steps.tolist()):
        beside = [*steps[max(i - 1, 0) : i].tolist(), *steps[i + 1 : i + 2].tolist()]
        if beside and mm > WIDE * max(beside):
            gaps.append(Gap(int(where[i]), mm, max(beside)))
    return gaps


def find_edges(positions: np.ndarray, thickness: float | None = None) -> np.ndarray | None:
    """(n + 1,) mm: where the slabs of the slices end, half-way from each to the next. The first and
    the last slab reach as far outwards as inwards, at a gap half the step beside it. Slices at one
    position share its slab. Across a gap, too, each side counts up to the middle: the best guess of
    what was not scanned, and `find_gaps` tells of it.

    Args:
        positions: (n,) mm along the slice normal, ascending.
        thickness: mm, needed where all slices are at one position.

    Returns:
        None where all slices are at one position and there is no thickness.
    """
    starts = np.flatnonzero(np.diff(positions, prepend=-np.inf) >= SAME_POSITION_MM)
    places = positions[starts]
    steps = np.diff(places)
    if len(steps):
        below, above = steps[0], steps[-1]
    elif thickness is not None:
        below = above = thickness
    else:
        return None
    for gap in find_gaps(places):
        below = gap.step if gap.after == 0 else below
        above = gap.step if gap.after == len(steps) - 1 else above
    ends = [places[0] - below / 2, *(places[:-1] + steps / 2), places[-1] + above / 2]
    edges: np.ndarray = np.interp(np.arange(len(positions) + 1), [*starts, len(positions)], ends)
    return edges


def measure_slabs(positions: np.ndarray, thickness: float | None = None) -> np.ndarray | None:
    """(n,) mm between the `find_edges`: the slab that each slice stands for."""
    edges = find_edges(positions, thickness)
    return None if edges is None else np.diff(edges)


def describe_gap(gap: Gap) -> str:
    """In words, with slices counted from 1."""
    missing = round(gap.mm / gap.step) - 1
    return (
        f"a gap of {gap.mm:.1f} mm between slices {gap.after + 1} and {gap.after + 2}, "
        f"{gap.step:.1f} mm beside it: {missing} slice{'s' * (missing > 1)} missing"
    )


def pixel_area(spacing: tuple[float, float]) -> float | None:
    """mm² of a pixel; None where the spacing is not known."""
    area = spacing[0] * spacing[1]
    return float(area) if np.isfinite(area) else None


def measure_volume(counts: np.ndarray, area: float, slabs: np.ndarray) -> float:
    """mL of (n,) pixels on each slice, for the mm² of a pixel and the (n,) mm of the slabs."""
    return float(counts @ slabs) * area / 1000
