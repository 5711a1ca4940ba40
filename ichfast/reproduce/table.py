"""The cells that are over, chosen and compared."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from ichfast.reproduce.plan import Cell, Plan
from ichfast.reproduce.scores import Slices, compare, compute_intervals
from ichfast.reproduce.studies import PROTOCOLS, Column, Comparison

Curve = list[tuple[float, float | None]]


@dataclass(frozen=True)
class Ended:
    """A cell that is over, from its folder."""

    cell: Cell
    metrics: dict[str, Any]
    curves: dict[str, Curve]
    """passes over the labelled slices so far, and the validation Dice or the loss on these"""
    passes: int
    columns: dict[str, Any] | None
    """its slices.json; None where it diverged before any validation"""

    @property
    def place(self) -> tuple[int, int]:
        return self.cell.fold, self.cell.seed

    @property
    def diverged(self) -> bool:
        return bool(self.metrics["status"] == "diverged")


class Runs(NamedTuple):
    """Those of a row in a column, all folds and seeds."""

    row: str
    column: Column
    unlabelled: int = 100


class Table:
    def __init__(self, plan: Plan, ended: list[Ended]) -> None:
        self.plan, self.ended = plan, ended

    def select(self, runs: Runs) -> list[Ended]:
        return [
            one
            for one in self.ended
            if (one.cell.row, one.cell.column, one.cell.unlabelled) == runs
        ]

    def join(self, ended: list[Ended]) -> Slices | None:
        """The slices of those that were tested; None where none was."""
        tested = [(one.columns, one.cell.seed) for one in ended if one.columns]
        return Slices.from_columns(*zip(*tested, strict=True)) if tested else None

    def summarise(self, runs: Runs) -> dict[str, Any]:
        ended = self.select(runs)
        slices = self.join(ended)
        row, column, unlabelled = runs
        planned = self.plan.select(row, column.scheme, unlabelled, column.protocol)
        return {
            "planned": len(planned),
            "ended": len(ended),
            "diverged": sum(one.diverged for one in ended),
            "tested": sum(one.columns is not None for one in ended),
            "passes": [min(p), max(p)] if (p := [one.passes for one in ended]) else None,
            "scores": slices and compute_intervals(slices),
        }

    def pair(self, one: Runs, other: Runs) -> list[tuple[Ended, Ended]]:
        """Those of the same fold and seed that were tested."""
        its = {each.place: each for each in self.select(other) if each.columns}
        return [
            (each, its[each.place])
            for each in self.select(one)
            if each.columns and each.place in its
        ]

    def compare(self, one: Runs, other: Runs) -> dict[str, Any] | None:
        """``one`` less ``other`` where both have the same fold and seed; None where none has."""
        pairs = [] if one == other else self.pair(one, other)
        scores = self._subtract(pairs)
        return {"pairs": len(pairs), "scores": scores} if scores else None

    def judge(self, comparison: Comparison) -> dict[str, Any]:
        """A comparison as it was planned: its seeds alone, and how many of its pairs there are."""
        column, seeds = comparison.column, comparison.seeds
        first = self.plan.base.training.seed
        pairs = [
            pair
            for pair in self.pair(Runs(comparison.row, column), Runs(comparison.other, column))
            if pair[0].cell.seed < first + seeds
        ]
        folds = PROTOCOLS[column.protocol].count_folds(column.scheme)

        def subtract(chosen: list[tuple[Ended, Ended]]) -> dict[str, Any] | None:
            scores = self._subtract(chosen)
            return scores[comparison.score] if scores else None

        def split(key: str, values: range) -> list[float | None]:
            """The difference where this key of a cell has each value."""
            parts = ([p for p in pairs if getattr(p[0].cell, key) == value] for value in values)
            return [found["estimate"] if (found := subtract(part)) else None for part in parts]

        return {
            "row": comparison.row,
            "other": comparison.other,
            "protocol": column.protocol,
            "scheme": column.scheme,
            "score": comparison.score,
            "seeds": seeds,
            "planned": seeds * folds,
            "pairs": len(pairs),
            "by_seed": split("seed", range(first, first + seeds)),
            "by_fold": split("fold", range(folds)),
            "difference": subtract(pairs),
            "holm": None,
        }

    def _subtract(self, pairs: list[tuple[Ended, Ended]]) -> dict[str, dict[str, Any]] | None:
        ones, others = (self.join([pair[i] for pair in pairs]) for i in range(2))
        return compare(ones, others) if ones and others else None
