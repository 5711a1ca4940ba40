"""From the cells' folders to the numbers of the page. Nothing here depends on when a cell was run,
so a table that was interrupted ends as one that was not, byte for byte."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ichfast
from ichfast.data import SCHEMES
from ichfast.errors import DataError
from ichfast.reproduce.checks import Findings
from ichfast.reproduce.plan import AMOUNT_SCHEME, AMOUNTS, SHARED, Cell, Plan, has_ended
from ichfast.reproduce.rows import BASELINE, METHOD
from ichfast.reproduce.scores import Slices, compare, compute_intervals
from ichfast.training.folder import LOG, METRICS, SLICES
from ichfast.training.recipe import to_toml
from ichfast.training.strategy import make_strategy

FORMAT = 1
POINTS = 60  # of a curve at most
AGAINST = (BASELINE, METHOD)


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
    by_row = _Table(plan, ended)
    schemes = sorted(SCHEMES)
    return {
        "format": FORMAT,
        "ichfast": ichfast.__version__,
        "preset": plan.preset,
        "phantom": not plan.base.data.labelled,
        "recipe": to_toml(plan.base),
        "shared": SHARED,
        "seeds": plan.seeds,
        "cells": {"planned": len(plan.cells), "ended": len(ended)},
        "patients": found.patients,
        "unlabelled_slices": found.unlabelled,
        "notes": found.notes,
        "baseline": BASELINE,
        "method": METHOD,
        "rows": [
            {
                "name": row.name,
                "label": row.label,
                "about": row.about,
                "paper": {str(scheme): row.paper.get(scheme) for scheme in schemes},
                "schemes": {str(s): by_row.summarise(row.name, s) for s in schemes},
                "differences": {
                    str(s): {other: by_row.compare(row.name, other, s) for other in AGAINST}
                    for s in schemes
                },
            }
            for row in plan.rows
        ],
        "unlabelled_curve": list(_make_unlabelled_curve(by_row, found.unlabelled)),
        "runs": [_describe_run(one) for one in ended],
    }


class _Table:
    """The cells that are over, by row, scheme and unlabelled amount."""

    def __init__(self, plan: Plan, ended: list[Ended]) -> None:
        self.plan, self.ended = plan, ended

    def select(self, row: str, scheme: int, unlabelled: int = 100) -> list[Ended]:
        chosen = (row, scheme, unlabelled)
        return [
            one
            for one in self.ended
            if (one.cell.row, one.cell.scheme, one.cell.unlabelled) == chosen
        ]

    def summarise(self, row: str, scheme: int, unlabelled: int = 100) -> dict[str, Any]:
        runs = self.select(row, scheme, unlabelled)
        tested = [one.columns for one in runs if one.columns]
        return {
            "planned": len(self.plan.select(row, scheme, unlabelled)),
            "ended": len(runs),
            "diverged": sum(one.diverged for one in runs),
            "tested": len(tested),
            "passes": [min(p), max(p)] if (p := [one.passes for one in runs]) else None,
            "scores": compute_intervals(Slices.from_columns(tested)) if tested else None,
        }

    def compare(
        self, row: str, other: str, scheme: int, unlabelled: int = 100
    ) -> dict[str, Any] | None:
        """``row`` less ``other`` where both have the same fold and seed; None where none has."""
        if row == other and unlabelled == 100:
            return None
        mine = {one.place: one.columns for one in self.select(row, scheme, unlabelled)}
        its = {one.place: one.columns for one in self.select(other, scheme)}
        pairs = [(a, b) for place, a in mine.items() if a and (b := its.get(place))]
        if not pairs:
            return None
        one, two = (Slices.from_columns(columns) for columns in zip(*pairs, strict=True))
        return {"pairs": len(pairs), "scores": compare(one, two)}


def _make_unlabelled_curve(table: _Table, pool: int) -> Iterator[dict[str, Any]]:
    none = {"difference": None} | table.summarise(BASELINE, AMOUNT_SCHEME)
    yield {"percent": 0, "slices": 0, "row": BASELINE} | none
    for percent in (*AMOUNTS, 100):
        entry = table.summarise(METHOD, AMOUNT_SCHEME, percent)
        difference = table.compare(METHOD, BASELINE, AMOUNT_SCHEME, percent)
        slices = round(pool * percent / 100)
        yield {
            "percent": percent,
            "slices": slices,
            "row": METHOD,
            "difference": difference,
        } | entry


def _describe_run(one: Ended) -> dict[str, Any]:
    cell, metrics = one.cell, one.metrics
    return {
        "path": cell.path,
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
    passes = 0
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
    return Ended(cell, metrics, curve[::-1][::step][::-1], passes, columns)


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
