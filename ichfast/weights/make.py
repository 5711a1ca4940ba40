"""Weights that ship, from a labelled set: a run on all its patients, and the card."""

import json
import subprocess
from pathlib import Path
from typing import Any

import ichfast
from ichfast.data import find_layout
from ichfast.errors import DataError
from ichfast.reproduce.studies import STUDIES
from ichfast.training import Recipe
from ichfast.training.parts import Parts
from ichfast.training.recipe import compare, merge, parse, to_toml
from ichfast.weights.card import Card, CrossValidation, Data, Score

CT_ICH = Data(
    name="CT-ICH",
    version="1.0.0",
    layout="ct-ich-jpeg",
    patients=82,
    slices=2501,
    licence="Creative Commons Attribution 4.0 International (CC BY 4.0)",
    attribution="Hssayeni, M. (2019). Computed Tomography Images for Intracranial Hemorrhage "
    "Detection and Segmentation, version 1.0.0. PhysioNet. doi:10.13026/w8q8-ky94. Hssayeni, M. "
    "D., et al. (2020). Intracranial Hemorrhage Segmentation Using a Deep Convolutional Model. "
    "Data 5(1):14. These weights were computed from its pictures and masks; none of them is in "
    "this file, and its authors endorse neither the weights nor their use.",
)
INTENDED_USE = (
    "Research on acute intracranial haemorrhage in axial slices of non-contrast head CT: a "
    "baseline to compare with, weights to train on from, outlines that a reader corrects."
)
NOT_FOR = (
    "Decisions about patients: diagnosis, triage, treatment, or ruling a haemorrhage out. It is "
    "not a medical device. It has seen 82 people with head injuries in one hospital in 2018, on "
    "slices of 5 mm in one window, of whom 36 bled; few had subarachnoid or intraventricular blood "
    "or a chronic collection, and nobody's scan showed surgery, a tumour or contrast agent as far "
    "as is recorded. Expect it to fail elsewhere, and to see blood in healthy heads."
)
LONGER: dict[str, Any] = {"training.epochs": 100}
"""four times the study's updates, as docs/explanation/study.md ("A stronger baseline?") decided
before the folds on the card were run"""
EVERYBODY: dict[str, Any] = {"data.train": 1.0, "data.validation": 0.0, "data.test": 0.0}
"""no patient is kept for validation or test"""
WHOSE = {
    f"data.{name}"
    for name in (
        "labelled",
        "unlabelled",
        "unlabelled_slices",
        "unlabelled_limit",
        "scheme",
        "fold",
        "split_by",
        "split_seed",
        "labelled_share",
        "train",
        "validation",
        "test",
        "test_slices",
    )
} | {"training.seed", "training.checkpoint_every", "training.validate_every"}
"""keys that say who is trained on, or change nothing that is learned"""


def make_recipe() -> Recipe:
    """The study's baseline on all patients, trained for longer."""
    return merge(STUDIES["ct-ich"].recipe, LONGER | EVERYBODY)


def check_data(parts: Parts, root: Path, data: Data) -> None:
    """Raise unless the slices trained on are all of ``data``: the card will say so."""
    found = find_layout(root).name, len(set(parts.train.patients)), len(parts.train)
    wanted = data.layout, data.patients, data.slices
    if found != wanted:
        raise DataError(
            f"{root} is not {data.name} {data.version}: {describe(*found)}, where there should be "
            f"{describe(*wanted)}."
        )


def describe(layout: str, patients: int, slices: int) -> str:
    return f"{slices} slices of {patients} patients in the layout {layout}"


def make_card(
    name: str,
    data: Data,
    recipe: Recipe,
    fingerprint: str,
    cross_validation: CrossValidation | None,
) -> Card:
    """Of weights that ``recipe`` has trained on the whole of ``data``."""
    return Card(
        name=name,
        data=data,
        fingerprint=fingerprint,
        recipe=to_toml(merge(recipe, {"data.labelled": "", "data.unlabelled": ""})),
        ichfast=ichfast.__version__,
        commit=find_commit(),
        size=recipe.data.size,
        window=recipe.data.window,
        threshold=recipe.evaluation.threshold,
        cross_validation=cross_validation,
        intended_use=INTENDED_USE,
        not_for=NOT_FOR,
    )


def read_cross_validation(path: Path, recipe: Recipe) -> CrossValidation:
    """The scores of the baseline's five folds in the JSON of a Table 1, beside ``recipe``."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        study = STUDIES[table["preset"]]
        base = parse(table["recipe"], Recipe())
        (overrides,) = [one.overrides for one in study.rows if one.name == table["baseline"]]
        own = merge(base, overrides(base))
        (protocol,) = [one for one in table["protocols"] if one["name"] == "paper"]
        (row,) = [one for one in protocol["rows"] if one["name"] == table["baseline"]]
        column = row["schemes"]["80"]
        scores = {
            score: Score(**{key: value[key] for key in Score.model_fields})
            for score, value in column["scores"].items()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not the JSON of a Table 1 whose row of the baseline has its folds of 80 % "
            f"({error!r}); give the one that python -m ichfast.reproduce table1 has written."
        ) from error
    return CrossValidation(
        about=f"row {row['name']} of Table 1 (preset {table['preset']}): five folds by patient, "
        f"{column['tested']} of {column['planned']} runs",
        differences=tuple(str(one) for one in compare(own, recipe) if one.key not in WHOSE),
        scores=scores,
    )


def find_commit() -> str | None:
    """Of the checkout that this code is in."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        folder = Path(__file__).parent
        return subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + "+" * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return None
