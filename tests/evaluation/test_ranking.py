"""ROC over resampled patients, against scikit-learn and against the rows written out."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from ichfast.evaluation.intervals import TOO_FEW, bootstrap, bootstrap_difference, estimate
from ichfast.evaluation.ranking import SENSITIVITY, Auc, Ranking, SpecificityAtSensitivity


def draw(seed: int, groups: int = 1, patients: int = 12, rows: int = 90) -> tuple[np.ndarray, ...]:
    """Rows of a few patients, with many ties."""
    random = np.random.default_rng(seed)
    positive = random.random(rows) < 0.4
    scores = random.integers(0, 6, rows) + 2 * positive
    return (
        random.integers(0, patients, rows), random.integers(0, groups, rows), positive,
        scores.astype(float),
    )  # fmt: skip


def specificity(positive: np.ndarray, scores: np.ndarray) -> float:
    false, true, _ = roc_curve(positive, scores, drop_intermediate=False)
    return 1 - false[np.argmax(true >= SENSITIVITY - 1e-12)]


@pytest.mark.parametrize("seed", range(5))
def test_one_group_is_scikit_learns(seed: int) -> None:
    patients, groups, positive, scores = draw(seed)
    rows = patients, groups, positive, scores
    assert estimate(Auc.from_rows(*rows)) == pytest.approx(roc_auc_score(positive, scores))
    found = estimate(SpecificityAtSensitivity.from_rows(*rows))
    assert found == pytest.approx(specificity(positive, scores))


@pytest.mark.parametrize("kind", [Auc, SpecificityAtSensitivity])
def test_a_resample_is_the_rows_of_the_patients_drawn(kind: type[Ranking]) -> None:
    rows = draw(7, groups=3)
    score = kind.from_rows(*rows)
    draws = np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), 20).astype(float)
    for counts, found in zip(draws, score.resample(draws), strict=True):
        repeated = np.repeat(np.arange(len(rows[0])), counts[rows[0]].astype(int))
        own = kind.from_rows(*(column[repeated] for column in rows))
        assert found == pytest.approx(estimate(own))


def test_groups_are_not_ranked_with_each_other() -> None:
    """Perfect in either, though all of the second score higher."""
    positive = np.array([0, 1, 0, 1])
    rows = np.arange(4), np.array([0, 0, 1, 1]), positive, np.array([1.0, 2.0, 3.0, 4.0])
    assert estimate(Auc.from_rows(*rows)) == 1
    assert estimate(SpecificityAtSensitivity.from_rows(*rows)) == 1
    together = Auc.from_rows(rows[0], np.zeros(4), *rows[2:])
    assert estimate(together) == pytest.approx(0.75)


def test_one_kind_of_rows_alone_has_no_score() -> None:
    for kind in (Auc, SpecificityAtSensitivity):
        score = kind.from_rows(np.arange(4), np.zeros(4), np.ones(4), np.arange(4.0))
        assert bootstrap(score) == (None, None, None, TOO_FEW)


def test_a_better_ranking_is_found() -> None:
    patients, groups, positive, scores = draw(3, patients=30, rows=300)
    better = Auc.from_rows(patients, groups, positive, scores + positive)
    worse = Auc.from_rows(patients, groups, positive, scores)
    found = bootstrap_difference(better, worse)
    assert found.low > 0
    assert found.p < 0.01
