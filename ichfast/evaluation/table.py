"""The slices of a test in numbers, column by column: what intervals and comparisons start from."""

from typing import Any

from numpy.typing import NDArray

from ichfast.data import SliceSet
from ichfast.evaluation.evaluate import Evaluation
from ichfast.evaluation.surface import name_columns
from ichfast.metrics import number_names


def tabulate(slices: SliceSet, found: Evaluation, whole: SliceSet) -> dict[str, Any]:
    """Columns of N values each, ready for JSON; what is undefined or unknown is None. ``found`` is
    what `evaluate` found on ``slices``, outlines included.

    ``patient`` and ``series`` are numbers, in the order of their first slice in ``whole``, the set
    that ``slices`` were chosen from, and ``slice`` is the place there. It holds no identifier.
    """
    surface = found.surface
    if surface is None:
        raise ValueError("these slices have no outlines: evaluate(..., surfaces=True)")
    tp, fp, fn = found.counts.T.tolist()
    own, every = _list_scans(slices), _list_scans(whole)
    return {
        "patient": number_names(slices.patients, whole.patients),
        "series": number_names(own, every),
        "slice": slices.rows.tolist(),
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "area": found.areas.tolist(),
        "subtypes": [None if kinds is None else list(kinds) for kinds in slices.subtypes]
        or [None] * len(slices),
        "hd95": _none_if_nan(surface.hd95),
        "nsd": {name: _none_if_nan(column) for name, column in name_columns(surface.nsd).items()},
    }


def _list_scans(slices: SliceSet) -> list[tuple[str, str]]:
    return list(zip(slices.patients, slices.series, strict=True))


def _none_if_nan(values: NDArray[Any]) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]
