"""The slices of a DICOM series again, for what an object made of them has to say: which instance,
which frame and which place each one is, and whose the study is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID, CTImageStorage
from pydicom.valuerep import DA, TM

from ichfast.data.deflated import read_elements
from ichfast.data.enhanced import read_pictures
from ichfast.data.image import Header
from ichfast.data.problems import Refused, refuse_failures, silence
from ichfast.data.series import Series
from ichfast.data.stacks import make_frame
from ichfast.errors import DataError

SAME_PLACE_MM = 1e-3
IDENTITY = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY = ("StudyID", "AccessionNumber", "StudyDate", "StudyTime", "ReferringPhysicianName")
UIDS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
TAGS = (*IDENTITY, *STUDY, *UIDS, "SOPClassUID", "FrameOfReferenceUID", "SeriesNumber")


@dataclass(frozen=True)
class SourceSlice:
    header: Header
    file: Dataset  # the `TAGS` of its file, of which the UIDs are valid
    frame: int  # number of the frame, from 1; 0 in a file that holds one slice


def read_source_slices(root: Path, series: Series) -> list[SourceSlice]:
    """Of each slice of the series, in its order, the headers alone.

    Raises:
        DataError: A file is gone or has changed since the series was read, it is no DICOM, or it
            has UIDs by which it cannot be referenced.
    """
    files: dict[Path, tuple[Dataset, dict[int, Header | Refused]]] = {}
    instances: dict[str, Path] = {}
    slices = []
    for source, position in zip(series.sources, series.positions, strict=True):
        path, frame = _split_source(root, source)
        try:
            if path not in files:
                pictures = {picture.number: picture.header for picture in read_pictures(path)}
                files[path] = _read_tags(path), pictures
            file, headers = files[path]
            header = headers.get(frame, Refused("has no such frame any more"))
            if isinstance(header, Refused):
                raise header
            _require_same(header, series, float(position))
        except Refused as refused:
            raise DataError(f"{root / source}: {refused}") from None
        other = instances.setdefault(file.SOPInstanceUID, path)
        if other != path:
            raise DataError(f"{path} and {other} have the same SOPInstanceUID; make them unique")
        slices.append(SourceSlice(header, file, frame))
    return slices


def _split_source(root: Path, source: str) -> tuple[Path, int]:
    if (root / source).is_file():  # a name may have a # of its own
        return root / source, 0
    name, _, number = source.rpartition("#")
    return (root / name, int(number)) if name and number.isdigit() else (root / source, 0)


def _require_same(header: Header, series: Series, position: float) -> None:
    frame = make_frame(header.orientation)
    size = (header.columns, header.rows) if frame.transpose else (header.rows, header.columns)
    moved = abs(float(np.dot(header.position, frame.normal)) - position)
    if header.series != series.series or size != series.stored.shape[1:] or moved > SAME_PLACE_MM:
        raise Refused("has changed since it was read; run the same command again")


def _read_tags(path: Path) -> Dataset:
    """What is odd in them is left out: an empty value is allowed where a wrong one is not."""
    with path.open("rb") as file, refuse_failures("damaged DICOM header"), silence("pydicom"):
        read, _ = read_elements(file, list(TAGS))
        found = dict(_list_values(read))
        found.setdefault("SOPInstanceUID", read.file_meta.get("MediaStorageSOPInstanceUID"))
        found.setdefault("SOPClassUID", CTImageStorage)  # readers take a file without one as such
        result = Dataset()
        for keyword, value in found.items():
            setattr(result, keyword, value)
    for keyword in UIDS:
        if not UID(found.get(keyword) or "").is_valid:
            raise Refused(f"{keyword} is missing or not valid, so nothing can reference this file")
    return result


def _list_values(read: Dataset) -> Iterator[tuple[str, str]]:
    """The one value of each tag as text, where there is one and it is what it should be."""
    for keyword in TAGS:
        value = read.get(keyword)
        text = "" if value is None else str(value).strip()
        if not text or (keyword in read and read[keyword].VM > 1):
            continue
        if keyword == "PatientSex" and text not in ("M", "F", "O"):
            continue
        if keyword == "SeriesNumber" and not text.isdecimal():
            continue
        if keyword.endswith("UID") and not UID(text).is_valid:
            continue
        if keyword.endswith(("Date", "Time")):
            try:
                (DA if keyword.endswith("Date") else TM)(text)
            except ValueError:
                continue
        yield keyword, text
