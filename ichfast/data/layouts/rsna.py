"""RSNA Intracranial Hemorrhage Detection 2019: stage_{1,2}_train.csv and a folder of ID_*.dcm."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ichfast.data.layouts.base import Layout, Map, Selection, Unit
from ichfast.data.layouts.dicom_folder import list_series
from ichfast.data.listing import list_by_name, list_folder, name_source
from ichfast.data.problems import Problems
from ichfast.data.sampling import choose
from ichfast.data.series import SUBTYPES, Series
from ichfast.data.texts import open_text, parse_whole
from ichfast.errors import DataError

_BIT = {name: 1 << i for i, name in enumerate((*SUBTYPES, "any"))}
_SEEN = len(_BIT)  # the bits above the labels tell which of them had a row
_ANY = (1 << _SEEN) - 1


class Rsna(Layout):
    name = "rsna"
    signs = "stage_2_train.csv (RSNA)"
    has_masks = False
    has_labels = True
    selects = True

    def detect(self, root: Path, entries: Mapping[str, Path]) -> bool:
        return bool(entries.keys() & {"stage_1_train.csv", "stage_2_train.csv"})

    def _read(
        self, root: Path, problems: Problems, selection: Selection, progress: bool
    ) -> Iterator[Series]:
        from ichfast.data.stacks import read_stacks  # pydicom is loaded only where it is needed

        files, labels = _list_images(root, problems, selection.positive)
        limit = selection.limit
        if limit is not None and limit < len(files):
            random = np.random.default_rng(selection.seed)
            files = [files[i] for i in np.sort(random.choice(len(files), limit, replace=False))]
        for series in read_stacks(root, problems, files, progress=progress):
            yield _attach_labels(series, labels)

    def list_units(
        self, root: Path, problems: Problems, run: Map, selection: Selection
    ) -> list[Unit]:
        images, labels = _list_images(root, problems, selection.positive)
        files = [name_source(path, root) for path in images]
        # Before their headers are read, since the published set has three quarters of a million.
        files = choose(files, selection.limit, selection.seed)
        problems.expect(len(files))
        units = list_series(root, files, problems, run, selection)
        return [
            replace(unit, labels=tuple(labels.get(Path(name).stem, 0) for name in unit.files))
            for unit in units
        ]

    def read_unit(
        self, root: Path, unit: Unit, problems: Problems, *, with_masks: bool = True
    ) -> Iterator[Series]:
        from ichfast.data.stacks import read_stacks

        stems = (Path(name).stem for name in unit.files)
        labels = dict(zip(stems, unit.labels, strict=True))
        for series in read_stacks(root, problems, [root / name for name in unit.files]):
            yield _attach_labels(series, labels)


def _list_images(
    root: Path, problems: Problems, positive: bool
) -> tuple[list[Path], dict[str, int]]:
    """The image files, or the positive ones by the CSV, and all of its labels."""
    table, folder = _find_images(root)
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


def _attach_labels(series: Series, labels: Mapping[str, int]) -> Series:
    """The series with the labels of its images, as `read_labels` has them by name."""
    bits = np.array([labels.get(Path(source).stem, 0) for source in series.sources])
    subtypes = (bits[:, None] >> np.arange(len(SUBTYPES)) & 1).astype(bool)
    return replace(series, subtypes=subtypes, subtypes_known=bits >> _SEEN != 0)


def _find_images(root: Path) -> tuple[Path, Path]:
    """The CSV and the folder with its images; stage 2, the final one, first."""
    entries = list_by_name(root)
    for stage in ("stage_2_train", "stage_1_train"):
        table = entries.get(f"{stage}.csv")
        if table is None:
            continue
        for name in (stage, f"{stage}_images"):
            if name in entries and entries[name].is_dir():
                return table, entries[name]
        raise DataError(f"{table}: the folder {stage} with its images is missing beside it")
    raise DataError(f"{root}: stage_2_train.csv is missing")


def _read_oddly(line: str) -> tuple[str, int | None, str]:
    """Image, type and label of a line with quotes, or with numbers as 1.0."""
    name, _, label = line.replace('"', "").strip().rpartition(",")
    image, _, kind = name.rpartition("_")
    try:
        return image, _BIT.get(kind), str(parse_whole(label))
    except ValueError:
        return "", None, ""


def read_labels(table: Path, problems: Problems) -> dict[str, int]:
    """Image -> bits: the label of each type, and above them which types had a row at all.

    Four images of the published table occur twice. A positive row wins; rows that contradict each
    other are reported.
    """
    labels: dict[str, int] = {}
    contradictory: set[str] = set()
    malformed = 0
    with open_text(table) as file:
        if file.readline().replace('"', "").strip().lower() != "id,label":
            raise DataError(f"{table}: the first line is not ID,Label")
        for line in file:
            name, _, label = line.strip().rpartition(",")
            image, _, kind = name.rpartition("_")
            bit = _BIT.get(kind)
            if bit is None or label not in ("0", "1"):
                image, bit, label = _read_oddly(line)
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
