"""From the cells' folders to the numbers of the page. Nothing here depends on when a cell was run,
so a table that was interrupted ends as one that was not, byte for byte."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ichfast
from ichfast.errors import DataError
from ichfast.reproduce.checks import Findings
from ichfast.reproduce.plan import Cell, Plan, has_ended
from ichfast.reproduce.scores import Slices, compare, compute_intervals
from ichfast.reproduce.studies import AMOUNT_COLUMN, BASELINE, PROTOCOLS, SHARED, Column
from ichfast.training.folder import LOG, METRICS, SLICES
from ichfast.training.recipe import to_toml
from ichfast.training.strategy import make_strategy

FORMAT = 2
POINTS = 60  # of a curve at most


@dataclass(frozen=True)
class Ended:
    """A cell that is over, from its folder."""

    cell: Cell
    metrics: dict[str, Any]
    curve: list[tuple[float, float | None]]
    """passes over the labelled slices so far, and validation Dice"""
    passes: int
    columns: dict[str, Any] | None
    """its slices.json; None where it diverged before any validation"""

    @property
    def place(self) -> tuple[int, int]:
        return self.cell.fold, self.cell.seed

    @property
    def diverged(self) -> bool:
        return bool(self.metrics["status"] == "diverged")


def collect(plan: Plan, out: Path, found: Findings) -> dict[str, Any]:
    """Everything that the page shows but its pictures, ready for JSON."""
    ended = [_read_ended(cell, out) for cell in plan.cells if has_ended(cell, out)]
    table, study = _Table(plan, ended), plan.study
    return {
        "format": FORMAT,
        "ichfast": ichfast.__version__,
        "preset": study.name,
        "phantom": not plan.base.data.labelled,
        "recipe": to_toml(plan.base),
        "shared": SHARED,
        "seeds": plan.seeds,
        "cells": {"planned": len(plan.cells), "ended": len(ended)},
        "patients": found.patients,
        "unlabelled_slices": found.unlabelled,
        "notes": found.notes,
        "baseline": BASELINE,
        "method": study.method,
        "protocols": [
            _summarise_protocol(name, table)
            for name in dict.fromkeys(column.protocol for column in study.list_columns())
        ],
        "unlabelled_curve": list(_make_unlabelled_curve(table, found.unlabelled)),
        "runs": [_describe_run(one) for one in ended],
    }


class _Table:
    """The cells that are over, by row, column and unlabelled amount."""

    def __init__(self, plan: Plan, ended: list[Ended]) -> None:
        self.plan, self.ended = plan, ended

    def select(self, row: str, column: Column, unlabelled: int = 100) -> list[Ended]:
        chosen = (row, column, unlabelled)
        return [
            one
            for one in self.ended
            if (one.cell.row, one.cell.column, one.cell.unlabelled) == chosen
        ]

    def summarise(self, row: str, column: Column, unlabelled: int = 100) -> dict[str, Any]:
        runs = self.select(row, column, unlabelled)
        tested = [one.columns for one in runs if one.columns]
        planned = self.plan.select(row, column.scheme, unlabelled, column.protocol)
        return {
            "planned": len(planned),
            "ended": len(runs),
            "diverged": sum(one.diverged for one in runs),
            "tested": len(tested),
            "passes": [min(p), max(p)] if (p := [one.passes for one in runs]) else None,
            "scores": compute_intervals(Slices.from_columns(tested)) if tested else None,
        }

    def compare(
        self, row: str, other: str, column: Column, unlabelled: int = 100
    ) -> dict[str, Any] | None:
        """``row`` less ``other`` where both have the same fold and seed; None where none has."""
        if row == other and unlabelled == 100:
            return None
        mine = {one.place: one.columns for one in self.select(row, column, unlabelled)}
        its = {one.place: one.columns for one in self.select(other, column)}
        pairs = [(a, b) for place, a in mine.items() if a and (b := its.get(place))]
        if not pairs:
            return None
        one, two = (Slices.from_columns(columns) for columns in zip(*pairs, strict=True))
        return {"pairs": len(pairs), "scores": compare(one, two)}


def _summarise_protocol(name: str, table: _Table) -> dict[str, Any]:
    protocol, study = PROTOCOLS[name], table.plan.study
    columns = [column for column in study.list_columns() if column.protocol == name]
    planned = {cell.row for cell in table.plan.cells if cell.protocol == name}
    return {
        "name": name,
        "label": protocol.label,
        "about": protocol.about,
        "printed": protocol.printed,
        "schemes": [str(column.scheme) for column in columns],
        "rows": [
            {
                "name": row.name,
                "label": row.label,
                "about": row.about,
                "paper": {str(c.scheme): row.paper.get(c.scheme) for c in columns},
                "schemes": {str(c.scheme): table.summarise(row.name, c) for c in columns},
                "differences": {
                    str(c.scheme): {
                        other: table.compare(row.name, other, c)
                        for other in dict.fromkeys((BASELINE, study.method))
                    }
                    for c in columns
                },
            }
            for row in study.rows
            if row.name in planned
        ],
    }


def _make_unlabelled_curve(table: _Table, pool: int) -> Iterator[dict[str, Any]]:
    """Nothing where the study has no amounts but all."""
    study = table.plan.study
    if not study.amounts:
        return
    none = {"difference": None} | table.summarise(BASELINE, AMOUNT_COLUMN)
    yield {"percent": 0, "slices": 0, "row": BASELINE} | none
    for percent in (*study.amounts, 100):
        entry = table.summarise(study.method, AMOUNT_COLUMN, percent)
        difference = table.compare(study.method, BASELINE, AMOUNT_COLUMN, percent)
        slices = round(pool * percent / 100)
        yield {
            "percent": percent,
            "slices": slices,
            "row": study.method,
            "difference": difference,
        } | entry


def _describe_run(one: Ended) -> dict[str, Any]:
    cell, metrics = one.cell, one.metrics
    return {
        "path": cell.path,
        "protocol": cell.protocol,
        "scheme": cell.scheme,
        "fold": cell.fold,
        "row": cell.row,
        "seed": cell.seed,
        "unlabelled": cell.unlabelled,
        "status": metrics["status"],
        "reason": metrics["reason"],
        "epochs": metrics["epochs"],
        "best_epoch": metrics["best_epoch"],
        "steps": metrics["steps"],
        "passes": one.passes,
        "dice": None if metrics["test"] is None else metrics["test"]["dice"]["pooled"],
        "curve": one.curve,
    }


def _read_ended(cell: Cell, out: Path) -> Ended:
    folder = out / cell.path
    metrics = read_json(folder / METRICS)
    curve: list[tuple[float, float | None]] = []
    passes = 0.0
    steps = make_strategy(cell.recipe).steps
    # A run that diverges in its first epoch has no log.
    for line in _read_text(folder / LOG).splitlines() if (folder / LOG).exists() else ():
        record = json.loads(line)
        if steps[record["step"]].over == "labelled":
            passes += record["evaluations"]
        if record["validation"]:
            curve.append((passes, record["validation"]["dice"]))
    step = -(-len(curve) // POINTS) or 1
    columns = None if metrics["test"] is None else read_json(folder / SLICES)
    return Ended(cell, metrics, curve[::-1][::step][::-1], round(passes), columns)


def read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(_read_text(path))
    except ValueError as error:
        raise DataError(
            f"{path} is not valid JSON ({error}). Delete its folder, and give the same command "
            "again to run it anew."
        ) from error
    return content


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}). Delete its folder, and give the same command again "
            "to run it anew."
        ) from error
