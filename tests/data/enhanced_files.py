"""Enhanced CT files for the tests, made of the same drawn head as the single slices."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from published import dicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.uid import EnhancedCTImageStorage, JPEG2000Lossless, JPEGLSLossless

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


def compressed(volume: np.ndarray, zs: Sequence[float], syntax: Any, table: str) -> Any:
    """An enhanced file whose frames have a basic, an extended or no offset table."""
    dataset = enhanced(volume + 1024, zs, shared={"RescaleIntercept": -1024})
    if syntax == JPEG2000Lossless:
        openjpeg = pytest.importorskip("openjpeg.utils")
        streams = [openjpeg.encode_array(f, photometric_interpretation=2) for f in volume + 1024]
    else:
        if syntax == JPEGLSLossless:
            pytest.importorskip("jpeg_ls")
        dataset.compress(syntax, generate_instance_uid=False)
        streams = list(generate_frames(dataset.PixelData, number_of_frames=len(volume)))
    if table == "extended":
        data, offsets, lengths = encapsulate_extended(streams)
        dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
    elif table == "fragments":
        data = encapsulate(streams, fragments_per_frame=3)
    else:
        data = encapsulate(streams, has_bot=table == "basic")
    dataset.PixelData = data
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset
