"""How well a graded score tells rows with blood from rows without: ROC, from resampled patients.

Rows of one group, a seed's, are ranked with each other, whatever fold they come from, as one
threshold would have to serve them all; groups are averaged.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ichfast.evaluation.intervals import Floats, divide

SENSITIVITY = 0.9


@dataclass(frozen=True, eq=False)
class Ranking:
    """N rows, each of a patient and a group, with and without blood."""

    owners: NDArray[np.int64]  # (N,) places in ``patients``
    groups: NDArray[np.int64]  # (N,)
    positive: NDArray[np.bool_]  # (N,)
    scores: Floats  # (N,)
    patients: NDArray[np.int64]  # (P,) each once, in order

    @classmethod
    def from_rows(
        cls, patients: ArrayLike, groups: ArrayLike, positive: ArrayLike, scores: ArrayLike
    ) -> Self:
        """From (N,) numbers of the patients and groups, truths, and scores that are finite."""
        names, owners = np.unique(np.asarray(patients, np.int64), return_inverse=True)
        return cls(
            owners,
            np.asarray(groups, np.int64),
            np.asarray(positive, bool),
            np.asarray(scores, np.float64),
            names,
        )

    @property
    def known(self) -> NDArray[np.bool_]:
        """Nobody where no group has both kinds of rows."""
        both = any(self.positive[own].any() and not self.positive[own].all() for own in self._own)
        return np.full(len(self.patients), both)

    @cached_property
    def _own(self) -> list[NDArray[np.int64]]:
        """The rows of each group."""
        return [np.flatnonzero(self.groups == group) for group in np.unique(self.groups)]

    def _count(self, rows: NDArray[np.int64]) -> Floats:
        """(P,) rows of each patient."""
        return np.bincount(self.owners[rows], minlength=len(self.patients)).astype(np.float64)


class Auc(Ranking):
    """The share of pairs of rows with and without blood in which the former has the higher score;
    equal ones count half (Hanley and McNeil, Radiology 143:29, 1982). Over groups the mean, by
    their pairs."""

    def resample(self, draws: Floats) -> Floats:
        above, below = np.zeros((2, len(draws)))
        for own in self._own:
            with_blood, without = own[self.positive[own]], own[~self.positive[own]]
            above += ((draws @ self._count_wins(with_blood, without)) * draws).sum(1)
            below += (draws @ self._count(with_blood)) * (draws @ self._count(without))
        return divide(above, below)

    def _count_wins(self, with_blood: NDArray[np.int64], without: NDArray[np.int64]) -> Floats:
        """(P, P): pairs of a row of one patient, with blood, and one of another, without, that are
        in order; equal ones a half."""
        wins = np.zeros((len(self.patients), len(self.patients)))
        for other in np.unique(self.owners[without]):
            lower = np.sort(self.scores[without[self.owners[without] == other]])
            own = self.scores[with_blood]
            beaten = np.searchsorted(lower, own, "left") + np.searchsorted(lower, own, "right")
            wins[:, other] = np.bincount(self.owners[with_blood], beaten / 2, len(wins))
        return wins


class SpecificityAtSensitivity(Ranking):
    """The share of the rows without blood below the highest threshold that finds at least
    SENSITIVITY of those with blood: an operating point of the ROC, chosen on the rows themselves
    and anew in every resample. Over groups the mean."""

    def resample(self, draws: Floats) -> Floats:
        above, below = np.zeros((2, len(draws)))
        for own in self._own:
            order = own[np.argsort(-self.scores[own], kind="stable")]
            # Thresholds lie between different scores: after the last of each run of equal ones.
            ends = np.flatnonzero(np.diff(self.scores[order], append=-np.inf))
            weights = draws[:, self.owners[order]]
            found, alarms = (
                (weights * kind).cumsum(1)[:, ends]
                for kind in (self.positive[order], ~self.positive[order])
            )
            enough = found >= SENSITIVITY * found[:, -1:] - 1e-9
            wrong = np.take_along_axis(alarms, enough.argmax(1)[:, None], 1)[:, 0]
            both = (found[:, -1] > 0) & (alarms[:, -1] > 0)
            above += np.where(both, 1 - wrong / np.maximum(alarms[:, -1], 1), 0)
            below += both
        return divide(above, below)
