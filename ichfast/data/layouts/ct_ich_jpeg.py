"""CT-ICH v1.0.0 (Hssayeni et al., PhysioNet): JPEG pictures of the brain window, with masks.

Patients_CT/<patient>/brain/<n>.jpg and, for slices with haemorrhage, <n>_HGE_Seg.jpg. The bone
window's pictures beside them are not read.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from tqdm import tqdm

from ichfast.data import quirks
from ichfast.data.layouts.base import ScanLayout
from ichfast.data.layouts.ct_ich import (
    OTHER_TABLES,
    attach_labels,
    find_labels,
    trust_negatives,
)
from ichfast.data.limits import SIDE
from ichfast.data.listing import list_by_name, list_folder, name_source
from ichfast.data.masks import threshold
from ichfast.data.problems import Problems, Refused, refuse_failures
from ichfast.data.series import Series
from ichfast.errors import DataError

WINDOW = (40.0, 120.0)  # level and width that the authors exported the pictures with
HU_RANGE = (WINDOW[0] - WINDOW[1] / 2, WINDOW[0] + WINDOW[1] / 2)
BLOOD_ABOVE = 128  # masks are 0 and 255 but for the ringing of JPEG
SLICE_MM = 5.0  # the article's slice thickness; the pictures have no positions and no pixel spacing
QUIRKS = ("windowed grey levels", "no pixel spacing")
PICTURE = re.compile(r"(\d+)(_hge_seg)?\.jpe?g", re.IGNORECASE)

Pictures = dict[int, Path]  # by slice number, from 1


class CtIchJpeg(ScanLayout):
    name = "ct-ich-jpeg"
    signs = "a folder Patients_CT (CT-ICH 1.0.0)"
    has_masks = True
    has_labels = True
    formats = MappingProxyType({".jpg": "JPEG", ".jpeg": "JPEG"})
    no_export = (
        "these pictures have neither HU outside their window nor a pixel spacing; export version "
        "1.3.1"
    )

    def detect(self, root: Path, entries: Mapping[str, Path]) -> bool:
        return "patients_ct" in entries

    def list_scans(self, root: Path) -> dict[str, int]:
        """The patients' folders by name, in their order, and how many pictures each has."""
        folders = _list_patients(list_by_name(root))
        return {folder.name: len(_list_pictures(folder)[0]) for folder in folders}

    def require_masks(self, root: Path, purpose: str) -> None:
        folders = _list_patients(list_by_name(root))
        if not any(_list_pictures(folder)[1] for folder in folders):
            raise DataError(
                f"{root}: no masks <n>_HGE_Seg.jpg to {purpose}; put them beside the pictures, or "
                f"take the set as the unlabelled one"
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
        """Every patient's slices with masks and labels. Grey levels become the HU of the window
        they were exported with; what lay outside it is lost, hence `hu_range`.

        Healthy slices have no mask. One that the table does not call healthy, and that has none
        either, has an unknown mask; so have all slices of a set without a single mask.
        """
        entries = list_by_name(root)
        folders = _list_patients(entries)
        found = {folder.name: _list_pictures(folder) for folder in folders}
        if not any(images for images, _ in found.values()):
            raise DataError(f"{entries['patients_ct']}: no pictures <patient>/brain/<n>.jpg")
        labels = find_labels(entries, OTHER_TABLES[0], problems)
        with_masks = with_masks and any(masks for _, masks in found.values())
        if with_masks and not labels:
            problems.skip(OTHER_TABLES[0], "missing: slices without a mask are taken for healthy")
        problems.expect(sum(len(images) for images, _ in found.values()))
        if only is not None:
            folders = [folder for folder in folders if folder.name == only]
        for folder in tqdm(folders, "scans", disable=None if progress else True):
            images, masks = found[folder.name]
            if not images:
                problems.add(name_source(folder, root), "no pictures brain/<n>.jpg in it")
            for number in sorted(masks.keys() - images.keys()) if with_masks else ():
                problems.add(name_source(masks[number], root), "mask without its picture")
            of_scan = masks if with_masks else None
            series, numbers = _read_scan(root, folder.name, images, of_scan, problems)
            if series is None:
                continue
            own = labels.get(int(folder.name), {}) if folder.name.isdecimal() else {}
            source = name_source(folder, root)
            series = attach_labels(series, own, numbers, max(images), source, problems)
            if with_masks and labels:
                series = trust_negatives(series)
                _report_missing(series, problems)
            elif with_masks:
                series = replace(series, mask_known=None)
            yield series


def _report_missing(series: Series, problems: Problems) -> None:
    for i in np.flatnonzero(~series.has_mask()):
        bleeding = bool(series.name_subtypes(int(i)))
        reason = "labelled as haemorrhage, without a mask" if bleeding else "no label and no mask"
        problems.skip(series.sources[i], reason)


def _list_patients(entries: Mapping[str, Path]) -> list[Path]:
    return [path for path in list_folder(entries["patients_ct"]) if path.is_dir()]


def _list_pictures(folder: Path) -> tuple[Pictures, Pictures]:
    """Images and masks."""
    images: Pictures = {}
    masks: Pictures = {}
    brain = next((path for path in list_folder(folder) if path.name.lower() == "brain"), None)
    for path in list_folder(brain) if brain is not None else ():
        name = PICTURE.fullmatch(path.name)
        if name:
            (masks if name[2] else images)[int(name[1])] = path
    return images, masks


def _read_scan(
    root: Path,
    name: str,
    images: Pictures,
    masks: Pictures | None,
    problems: Problems,
) -> tuple[Series | None, list[int]]:
    """The scan, and the numbers of its slices. Of the masks, those with a file are known."""
    stored: list[np.ndarray] = []
    blood: list[np.ndarray] = []
    numbers: list[int] = []
    for number, path in sorted(images.items()):
        try:
            picture = _read_grey(path)
            if stored and picture.shape != stored[0].shape:
                raise Refused(f"sizes differ: {picture.shape}, before it {stored[0].shape}")
            if masks and number in masks:
                mask = threshold(_read_grey(masks[number]), BLOOD_ABOVE)
                if mask.shape != picture.shape:
                    raise Refused(f"sizes differ: picture {picture.shape}, mask {mask.shape}")
            else:
                mask = np.zeros(picture.shape, dtype=bool)
        except Refused as refused:
            problems.record(name_source(path, root), refused)
            continue
        stored.append(picture)
        blood.append(mask)
        numbers.append(number)
    if not stored:
        return None, []
    series = Series(
        stored=np.stack(stored, dtype=np.int16),
        slope=np.full(len(stored), WINDOW[1] / 255),
        intercept=np.full(len(stored), HU_RANGE[0]),
        padding=None,
        mask=None if masks is None else np.stack(blood),
        mask_known=None if masks is None else np.array([number in masks for number in numbers]),
        patient=name,
        study=name,
        series=name,
        positions=SLICE_MM * np.array(numbers),
        spacing=(float("nan"), float("nan")),
        tilt=0.0,
        sources=tuple(name_source(images[number], root) for number in numbers),
        hu_range=HU_RANGE,
    )
    return replace(series, quirks=(*QUIRKS, *quirks.detect(series))), numbers


def _read_grey(path: Path) -> np.ndarray:
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise DataError(f"{path}: JPEG needs a decoder: pip install pillow") from None
    with (
        refuse_failures(f"{path.name} is not a readable JPEG picture"),
        Image.open(path, formats=["JPEG"]) as picture,
    ):
        if max(picture.size) > SIDE:
            raise Refused(
                f"{path.name} has a side of {max(picture.size):,} pixels; {SIDE} can be read"
            )
        return np.asarray(picture.convert("L"))
