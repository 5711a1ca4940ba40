"""DICOM Segmentation of a haemorrhage (PS3.3 A.51): one binary segment, a frame for every slice of
the series that it was found in, each with a reference to that slice. docs/dicom-seg.md says how
readers take it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

import ichfast
from ichfast.data.grid import SAME_POSITION_MM, SPACING_MM, Grid
from ichfast.data.problems import silence
from ichfast.data.series import Series
from ichfast.errors import DataError, OutputError
from ichfast.files import replace_whole, report_errors
from ichfast.inference.outputs.source_slices import IDENTITY, STUDY, SourceSlice, read_source_slices

CATEGORY = codes.SCT.MorphologicallyAbnormalStructure  # of CID 7150
TYPE = codes.SCT.Hemorrhage  # of CID 7151
REGION = codes.SCT.Intracranial  # of CID 4
FAMILY = codes.DCM.ArtificialIntelligence  # of CID 7162
LONGEST = 64  # characters of a LO, PS3.5 6.2
APART_MM = 1e-3
FIX = "Free space or choose another folder with --out."
_PLACEHOLDER = "1.2."  # + the slice's number, where highdicom puts the UID of a frame's source


def write_seg(
    path: Path,
    series: Series,
    mask: np.ndarray,
    root: Path,
    *,
    model_name: str,
    model_version: str,
) -> None:
    """Write a mask as DICOM Segmentation, whole or not at all. UIDs are new with every call, as the
    standard wants it of an object that is made anew.

    Args:
        path: The file, which is replaced.
        series: The series as it was read from DICOM files, upright.
        mask: (n, H, W) bool on the grid of the upright series; may be empty.
        root: What the series' sources are relative to. Their headers are read again.
        model_name, model_version: What found the haemorrhage; 64 characters of each are kept.

    Raises:
        OutputError: highdicom is not installed, or the file cannot be written.
        DataError: A source has changed or gone, or cannot be referenced.
    """
    try:
        import highdicom
    except ModuleNotFoundError as error:
        raise OutputError(
            f'{path.name} needs {error.name}, which is not installed: pip install "ichfast[seg]"'
        ) from error
    if series.grid is None:
        raise DataError(f"{path.name} is made of DICOM series; {series.series} has no positions")
    slices = read_source_slices(root, series)
    thickness = _choose_thickness(series.positions, series.grid, path)
    with silence("pydicom"), silence("highdicom"):
        seg = highdicom.seg.Segmentation(
            source_images=_make_sources(slices, series.positions, series.grid, thickness),
            pixel_array=series.grid.restore(mask).astype(np.uint8),
            segmentation_type="BINARY",
            segment_descriptions=[_describe(highdicom, model_name, model_version)],
            series_instance_uid=generate_uid(),
            series_number=int(slices[0].file.get("SeriesNumber") or 0) + 1000,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="ichfast",
            manufacturer_model_name=model_name[:LONGEST],
            software_versions=ichfast.__version__,
            device_serial_number=model_version[:LONGEST],
            content_label="HAEMORRHAGE",
            content_description="Intracranial haemorrhage; for research only",
            series_description="Intracranial haemorrhage",
            omit_empty_frames=False,  # a slice without a frame would be one that nobody looked at
            specific_character_set="ISO_IR 192",
        )
        seg.ContentCreatorName = ""  # required, be it empty
        _refer_to(seg, slices)
        with report_errors(path, FIX), replace_whole(path, lasting=True) as partial:
            seg.save_as(partial, enforce_file_format=True)


def _choose_thickness(positions: np.ndarray, grid: Grid, path: Path) -> float:
    """SliceThickness in mm: the distance between slices and not what their files say, since dcmqi
    takes it for that, and drops slices that are closer.
    """
    steps = np.diff(positions)
    steps = steps[steps >= SAME_POSITION_MM]
    if len(steps):
        return float(np.mean(steps) if np.ptp(steps) <= SPACING_MM else np.min(steps))
    if grid.thickness is None:
        raise DataError(f"{path.name}: a slice alone needs SliceThickness, which its file lacks")
    return grid.thickness


def _make_sources(
    slices: Sequence[SourceSlice],
    positions: np.ndarray,
    grid: Grid,
    thickness: float,
) -> list[Dataset]:
    """Images of one slice each, whatever the files are: highdicom takes one enhanced file, with all
    of its frames, or none.
    """
    first, sources = slices[0], []
    distance = -np.inf
    for number, (one, position) in enumerate(zip(slices, positions, strict=True)):
        source = Dataset()
        source.SOPClassUID = CTImageStorage
        source.SOPInstanceUID = f"{_PLACEHOLDER}{number}"
        source.StudyInstanceUID = first.file.StudyInstanceUID
        source.SeriesInstanceUID = first.file.SeriesInstanceUID
        # Without one, the same for every object that is made of this series.
        source.FrameOfReferenceUID = first.file.get("FrameOfReferenceUID") or generate_uid(
            entropy_srcs=[first.file.SeriesInstanceUID, "frame of reference"]
        )
        source.Modality = "CT"
        for keyword in (*IDENTITY, *STUDY):
            setattr(source, keyword, first.file.get(keyword, ""))
        source.Rows, source.Columns = first.header.rows, first.header.columns
        source.ImageOrientationPatient = _format(first.header.orientation)
        source.PixelSpacing = _format(first.header.spacing)
        (source.SliceThickness,) = _format([thickness])
        # highdicom drops all but one of the slices at the same place.
        distance = max(position, distance + APART_MM)
        apart = (distance - position) * grid.normal
        source.ImagePositionPatient = _format(one.header.position + apart)
        sources.append(source)
    return sources


def _format(numbers: Sequence[float] | np.ndarray) -> list[str]:
    return [format_number_as_ds(float(number)) for number in numbers]


def _describe(highdicom: Any, name: str, version: str) -> Any:
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=name[:LONGEST], family=FAMILY, version=version[:LONGEST], source="ichfast"
    )
    return highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="Intracranial haemorrhage",
        segmented_property_category=CATEGORY,
        segmented_property_type=TYPE,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        anatomic_regions=[REGION],
    )


def _refer_to(seg: Dataset, slices: Sequence[SourceSlice]) -> None:
    """Put the true instances, frames and places in the place of those of `_make_sources`."""
    for frame in seg.PerFrameFunctionalGroupsSequence:
        (reference,) = frame.DerivationImageSequence[0].SourceImageSequence
        one = slices[int(reference.ReferencedSOPInstanceUID.removeprefix(_PLACEHOLDER))]
        reference.update(_make_reference(one.file))
        if one.frame:
            reference.ReferencedFrameNumber = one.frame
        frame.PlanePositionSequence[0].ImagePositionPatient = _format(one.header.position)
    frames: dict[str, list[int]] = {}
    for one in slices:
        frames.setdefault(one.file.SOPInstanceUID, []).append(one.frame)
    files = {one.file.SOPInstanceUID: one.file for one in slices}
    seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence = [
        _make_reference(file) for file in files.values()
    ]
    seg.SourceImageSequence = [_make_reference(file) for file in files.values()]
    for reference, numbers in zip(seg.SourceImageSequence, frames.values(), strict=True):
        if any(numbers):
            reference.ReferencedFrameNumber = sorted(numbers)


def _make_reference(file: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = file.SOPClassUID
    reference.ReferencedSOPInstanceUID = file.SOPInstanceUID
    return reference
