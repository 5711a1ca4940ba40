"""Enhanced CT files for the tests, made of the same drawn head as the single slices."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from published import dicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import EnhancedCTImageStorage

LEGACY = "1.2.840.10008.5.1.4.1.1.2.2"
# Functional group -> what stands in it.
GROUPS = {
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope", "RescaleType"),
    "CTImageFrameTypeSequence": ("FrameType", "VolumetricProperties"),
    "CTAcquisitionTypeSequence": ("AcquisitionType",),
    "CTAcquisitionDetailsSequence": ("GantryDetectorTilt",),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth"),
}
DEFAULTS: dict[str, Any] = {
    "PixelSpacing": [0.5, 0.5],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "RescaleSlope": 1,
    "RescaleIntercept": 0,
    "RescaleType": "HU",
    "FrameType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
}


def item(values: dict[str, Any]) -> Dataset:
    """Of the shared or per-frame sequence: the values, each in its group."""
    result = Dataset()
    for group, keywords in GROUPS.items():
        own = Dataset()
        for keyword in keywords:
            if values.get(keyword) is not None:
                setattr(own, keyword, values[keyword])
        if len(own):
            setattr(result, group, [own])
    return result


def enhanced(
    stored: np.ndarray,
    zs: Sequence[float],
    *,
    shared: dict[str, Any] | None = None,
    frames: Sequence[dict[str, Any]] | None = None,
    per_frame: bool = False,
    **tags: Any,
) -> FileDataset:
    """(n, rows, columns) as one file. `shared` and `frames` replace or add values, None leaves them
    out; with `per_frame` everything stands in the per-frame groups.
    """
    common = {**DEFAULTS, **(shared or {})}
    own = [{"ImagePositionPatient": [-100, -100, z]} for z in zs]
    own = [{**one, **extra} for one, extra in zip(own, frames or [{}] * len(own), strict=True)]
    if per_frame:
        own = [{**common, **one} for one in own]
        common = {}
    else:  # no value in both
        common = {k: v for k, v in common.items() if not any(k in one for one in own)}
    top = {
        "SOPClassUID": EnhancedCTImageStorage,
        "ImageType": ["ORIGINAL", "PRIMARY", "MIXED", "NONE"],
        "NumberOfFrames": len(stored),
        "ImagePositionPatient": None,
        "ImageOrientationPatient": None,
        "PixelSpacing": None,
        "RescaleSlope": None,
        "RescaleIntercept": None,
    }
    dataset = dicom(stored[0], PixelData=stored.tobytes(), **{**top, **tags})
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.SharedFunctionalGroupsSequence = [item(common)]
    dataset.PerFrameFunctionalGroupsSequence = [item(one) for one in own]
    return dataset
