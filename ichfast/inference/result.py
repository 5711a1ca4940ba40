"""What is said of a segmented series, in numbers and in words."""

import datetime
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import ichfast
from ichfast.data.series import Series
from ichfast.data.slabs import measure_volume, pixel_area
from ichfast.inference.measures import Measures, measure
from ichfast.inference.model import Model
from ichfast.viewer import quantise

FORMAT = 1
RESULT, MASK, REGULAR, SEG, REPORT = (
    "result.json", "mask.nii.gz", "mask_regular.nii.gz", "seg.dcm", "report.html",
)  # fmt: skip
RESEARCH_ONLY = (
    "For research only. This is not a medical device: no decision about a patient may rest on it."
)
COLUMNS = (
    "patient", "study", "series", "slices", "volume_ml", "low_ml", "high_ml", "pixels",
    "scan_probability", "scan_positive", "components", "largest_ml", "abc2_ml", "warnings",
)  # fmt: skip
"""of the summary"""


@dataclass(frozen=True, eq=False)
class Segmented:
    mask: np.ndarray  # (n, H, W) bool
    probability: np.ndarray  # (n, H, W) uint8 by `ichfast.viewer.quantise`
    measures: Measures
    interval: tuple[float, float] | None
    """mL"""
    scan_volume: float | None
    """of the mask, in the unit of the model's scan score"""


def segment(series: Series, model: Model) -> Segmented:
    """Apply the model, a batch of slices at a time: memory holds one batch of probabilities."""
    shape = series.stored.shape
    mask, levels = np.empty(shape, bool), np.empty(shape, np.uint8)
    thresholds = model.calibration.thresholds or ()
    counts = np.zeros((len(thresholds), len(series)), np.int64)
    for own, probability in model.segment_series(series):
        mask[own] = probability > model.threshold
        levels[own] = quantise(probability, model.threshold)
        for at, threshold in enumerate(thresholds):
            counts[at, own] = np.count_nonzero(probability > threshold, axis=(1, 2))
    measures = measure(series, mask)
    interval, area = None, pixel_area(series.spacing)
    if thresholds and measures.slabs is not None and area is not None:
        sure, possible = (measure_volume(one, area, np.array(measures.slabs)) for one in counts)
        interval = model.calibration.interval((sure, possible))
    volume = model.measure_for_scan(series, measures.pixels, measures.ml)
    return Segmented(mask, levels, measures, interval, volume)


def make_result(
    name: str,
    series: Series,
    found: Segmented,
    model: Model,
    warnings: list[str],
    *,
    anonymous: bool,
) -> dict[str, Any]:
    """The content of result.json, but for the time it took."""
    identity = {"patient": series.patient, "study": series.study, "series": series.series}
    measures = found.measures
    return {
        "format": FORMAT,
        "name": name,
        "research_only": RESEARCH_ONLY,
        **({} if anonymous else identity | {"sources": list(series.sources)}),
        "slices": len(series),
        "size": list(series.stored.shape[1:]),
        "spacing_mm": _keep_finite(series.spacing),
        "positions_mm": series.positions.tolist(),
        "slabs_mm": measures.slabs,
        "tilt_degrees": series.tilt,
        "volume": describe_volume(found, model),
        "volume_ml": measures.ml,
        "interval_ml": None if found.interval is None else list(found.interval),
        "interval_level": model.calibration.volume and model.calibration.volume.level,
        "pixels": sum(measures.pixels),
        "areas_mm2": measures.areas,
        "areas_pixels": measures.pixels,
        "components": [asdict(component) for component in measures.components],
        "abc2": measures.abc2 and asdict(measures.abc2),
        "unknown": measures.unknown,
        "scan": judge_scan(found, model),
        "threshold": model.threshold,
        "not_calibrated": dict(model.calibration.reasons),
        "quirks": list(series.quirks),
        "warnings": warnings,
        "model": {**model.about, "threshold": model.threshold},
        "ichfast": ichfast.__version__,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _keep_finite(values: tuple[float, float]) -> list[float] | None:
    return list(values) if np.isfinite(values).all() else None


def describe_volume(found: Segmented, model: Model) -> str:
    """As "12.3 mL (90 %: 9.8 to 15.6)"; in pixels where the scan has no spacing."""
    volume = found.measures.ml
    if volume is None:
        return f"{sum(found.measures.pixels):,} pixels"
    text = f"{volume:.1f} mL"
    if found.interval is None or model.calibration.volume is None:
        return text
    return f"{text} ({describe_interval(found.interval, model.calibration.volume.level)})"


def describe_interval(interval: tuple[float, float], level: float) -> str:
    return f"{level * 100:g} %: {interval[0]:.1f} to {interval[1]:.1f}"


def judge_scan(found: Segmented, model: Model) -> dict[str, Any] | None:
    """Whether the scan is called positive, and how good such calls were on the patients that they
    were fitted on; None where the model has no such score."""
    scan = model.calibration.scan
    if scan is None or found.scan_volume is None:
        return None
    return {
        "positive": found.scan_volume > scan.threshold,
        "probability": scan.estimate_probability(found.scan_volume),
        "volume": found.scan_volume,
        "unit": scan.unit,
        "threshold": scan.threshold,
        "sensitivity": scan.sensitivity,
        "specificity": scan.specificity,
        "fitted_on": {"positive": scan.positive, "negative": scan.negative},
    }


def describe_scan(result: dict[str, Any]) -> str:
    scan = result["scan"]
    if scan is None:
        return "not calibrated" if "scan" in result["not_calibrated"] else "unknown without mL"
    word = "positive" if scan["positive"] else "negative"
    return f"{word}, probability {scan['probability']:.2f}"


def make_row(result: dict[str, Any]) -> dict[str, Any]:
    """Of the summary, from what is in result.json."""
    low, high = result["interval_ml"] or (None, None)
    scan, components = result["scan"] or {}, result["components"]
    return {
        **{key: result.get(key) for key in ("patient", "study", "series")},
        "slices": result["slices"],
        "volume": result["volume"],
        "volume_ml": result["volume_ml"],
        "low_ml": low,
        "high_ml": high,
        "pixels": result["pixels"],
        "scan": describe_scan(result),
        "scan_probability": scan.get("probability"),
        "scan_positive": scan.get("positive"),
        "components": len(components),
        "largest_ml": components[0]["ml"] if components else None,
        "abc2_ml": result["abc2"] and result["abc2"]["ml"],
        "warnings": "; ".join([*result["quirks"], *result["warnings"]]),
        "seconds": sum(result["seconds"].values()),
    }
