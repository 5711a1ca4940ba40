"""Whether several acquisitions of the same region lie in one series, slice between slice."""

from collections.abc import Sequence

import numpy as np

from ichfast.data.grid import SAME_POSITION_MM


def are_interleaved(positions: np.ndarray, acquisitions: Sequence[tuple[bytes, bytes]]) -> bool:
    """By the (n,) positions in mm and the AcquisitionNumber and AcquisitionTime of the slices: two
    acquisitions reach over each other and have slices where the other has none. Scans that follow
    one another along the axis do not, nor do phases at the same positions.
    """
    numbers, times = zip(*acquisitions, strict=True) if len(acquisitions) else ((), ())
    if len(set(numbers)) > 1:
        members = [np.array([number == one for number in numbers]) for one in set(numbers)]
        groups = [np.sort(positions[own]) for own in members]
    elif len(set(times)) > 1:
        groups = _find_sweeps(positions[np.array(sorted(range(len(times)), key=times.__getitem__))])
    else:
        return False
    groups = [group for group in groups if len(group) > 1]
    return any(
        _reaches_into(one, other)
        for i, one in enumerate(groups)
        for k, other in enumerate(groups)
        if i != k
    )


def _find_sweeps(positions: np.ndarray) -> list[np.ndarray]:
    """Positions in the order of their time, cut where the table turns back; each part sorted."""
    moves = np.sign(np.diff(positions))
    cuts, direction = [0], 0.0
    for i, move in enumerate(moves, 1):
        if direction and move == -direction:
            cuts.append(i)
            direction = 0.0
        else:
            direction = move or direction
    return [np.sort(part) for part in np.split(positions, cuts[1:])]


def _reaches_into(one: np.ndarray, other: np.ndarray) -> bool:
    between = one[(one > other[0]) & (one < other[-1])]
    if not len(between):
        return False
    right = np.searchsorted(other, between)
    distance = np.minimum(
        between - other[right - 1], other[np.minimum(right, len(other) - 1)] - between
    )
    return bool((distance > SAME_POSITION_MM).sum() > 1)
