"""Plain folders of NIfTI images, with or without masks beside them: nnU-Net's imagesTr and labelsTr
(github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md), BHSD's images and ground truths
(github.com/White65534/BHSD, label_192.zip), or folders with such names.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ichfast.data.layouts.base import ScanLayout
from ichfast.data.listing import NIFTI, list_by_name, list_volumes, name_source, report_twins
from ichfast.data.masks import round_labels, threshold
from ichfast.data.problems import Problems, Refused
from ichfast.data.series import SUBTYPES, Series
from ichfast.data.texts import read_json
from ichfast.errors import DataError

MASKS = ("labelstr", "labels", "masks", "ground truths")
SHORT = {"edh": 0, "iph": 1, "ivh": 2, "sah": 3, "sdh": 4}  # places in SUBTYPES
CHANNEL = re.compile(r"_(\d{4})$")


class NiftiFolder(ScanLayout):
    name = "nifti"
    signs = "NIfTI files in imagesTr, images or the folder itself"
    has_masks = True
    has_labels = False
    formats = dict.fromkeys(NIFTI, "NIfTI")

    def detect(self, root: Path, entries: Mapping[str, Path]) -> bool:
        return _find_images(root, entries) not in (None, root)

    def detect_files(self, root: Path) -> bool:
        return bool(list_volumes(root))

    def list_scans(self, root: Path) -> dict[str, int]:
        entries = list_by_name(root)
        masks = list_volumes(_find_masks(entries))
        return dict.fromkeys(_list_cases(_require_images(root, entries), masks), 1)

    def require_masks(self, root: Path, purpose: str) -> None:
        if _find_masks(list_by_name(root)) is None:
            raise DataError(
                f"{root}: has no masks to {purpose}; put them into labelsTr, labels or masks there"
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
        """Every image with its mask. Without a folder of masks the set is unlabelled."""
        from ichfast.data.nifti import read_nifti  # nibabel is loaded only where it is needed

        entries = list_by_name(root)
        folder = _require_images(root, entries)
        images = _list_cases(folder, list_volumes(_find_masks(entries)))
        of_masks = _find_masks(entries) if with_masks else None
        names = None
        if of_masks is not None:
            names = _read_label_names(entries.get("dataset.json"), len(images), problems)
        masks = list_volumes(of_masks)
        if of_masks is not None and not masks:
            raise DataError(f"{of_masks}: no .nii files; put the masks of {folder.name} there")
        problems.expect(len(images))
        report_twins(root, (folder, of_masks), problems)
        for name in sorted(masks.keys() - images.keys()):
            source = name_source(masks[name], root)
            problems.add(source, f"mask without an image in {folder.name}")
        if only is not None:
            images = {only: images[only]}
        for name, path in tqdm(images.items(), "scans", disable=None if progress else True):
            source = name_source(path, root)
            try:
                if of_masks is not None and name not in masks:
                    problems.skip(source, f"image without a mask in {of_masks.name}")
                series, values = read_nifti(path, masks.get(name), source, name)
                yield series if values is None else _attach_mask(series, values, names)
            except Refused as refused:
                problems.record(source, refused)


def _find_images(root: Path, entries: Mapping[str, Path]) -> Path | None:
    """Where a folder of NIfTI files keeps its images: imagesTr as nnU-Net, images as BHSD, or the
    folder itself.
    """
    folders = (entries.get("imagestr"), entries.get("images"), root)
    return next((folder for folder in folders if list_volumes(folder)), None)


def _find_masks(entries: Mapping[str, Path]) -> Path | None:
    return next((entries[name] for name in MASKS if name in entries), None)


def _require_images(root: Path, entries: Mapping[str, Path]) -> Path:
    folder = _find_images(root, entries)
    if folder is None:
        raise DataError(f"{root}: no .nii files in imagesTr, images or the folder itself")
    return folder


def _list_cases(folder: Path, masks: Collection[str]) -> dict[str, Path]:
    """The images by the names of their cases: their own names where a mask has the same, else in
    nnU-Net's layout, or where a mask asks for it, without the number of the channel.
    """
    numbered = folder.name.lower() == "imagestr"
    images: dict[str, Path] = {}
    for name, path in list_volumes(folder).items():
        channel = CHANNEL.search(name)
        short = name[: channel.start()] if channel else name
        case = short if name not in masks and (numbered or short in masks) else name
        if case in images or (case != name and channel and channel[1] != "0000"):
            raise DataError(
                f"{path}: a second channel or copy of {case}; ichfast reads one, CT, as {case}_0000"
            )
        images[case] = path
    return images


def _read_label_names(table: Path | None, images: int, problems: Problems) -> dict[int, str] | None:
    """The meaning of the numbers in the masks, from nnU-Net's dataset.json. Version 2 has name:
    number (or several, in regions), version 1 number: name.
    """
    if table is None:
        return None
    try:
        content = read_json(table)
        labels, count = dict(content["labels"]), int(content["numTraining"])
        names: dict[int, str] = {}
        for name, numbers in labels.items():
            if name.isdecimal():
                names[int(name)] = str(numbers).lower()
            else:
                for number in numbers if isinstance(numbers, list) else [numbers]:
                    names.setdefault(int(number), name.lower())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            f"{table}: not nnU-Net's dataset.json; it must have labels and numTraining, or be left "
            f"out"
        ) from None
    if images < count:
        problems.skip(table.name, f"speaks of {count} images, of which {images} are here")
    return names


def _attach_mask(series: Series, values: np.ndarray, names: dict[int, str] | None) -> Series:
    """Every label but 0 is haemorrhage. Without dataset.json the numbers mean nothing more, and
    masks of 0 and about 255 (or 1) are accepted, too.
    """
    if names is None:
        return replace(series, mask=threshold(values, 0.5))
    values = round_labels(values)
    found = np.unique(values)
    unknown = [value for value in found.tolist() if value not in names]
    if unknown:
        raise Refused(f"the mask has a label {unknown[0]:g} that dataset.json does not name")
    foreground = {int(value): names[int(value)] for value in found if value != 0}
    if "ignore" in foreground.values():
        raise Refused("the mask has voxels to be ignored, which would be learnt as background")
    mask = values != 0
    kinds = {value: _find_subtype(name) for value, name in foreground.items()}
    if None in kinds.values() or not all(_find_subtype(names[n]) is not None for n in names if n):
        return replace(series, mask=mask)
    voxels = np.zeros(values.shape, np.uint8)
    for value, kind in kinds.items():
        assert kind is not None
        voxels[values == value] = 1 + kind
    present = [(voxels == 1 + kind).any((1, 2)) for kind in range(len(SUBTYPES))]
    return replace(series, mask=mask, subtypes=np.stack(present, 1), kinds=voxels)


def _find_subtype(name: str) -> int | None:
    return SUBTYPES.index(name) if name in SUBTYPES else SHORT.get(name)
