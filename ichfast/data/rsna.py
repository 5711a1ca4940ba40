"""RSNA Intracranial Hemorrhage Detection 2019: stage_{1,2}_train.csv and a folder of ID_*.dcm."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ichfast.data.files import list_folder, open_table
from ichfast.data.problems import Problems
from ichfast.data.series import SUBTYPES, Series
from ichfast.data.stacks import read_stacks
from ichfast.errors import DataError

_BIT = {name: 1 << i for i, name in enumerate((*SUBTYPES, "any"))}
_SEEN = len(_BIT)  # the bits above the labels say which of them a row has given
_ANY = (1 << _SEEN) - 1


def read_rsna(
    root: Path,
    problems: Problems,
    *,
    positive: bool = False,
    limit: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Iterator[Series]:
    """The set's series with their labels. `positive` and `limit` (a seeded choice of so many
    images) are settled by the CSV and the file names, so that only the files wanted are opened.
    """
    files, labels = list_images(root, problems, positive=positive)
    if limit is not None and limit < len(files):
        chosen = np.random.default_rng(seed).choice(len(files), limit, replace=False)
        files = [files[i] for i in np.sort(chosen)]
    for series in read_stacks(root, problems, files, progress=progress):
        yield with_labels(series, labels)


def list_images(
    root: Path, problems: Problems, *, positive: bool
) -> tuple[list[Path], dict[str, int]]:
    """The image files, or those of them that the CSV says are positive, and all of its labels."""
    table, folder = locate(root)
    labels = read_labels(table, problems)
    files = [path for path in list_folder(folder) if path.suffix.lower() == ".dcm"]
    if not files:
        raise DataError(f"{folder}: no .dcm files")
    unlabelled = [path for path in files if path.stem not in labels]
    if unlabelled:
        problems.skip(table.name, f"{len(unlabelled)} images of the folder are not in it")
    missing = len(labels) - (len(files) - len(unlabelled))
    if missing:
        problems.skip(table.name, f"{missing} of its {len(labels)} images are not in {folder.name}")
    if positive:
        files = [path for path in files if labels.get(path.stem, 0) & _ANY]
        if not files:
            raise DataError(f"{table}: no image of {folder.name} is labelled positive")
    return files, labels


def with_labels(series: Series, labels: Mapping[str, int]) -> Series:
    """The series with the labels of its images, as `read_labels` has them by name."""
    bits = np.array([labels.get(Path(source).stem, 0) for source in series.sources])
    subtypes = (bits[:, None] >> np.arange(len(SUBTYPES)) & 1).astype(bool)
    return replace(series, subtypes=subtypes)


def locate(root: Path) -> tuple[Path, Path]:
    """The CSV and the folder of images that belongs to it; stage 2, the final one, first."""
    here = {path.name.lower(): path for path in list_folder(root)}
    for stage in ("stage_2_train", "stage_1_train"):
        table = here.get(f"{stage}.csv")
        if table is None:
            continue
        for name in (stage, f"{stage}_images"):
            if name in here and here[name].is_dir():
                return table, here[name]
        raise DataError(f"{table}: the folder {stage} with its images is missing beside it")
    raise DataError(f"{root}: stage_2_train.csv is missing")


def read_labels(table: Path, problems: Problems) -> dict[str, int]:
    """Image -> bits: the label of each type, and above them which of the types had a row at all.

    Four images of the published table occur twice. A positive row wins; rows that contradict each
    other are reported.
    """
    labels: dict[str, int] = {}
    contradictory: set[str] = set()
    malformed = 0
    with open_table(table) as file:
        if file.readline().strip().lower() != "id,label":
            raise DataError(f"{table}: the first line is not ID,Label")
        for line in file:
            name, _, label = line.strip().rpartition(",")
            image, _, kind = name.rpartition("_")
            bit = _BIT.get(kind)
            if bit is None or not image or label not in ("0", "1"):
                malformed += bool(line.strip())
                continue
            before = labels.get(image, 0)
            if before & bit << _SEEN and bool(before & bit) != (label == "1"):
                contradictory.add(image)
            labels[image] = before | bit << _SEEN | (bit if label == "1" else 0)
    if not labels:
        raise DataError(f"{table}: no line of the form ID_<image>_<type>,0 or 1")
    if malformed:
        problems.skip(table.name, f"{malformed} lines are not ID_<image>_<type>,0 or 1")
    for image in sorted(contradictory):
        problems.skip(image, "contradictory rows in the table; taken as positive")
    return labels
