"""Scores over many runs' slices, by hand."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from ichfast.evaluation.intervals import estimate
from ichfast.reproduce.scores import Slices, compare, compute_intervals, make_scores, merge_scans

Rows = list[tuple[int, int, tuple[int, int, int], float, list[str] | None]]
EPIDURAL, BOTH = ["epidural"], ["epidural", "subdural"]


def columns(rows: Rows) -> Mapping[str, Any]:
    """Of patient, series, (tp, fp, fn), area and subtypes."""
    patients, series, counts, areas, subtypes = zip(*rows, strict=True)
    tp, fp, fn = zip(*counts, strict=True)
    none = [None] * len(rows)
    return {
        "patient": patients, "series": series, "tp": tp, "fp": fp, "fn": fn, "area": areas,
        "subtypes": subtypes, "hd95": none, "nsd": {"1 mm": none},
    }  # fmt: skip


ONE = columns(
    [
        (0, 0, (4, 1, 1), 5.5, EPIDURAL),
        (0, 0, (0, 2, 0), 1.0, []),
        (1, 1, (2, 0, 6), 2.0, BOTH),
        (2, 2, (0, 0, 0), 0.2, []),
        (2, 3, (0, 3, 0), 3.0, []),
    ]
)


def scores(*runs: Mapping[str, Any], seeds: tuple[int, ...] = (0,)) -> dict[str, float | None]:
    slices = Slices.from_columns(runs, seeds)
    return {name: estimate(score) for name, (_, score) in make_scores(slices).items()}


def test_overlap_of_positive_slices_of_all_and_of_whole_patients() -> None:
    found = scores(ONE)
    assert found["dice.pooled"] == pytest.approx(12 / (12 + 2 + 6))
    assert found["dice.per_patient"] == pytest.approx((8 / 10 + 4 / 10) / 2)
    assert found["dice.all"] == pytest.approx(12 / (12 + 2 + 6 + 2 + 3))
    assert found["dice.volume"] == pytest.approx((8 / 12 + 4 / 10) / 2)
    assert found["dice.pooled.epidural"] == found["dice.pooled"]
    assert found["dice.pooled.subdural"] == pytest.approx(4 / 10)
    assert "dice.pooled.subarachnoid" not in found


def test_detection_by_any_voxel_and_by_area() -> None:
    found = scores(ONE)
    assert (found["sensitivity.slices"], found["specificity.slices"]) == (1, pytest.approx(1 / 3))
    assert (found["sensitivity.scans"], found["specificity.scans"]) == (1, 0.5)
    # 5.5 and 2.0 against 1.0, 0.2 and 3.0; as scans 6.5 and 2.0 against 0.2 and 3.0.
    assert found["auc.slices"] == pytest.approx(5 / 6)
    assert found["auc.scans"] == pytest.approx(3 / 4)
    assert found["operating.scans"] == pytest.approx(1 / 2)


def test_a_table_says_what_is_positive_even_where_the_mask_is_lost() -> None:
    """A bleed that is smaller than a pixel at this size; without a table there is none."""
    lost = [(0, 0, (0, 0, 0), 9.0, EPIDURAL), (1, 1, (1, 0, 0), 8.0, EPIDURAL)]
    healthy: Rows = [(2, 2, (0, 0, 0), 1.0, [])]
    assert scores(columns(lost + healthy))["auc.slices"] == 1
    blind = [(*row[:4], None) for row in lost + healthy]
    assert scores(columns(blind))["auc.slices"] == pytest.approx(1 / 2)


def test_seeds_are_ranked_apart_and_folds_together() -> None:
    first = columns([(0, 0, (1, 0, 0), 2.0, EPIDURAL), (1, 1, (0, 0, 0), 1.0, [])])
    second = columns([(2, 2, (1, 0, 0), 20.0, EPIDURAL), (3, 3, (0, 0, 0), 10.0, [])])
    assert scores(first, second, seeds=(0, 1))["auc.scans"] == 1
    assert scores(first, second, seeds=(0, 0))["auc.scans"] == pytest.approx(3 / 4)


def test_scans_of_several_runs() -> None:
    scans = merge_scans(Slices.from_columns((ONE, ONE), (0, 1)))
    assert len(scans.patients) == 8
    assert scans.areas.tolist() == [6.5, 6.5, 2.0, 2.0, 0.2, 0.2, 3.0, 3.0]
    assert scans.positive.tolist() == [True] * 4 + [False] * 4
    assert scans.counts[0].tolist() == [4, 3, 1]


def test_differences_are_of_the_scores() -> None:
    other = {**ONE, "tp": [4, 0, 0, 0, 0], "fn": [1, 0, 8, 0, 0], "area": [5.5, 1.0, 0.1, 0.2, 3.0]}
    one, two = (Slices.from_columns([run], [0]) for run in (ONE, other))
    found = compare(one, two)
    before, after = scores(other), scores(ONE)
    for name, difference in found.items():
        both = before[name], after[name]
        if None in both:
            assert difference["estimate"] is None
        else:
            assert difference["estimate"] == pytest.approx(after[name] - before[name])
    assert {"dice.pooled", "dice.volume", "auc.scans", "operating.scans"} < set(found)
    intervals = compute_intervals(one)
    assert set(intervals) == set(after)
    assert np.isnan(one.hd95).all()
