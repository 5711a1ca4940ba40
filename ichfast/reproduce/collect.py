"""From the cells' folders to the numbers of the page. Nothing here depends on when a cell was run,
so a table that was interrupted ends as one that was not, byte for byte. Of a folder it needs
recipe.toml, metrics.json, log.jsonl and slices.json."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ichfast
from ichfast.errors import DataError
from ichfast.evaluation.intervals import adjust_holm
from ichfast.reproduce.checks import Findings
from ichfast.reproduce.floor import measure_floor
from ichfast.reproduce.plan import Cell, Plan, has_ended
from ichfast.reproduce.scores import Slices, compare, compute_intervals
from ichfast.reproduce.studies import AMOUNT_COLUMN, BASELINE, PROTOCOLS, SHARED, Column
from ichfast.reproduce.table import Curve, Ended, Runs, Table
from ichfast.training.folder import LOG, METRICS, SLICES
from ichfast.training.parts import Load
from ichfast.training.recipe import Recipe, merge, to_toml
from ichfast.training.strategy import make_strategy

FORMAT = 2
POINTS = 60  # of a curve at most


def collect(plan: Plan, out: Path, found: Findings, load: Load) -> dict[str, Any]:
    """Everything that the page shows but its pictures, ready for JSON."""
    ended = [_read_ended(cell, out) for cell in plan.cells if has_ended(cell, out)]
    table, study = Table(plan, ended), plan.study
    return {
        "format": FORMAT,
        "ichfast": ichfast.__version__,
        "preset": study.name,
        "phantom": not plan.base.data.labelled,
        "recipe": to_toml(_hide_folders(plan.base)),
        "credit": study.credit,
        "shared": SHARED,
        "validated": plan.base.data.validation > 0,
        "seeds": plan.seeds,
        "cells": {"planned": len(plan.cells), "ended": len(ended)},
        "patients": found.patients,
        "unlabelled_slices": found.unlabelled,
        "notes": found.notes,
        "baseline": BASELINE,
        "method": study.method,
        "primary": study.primary and table.judge(study.primary),
        "secondary": _judge_family(table),
        "protocols": [
            _summarise_protocol(name, table, out, load)
            for name in dict.fromkeys(column.protocol for column in study.list_columns())
        ],
        "unlabelled_curve": list(_make_unlabelled_curve(table, found.unlabelled)),
        "runs": [_describe_run(one) for one in ended],
    }


def _hide_folders(recipe: Recipe) -> Recipe:
    """With the names of the data's folders alone: where they lie is nobody's business."""
    folders = {"data.labelled": recipe.data.labelled, "data.unlabelled": recipe.data.unlabelled}
    return merge(recipe, {key: Path(path).name for key, path in folders.items()})


def _judge_family(table: Table) -> list[dict[str, Any]]:
    """The secondary comparisons with Holm's p-values. The family is as large as it was planned, so
    that a study that was stopped early is not the bolder for it."""
    found = [table.judge(comparison) for comparison in table.plan.study.secondary]
    known = [one for one in found if one["difference"] and one["difference"]["p"] is not None]
    for one, p in zip(
        known, adjust_holm([one["difference"]["p"] for one in known], len(found)), strict=True
    ):
        one["holm"] = p
    return found


def _summarise_protocol(name: str, table: Table, out: Path, load: Load) -> dict[str, Any]:
    protocol, study = PROTOCOLS[name], table.plan.study
    columns = [column for column in study.list_columns() if column.protocol == name]
    planned = {cell.row for cell in table.plan.cells if cell.protocol == name}
    against = tuple(dict.fromkeys((BASELINE, study.method)))
    rows = [
        {
            "name": row.name,
            "label": row.label,
            "about": row.about,
            "paper": {str(c.scheme): row.paper.get(c.scheme) for c in columns},
            "schemes": {str(c.scheme): table.summarise(Runs(row.name, c)) for c in columns},
            "differences": {
                str(c.scheme): {
                    other: table.compare(Runs(row.name, c), Runs(other, c)) for other in against
                }
                for c in columns
            },
        }
        for row in study.rows
        if row.name in planned
    ]
    if name == "own" and study.oracle:
        rows.append(_describe_oracle(columns, table, study.oracle))
    rows.append(_describe_floor(columns, table, out, load))
    return {
        "name": name,
        "label": protocol.label,
        "about": protocol.about,
        "printed": protocol.printed,
        "schemes": [str(column.scheme) for column in columns],
        "rows": rows,
    }


def _describe_oracle(columns: list[Column], table: Table, oracle: Column) -> dict[str, Any]:
    """The baseline with the labels of all of a fold's training patients: the same runs whatever the
    share of labels in a column, which says how much there is to gain."""
    runs = Runs(BASELINE, oracle)
    return {
        "name": "oracle",
        "label": "Supervised, all labels",
        "about": "what the labels that are withheld are worth: the headroom of every other row",
        "paper": {str(c.scheme): None for c in columns},
        "schemes": {str(c.scheme): table.summarise(runs) for c in columns},
        "differences": {
            str(c.scheme): {BASELINE: table.compare(runs, Runs(BASELINE, c))} for c in columns
        },
    }


def _describe_floor(columns: list[Column], table: Table, out: Path, load: Load) -> dict[str, Any]:
    """The best band of HU; of the folds that the baseline was tested on, for the difference."""
    row: dict[str, Any] = {
        "name": "floor",
        "label": "Best HU band",
        "about": "no training: blood is what lies between the two HU that are best on the labelled "
        "training slices",
        "paper": {str(c.scheme): None for c in columns},
        "schemes": {},
        "differences": {},
    }
    for column in columns:
        cells = table.plan.select(BASELINE, column.scheme, protocol=column.protocol)
        folds = {cell.fold: cell for cell in reversed(cells)}
        runs = table.select(Runs(BASELINE, column))
        tested = {one.cell.fold for one in runs if one.columns} or set(folds)
        found = [measure_floor(folds[fold], out, load) for fold in sorted(tested)]
        floor = Slices.from_columns(found, [0] * len(found))
        row["schemes"][str(column.scheme)] = {
            "planned": len(folds),
            "ended": len(found),
            "diverged": 0,
            "tested": len(found),
            "passes": None,
            "scores": compute_intervals(floor),
        }
        twin = table.join(runs)
        row["differences"][str(column.scheme)] = {
            BASELINE: twin and {"pairs": len(found), "scores": compare(floor, twin)}
        }
    return row


def _make_unlabelled_curve(table: Table, pool: int) -> Iterator[dict[str, Any]]:
    """Nothing where the study has no amounts but all."""
    study = table.plan.study
    if not study.amounts:
        return
    twin = Runs(BASELINE, AMOUNT_COLUMN)
    none = {"difference": None} | table.summarise(twin)
    yield {"percent": 0, "slices": 0, "row": BASELINE} | none
    for percent in (*study.amounts, 100):
        runs = Runs(study.method, AMOUNT_COLUMN, percent)
        yield {
            "percent": percent,
            "slices": round(pool * percent / 100),
            "row": study.method,
            "difference": table.compare(runs, twin),
        } | table.summarise(runs)


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
        "precision": metrics.get("precision"),
        "passes": one.passes,
        "dice": None if metrics["test"] is None else metrics["test"]["dice"]["pooled"],
        "curve": one.curves["dice"],
        "losses": one.curves["loss"],
    }


def _read_ended(cell: Cell, out: Path) -> Ended:
    folder = out / cell.path
    metrics = read_json(folder / METRICS)
    dice: Curve = []
    losses: Curve = []
    passes = 0.0
    steps = make_strategy(cell.recipe).steps
    # A run that diverges in its first epoch has no log.
    for line in _read_text(folder / LOG).splitlines() if (folder / LOG).exists() else ():
        record = json.loads(line)
        if steps[record["step"]].over == "labelled":
            passes += record["evaluations"]
            own = record.get("parts", {}).get("supervised", record["loss"])
            losses.append((passes, own))
        if record["validation"]:
            dice.append((passes, record["validation"]["dice"]))
    columns = None if metrics["test"] is None else read_json(folder / SLICES)
    curves = {"dice": _thin(dice), "loss": _thin(losses)}
    return Ended(cell, metrics, curves, round(passes), columns)


def _thin(curve: Curve) -> Curve:
    """POINTS of it at most, the last among them."""
    step = -(-len(curve) // POINTS) or 1
    return curve[::-1][::step][::-1]


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
