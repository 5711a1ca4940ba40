"""The files of a segmented series."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from ichfast.data.layouts.dicom_folder import DicomFolder
from ichfast.data.series import Series
from ichfast.errors import IchfastError
from ichfast.files import DiskFull, report_errors, write_whole
from ichfast.inference.inputs import Item
from ichfast.inference.model import Model
from ichfast.inference.outputs.nifti import FIX, write_mask, write_regular
from ichfast.inference.result import (
    MASK,
    REGULAR,
    REPORT,
    RESULT,
    SEG,
    Segmented,
    describe_interval,
    describe_scan,
)
from ichfast.viewer import StudyPage, render_page
from ichfast.viewer.pack import HU_RANGE


def write_all(
    folder: Path,
    item: Item,
    series: Series,
    found: Segmented,
    model: Model,
    result: dict[str, Any],
    *,
    anonymous: bool,
) -> None:
    """Every file into the series' folder, ``result.json`` last; what could not be written for want
    of a package or a position is in its ``not_written``. Nothing of a former time stays, so that
    no file is beside one of another mask."""
    start = time.perf_counter()
    with report_errors(folder, FIX):
        folder.mkdir(exist_ok=True)
        for name in (RESULT, MASK, REGULAR, SEG, REPORT):
            (folder / name).unlink(missing_ok=True)
    missing: dict[str, str] = {}
    write_mask(folder / MASK, series, found.mask)
    if series.grid is not None and not series.grid.is_regular():
        write_regular(folder / REGULAR, series, found.mask)
    if item.layout != DicomFolder.name:
        missing[SEG] = "the scan is not DICOM"
    elif anonymous:
        missing[SEG] = "it names the patient's study; --anonymous leaves it out"
    else:
        from ichfast.inference.outputs.seg import write_seg  # pydicom, only where it is needed

        version = str(model.about["ichfast"])
        try:
            write_seg(
                folder / SEG,
                series,
                found.mask,
                item.root,
                model_name=model.name,
                model_version=version,
            )
        except DiskFull:
            raise
        except IchfastError as error:  # the other files are there
            missing[SEG] = str(error)
    page = render_page(make_study_page(series, found, model, result, anonymous=anonymous))
    content = page.encode("utf-8", "backslashreplace")
    write_whole(folder / REPORT, content, lasting=False, fix=FIX)
    result["not_written"] = missing
    result["seconds"]["write"] = time.perf_counter() - start
    text = json.dumps(result, indent=1, allow_nan=False)
    write_whole(folder / RESULT, text.encode(), lasting=False, fix=FIX)


def make_study_page(
    series: Series, found: Segmented, model: Model, result: dict[str, Any], *, anonymous: bool
) -> StudyPage:
    calibration, measures = model.calibration, found.measures
    facts = [] if anonymous else [("Patient", series.patient), ("Series", series.series)]
    rows, columns = series.stored.shape[1:]
    facts += [
        ("Slices", f"{len(series)} of {rows}×{columns} pixels"),
        ("Quirks", ", ".join(series.quirks) or "none"),
        ("Scan-level", describe_scan(result)),
        ("Components", str(len(measures.components))),
        ("ABC/2", "none" if measures.abc2 is None else f"{measures.abc2.ml:.1f} mL"),
        ("Model", f"{model.name}, ichfast {model.about['ichfast']}"),
    ]
    if result["scan"]:
        scan = result["scan"]
        facts.append(
            (
                f"Scan-level, on {calibration.source}",
                f"sensitivity {scan['sensitivity']:.2f}, specificity {scan['specificity']:.2f}",
            )
        )
    for reason in dict.fromkeys(calibration.reasons.values()):
        parts = ", ".join(name for name, why in calibration.reasons.items() if why == reason)
        facts.append((f"Not calibrated: {parts}", reason))
    if attribution := model.about.get("attribution"):
        facts.append(("Training data", str(attribution)))
    interval: str | None
    if found.interval is not None and calibration.volume is not None:
        interval = f"{describe_interval(found.interval, calibration.volume.level)} mL"
    elif calibration.volume is None:
        interval = f"No interval: {calibration.reasons['volume']}."
    else:
        interval = measures.unknown
    return StudyPage(
        title="Head CT" if anonymous else result["name"],
        hu=convert_hu(series),
        probability=found.probability,
        threshold=model.threshold,
        window=model.window,
        spacing=series.spacing if measures.areas is not None else None,
        slab_mm=None if measures.slabs is None else np.array(measures.slabs),
        interval=interval,
        facts=facts,
        warnings=result["warnings"],
    )


def convert_hu(series: Series) -> np.ndarray:
    """(n, H, W) int16, slice by slice."""
    hu = np.empty(series.stored.shape, np.int16)
    for i in range(len(series)):
        hu[i] = (
            np.nan_to_num(series.hu(slice(i, i + 1))[0], nan=HU_RANGE[0]).clip(*HU_RANGE).round()
        )
    return hu
