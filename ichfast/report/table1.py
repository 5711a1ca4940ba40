"""The page of the table: ours beside the paper's, with how far each number can be trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from ichfast.files import write_whole
from ichfast.report.figures import encode_picture, trace_outline
from ichfast.report.page import format_score
from ichfast.report.page_template import load_template
from ichfast.report.table1_figures import (
    draw_label_curve,
    draw_training_curves,
    draw_unlabelled_curve,
)
from ichfast.report.table1_words import format_difference, format_interval, format_probability

PAGE = "table1.html"
DETECTION = {
    "sensitivity.slices": "slices found",
    "specificity.slices": "left alone",
    "auc.slices": "AUC, slices",
    "sensitivity.scans": "scans found",
    "specificity.scans": "left alone",
    "auc.scans": "AUC, scans",
    "operating.scans": "left alone at 0.9",
}
"""scores and their columns"""


class TablePictures(Protocol):
    """The same slices through several rows' models, as `ichfast.reproduce.examples` has them."""

    @property
    def protocol(self) -> str: ...
    @property
    def scheme(self) -> int: ...
    @property
    def fold(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def images(self) -> NDArray[Any]: ...
    @property
    def targets(self) -> NDArray[Any]: ...
    @property
    def predictions(self) -> Mapping[str, NDArray[Any]]: ...
    @property
    def dice(self) -> Mapping[str, Sequence[float]]: ...
    @property
    def threshold(self) -> float: ...


@dataclass(frozen=True)
class TableExample:
    """One slice under one row's outline."""

    dice: str
    size: int
    image: str
    target: str
    prediction: str


def write_table(result: dict[str, Any], pictures: TablePictures | None, folder: Path) -> Path:
    path = folder / PAGE
    fix = "Make room or allow writing there, then give the same command again."
    write_whole(path, render(result, pictures).encode(), lasting=False, fix=fix)
    return path


def render(result: dict[str, Any], pictures: TablePictures | None) -> str:
    rows = {row["name"]: row for protocol in result["protocols"] for row in protocol["rows"]}
    page = load_template(
        "table1.html",
        score=format_score,
        interval=format_interval,
        difference=format_difference,
        verdict=judge,
        probability=format_probability,
        tested=find_tested,
        score_names=name_scores,
        label_curve=draw_label_curve,
    )
    return page.render(
        result=result,
        labels={name: row["label"] for name, row in rows.items()},
        abouts={name: row["about"] for name, row in rows.items()},
        detection=DETECTION,
        amounts=draw_unlabelled_curve(result),
        curves=draw_training_curves(result),
        diverged=[run for run in result["runs"] if run["status"] == "diverged"],
        examples=_make_examples(pictures) if pictures else {},
        pictures=pictures,
    )


def find_tested(protocol: Mapping[str, Any]) -> list[str]:
    """The schemes that some trained row has scores of."""
    trained = [row for row in protocol["rows"] if row["name"] != "floor"]
    return [
        scheme
        for scheme in protocol["schemes"]
        if any(row["schemes"][scheme]["scores"] for row in trained)
    ]


def name_scores(protocol: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Name -> label and unit of every score that some row has a number for."""
    found: dict[str, dict[str, str]] = {}
    for row in protocol["rows"]:
        for entry in row["schemes"].values():
            for name, one in (entry["scores"] or {}).items():
                if one["estimate"] is not None:
                    found[name] = {"label": one["label"], "unit": one["unit"]}
    return found


def judge(value: Mapping[str, Any]) -> str:
    """The CSS class of a difference whose interval excludes zero."""
    if value["low"] is None or value["low"] <= 0 <= value["high"]:
        return ""
    return "apart"


def _make_examples(pictures: TablePictures) -> dict[str, list[TableExample]]:
    return {
        row: [
            TableExample(
                format_score(pictures.dice[row][i]),
                pictures.images.shape[-1],
                encode_picture(pictures.images[i]),
                trace_outline(pictures.targets[i], 0.5),
                trace_outline(masks[i], pictures.threshold),
            )
            for i in range(len(masks))
        ]
        for row, masks in pictures.predictions.items()
    }
