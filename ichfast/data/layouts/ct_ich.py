"""CT-ICH v1.3.1 (Hssayeni et al., PhysioNet): ct_scans/*.nii, masks/*.nii, labels in a CSV."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ichfast.data.layouts.base import ScanLayout
from ichfast.data.listing import NIFTI, list_by_name, list_volumes, name_source, report_twins
from ichfast.data.masks import threshold
from ichfast.data.problems import Problems, Refused
from ichfast.data.series import SUBTYPES, Series
from ichfast.data.texts import open_text, parse_whole
from ichfast.errors import DataError

TABLE = "hemorrhage_diagnosis_raw_ct.csv"
# Of v1.0.0; its readme spells it the second way.
OTHER_TABLES = ("hemorrhage_diagnosis.csv", "hemmorhage_diagnosis.csv")

Labels = dict[int, dict[int, list[bool]]]  # patient -> slice number (from 1) -> SUBTYPES


class CtIch(ScanLayout):
    name = "ct-ich"
    signs = "a folder ct_scans (CT-ICH)"
    has_masks = True
    has_labels = True
    formats = dict.fromkeys(NIFTI, "NIfTI")

    def detect(self, root: Path, entries: Mapping[str, Path]) -> bool:
        return "ct_scans" in entries

    def list_scans(self, root: Path) -> dict[str, int]:
        return dict.fromkeys(list_volumes(list_by_name(root).get("ct_scans")), 1)

    def require_masks(self, root: Path, purpose: str) -> None:
        if not list_volumes(list_by_name(root).get("masks")):
            raise DataError(
                f"{root}: no .nii files in the folder masks to {purpose}; put the set's masks "
                f"there, beside ct_scans"
            )

    def read_scans(
        self,
        root: Path,
        problems: Problems,
        only: str | None = None,
        *,
        with_masks: bool = True,
        progress: bool = False,
    ) -> Iterator[Series]:
        """Every patient's scan with its mask and its labels per slice."""
        entries = list_by_name(root)
        scans = list_volumes(entries.get("ct_scans"))
        masks = list_volumes(entries.get("masks")) if with_masks else {}
        if not scans:
            raise DataError(f"{root}: no .nii files in the folder ct_scans")
        labels = find_labels(entries, TABLE, problems)
        problems.expect(len(scans))
        report_twins(root, (entries.get("ct_scans"), entries.get("masks")), problems)
        for name in sorted(masks.keys() - scans.keys()):
            problems.add(name_source(masks[name], root), "mask without a scan in ct_scans")
        if only is not None:
            scans = {only: scans[only]}
        for name, path in tqdm(scans.items(), "scans", disable=None if progress else True):
            source = name_source(path, root)
            try:
                series = _read_scan(source, path, masks.get(name), name)
                own = labels.get(int(name), {}) if name.isdecimal() else {}
                numbers = [int(each.rpartition("#")[2]) for each in series.sources]
                series = attach_labels(series, own, numbers, len(series), source, problems)
                if masks and name not in masks:
                    problems.skip(source, "scan without a mask in masks")
                    series = trust_negatives(series)
                yield series
            except Refused as refused:
                problems.record(source, refused)


def _read_scan(source: str, path: Path, mask_path: Path | None, name: str) -> Series:
    from ichfast.data.nifti import read_nifti  # nibabel is loaded only where it is needed

    series, blood = read_nifti(path, mask_path, source, name, slices_last=True)
    if blood is None:
        return series
    # Masks are 0 and about 255 (or 1) after their own scaling, and not exactly either.
    return replace(series, mask=threshold(blood, max(float(blood.max()) / 2, 0.5)))


def find_labels(entries: Mapping[str, Path], name: str, problems: Problems) -> Labels:
    """The labels in the set's table, whichever version's name it has; `name` if there is none."""
    table = next((entries[each] for each in (TABLE, *OTHER_TABLES) if each in entries), None)
    labels = read_labels(table, problems) if table is not None else {}
    if not labels:
        problems.skip(name, "missing, so there are no labels per slice")
    return labels


def read_labels(table: Path, problems: Problems) -> Labels:
    with open_text(table) as file:
        try:
            header, *rows = csv.reader(file)
        except (csv.Error, ValueError):
            raise DataError(f"{table}: not a CSV file with a first line of names") from None
    header = [name.strip().lower() for name in header]
    wanted = ["patientnumber", "slicenumber", *SUBTYPES]
    missing = [name for name in wanted if name not in header]
    if missing:
        raise DataError(f"{table}: no column {', '.join(missing)} in its first line")
    columns = [header.index(name) for name in wanted]
    labels: Labels = {}
    malformed = 0
    for row in rows:
        try:
            patient, number, *flags = (parse_whole(row[column]) for column in columns)
        except (ValueError, IndexError):
            malformed += any(row)
            continue
        labels.setdefault(patient, {})[number] = [bool(flag) for flag in flags]
    if malformed:
        problems.skip(table.name, f"{malformed} rows without a patient, slice and labels")
    return labels


def attach_labels(
    series: Series,
    labels: dict[int, list[bool]],
    numbers: list[int],
    last: int,
    source: str,
    problems: Problems,
) -> Series:
    """The CSV's slice n is index n - 1 on the file's last axis, whichever way that runs; `numbers`
    are those of the series' slices, `last` is the highest that the scan has.
    """
    if not labels:
        return series
    if max(labels) > last or min(labels) < 1:
        problems.skip(source, "the CSV labels slices that the scan does not have; labels left out")
        return series
    rows = [labels.get(number, [False] * len(SUBTYPES)) for number in numbers]
    known = np.array([number in labels for number in numbers])
    return replace(series, subtypes=np.array(rows, dtype=bool), subtypes_known=known)


def trust_negatives(series: Series) -> Series:
    """A scan that lacks masks: where the table says that a slice has no haemorrhage, its missing
    mask is an empty one; of all others the mask stays unknown.
    """
    if series.subtypes is None:
        return series
    negative = series.has_subtypes() & ~series.subtypes.any(1)
    mask = np.zeros(series.stored.shape, dtype=bool) if series.mask is None else series.mask
    return replace(series, mask=mask, mask_known=series.has_mask() | negative)
