"""The slices of a test in numbers, column by column: what intervals and comparisons start from."""

from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from ichfast.data import SliceSet
from ichfast.evaluation.surface import Surface, by_tolerance
from ichfast.metrics import numbers


def table(slices: SliceSet, counts: Tensor, surface: Surface, whole: SliceSet) -> dict[str, Any]:
    """Columns of N values each, ready for JSON; what is undefined or unknown is None.

    ``patient`` and ``series`` are numbers, in the order of their first slice in ``whole``, the set
    that ``slices`` were chosen from, and ``slice`` is the place there. No identifier is in it.
    """
    tp, fp, fn = counts.T.tolist()
    own, every = _scans(slices), _scans(whole)
    return {
        "patient": numbers(slices.patients, whole.patients),
        "series": numbers(own, every),
        "slice": slices.rows.tolist(),
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "subtypes": [None if kinds is None else list(kinds) for kinds in slices.subtypes]
        or [None] * len(slices),
        "hd95": _known(surface.hd95),
        "nsd": {name: _known(column) for name, column in by_tolerance(surface.nsd).items()},
    }


def _scans(slices: SliceSet) -> list[tuple[str, str]]:
    return list(zip(slices.patients, slices.series, strict=True))


def _known(values: NDArray[Any]) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]
