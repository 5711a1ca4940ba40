"""How far apart the outlines of two masks lie: HD95 and NSD of a slice, in mm.

    HD95 = max(P95 of d(p, T) over p in P, P95 of d(t, P) over t in T)
    NSD(τ) = (#{p in P: d(p, T) <= τ} + #{t in T: d(t, P) <= τ}) / (#P + #T)

P and T are the boundaries of prediction and target: the pixels of a mask with one of their four
neighbours outside of it, where the world beyond the slice is outside too. d is the Euclidean
distance between centres of pixels, to the nearest one of the other boundary; P95 interpolates
linearly (Huttenlocher et al., TPAMI 1993; Nikolov et al., arXiv 1809.04430, who weigh pixels by
length).

Two empty masks have neither score. Where one alone is empty, `EMPTY_RULE` says "diagonal": HD95 is
the distance of opposite corners of the slice, which no pair of masks exceeds, and NSD is 0.
``docs/metrics.md`` says why, and where others differ.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

EMPTY_RULE = "diagonal"
TOLERANCES = (1.0, 2.0)  # mm: about one and two pixels of a head at 256 x 256
HAIR = 1e-6  # mm: 3 x 0.1 mm is no more than 0.3 mm, whatever floats say
AT_ONCE = 2**22  # distances held at a time: 32 MiB

Mask = NDArray[Any]


class Surface(NamedTuple):
    """Of N slices. NaN: undefined, since both masks are empty or the spacing is unknown."""

    hd95: NDArray[np.float64]  # (N,) mm
    nsd: NDArray[np.float64]  # (N, T), one column per tolerance


def measure_surface(
    predictions: Mask,
    targets: Mask,
    spacings: NDArray[np.float64],
    tolerances: tuple[float, ...] = TOLERANCES,
) -> Surface:
    """HD95 and NSD of masks (N, H, W), true or not 0 where there is blood. ``spacings`` (N, 2) are
    mm between rows and between columns, NaN where unknown; ``tolerances`` are in mm.
    """
    if predictions.ndim != 3 or predictions.shape != targets.shape:
        raise ValueError(f"masks must both be (N, H, W): {predictions.shape}, {targets.shape}")
    if spacings.shape != (len(predictions), 2) or (spacings <= 0).any():
        raise ValueError(f"spacings must be (N, 2) and positive, got {spacings.shape}: {spacings}")
    if any(not tolerance >= 0 for tolerance in tolerances):
        raise ValueError(f"tolerances must be at least 0 mm, got {tolerances}")
    scores = Surface(
        np.full(len(predictions), np.nan), np.full((len(predictions), len(tolerances)), np.nan)
    )
    for i, spacing in enumerate(spacings):
        prediction, target = predictions[i] != 0, targets[i] != 0
        found, there = prediction.any(), target.any()
        if np.isnan(spacing).any() or not (found or there):
            continue
        if not (found and there):
            scores.hd95[i] = np.hypot(*((np.array(prediction.shape) - 1) * spacing))
            scores.nsd[i] = 0
            continue
        box = _find_box(prediction | target)
        prediction, target = prediction[box], target[box]
        ways = (
            measure_distances(prediction, target, spacing),
            measure_distances(target, prediction, spacing),
        )
        scores.hd95[i] = max(np.quantile(way, 0.95) for way in ways)
        near = [np.concatenate(ways) <= tolerance + HAIR for tolerance in tolerances]
        scores.nsd[i] = [each.mean() for each in near]
    return scores


def name_columns(nsd: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The columns of (N, T) by the names that files give them, as "1 mm"."""
    return {f"{mm:g} mm": nsd[:, i] for i, mm in enumerate(TOLERANCES)}


def measure_distances(
    one: NDArray[np.bool_], other: NDArray[np.bool_], spacing: NDArray[np.float64]
) -> NDArray[np.float64]:
    """mm from each boundary pixel of mask ``one`` (H, W) to the nearest of ``other``'s, neither
    empty. Exact: the nearest in each column lies straight above or below, so of K pixels only
    K·W pairs are looked at, however ragged the masks are.
    """
    rows, columns = np.nonzero(find_boundary(one))
    off = _count_rows_to_nearest(find_boundary(other))  # (H, W), infinite without any
    off = (off * spacing[0]) ** 2
    across = np.arange(one.shape[1])
    found = np.empty(len(rows))
    step = max(AT_ONCE // one.shape[1], 1)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        aside = ((across - columns[part, None]) * spacing[1]) ** 2
        found[part] = np.sqrt((off[rows[part]] + aside).min(1))
    return found


def find_boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of a mask (H, W) that have a neighbour (of four) outside of it."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def _find_box(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The smallest box around a mask (H, W) that is not empty."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _count_rows_to_nearest(points: NDArray[np.bool_]) -> NDArray[np.float64]:
    """From each pixel (H, W) to the nearest point of its column, in rows; infinite without one."""
    row = np.arange(len(points), dtype=np.float64)[:, None]
    above = np.maximum.accumulate(np.where(points, row, -np.inf))
    below = np.minimum.accumulate(np.where(points, row, np.inf)[::-1])[::-1]
    return np.minimum(row - above, below - row)
