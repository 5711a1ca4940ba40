"""A study, or single slices of several, as one HTML file that needs no network."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from ichfast.errors import DataError
from ichfast.viewer.pack import TOP, own_step, pack_slice

HERE = Path(__file__).parent
SCRIPTS = ("voxels.js", "study.js", "picture.js", "viewer.js")


@dataclass(frozen=True, eq=False)
class StudyPage:
    """What the page shows; all text is escaped there. Areas are in mm² where there is a spacing,
    volumes in mL where there are slabs too, and both in pixels otherwise."""

    title: str
    hu: np.ndarray  # (n, H, W) int16, upright as `ichfast.data.Series`
    probability: np.ndarray  # (n, H, W) uint8 by `quantise` at `threshold`
    threshold: float
    window: tuple[float, float]  # level, width in HU, as the page opens
    spacing: tuple[float, float] | None = None  # mm between rows, between columns
    slab_mm: np.ndarray | None = None  # (n,) along the normal, what each slice stands for
    target: np.ndarray | None = None  # (n, H, W) bool
    labels: Sequence[str] | None = None  # n, a word on each slice
    one_scan: bool = True  # False: slices of different scans, nothing is added up over them
    interval: str | None = None  # of the volume at `threshold`: "90 %: 9.8 to 15.6 mL"
    facts: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()
    credit: str = ""

    def __post_init__(self) -> None:
        shape = self.hu.shape
        for name, array, dtype in (
            ("hu", self.hu, np.int16),
            ("probability", self.probability, np.uint8),
            ("target", self.target, np.bool_),
        ):
            if array is not None and (array.dtype != dtype or array.shape != shape):
                raise DataError(
                    f"StudyPage: {name} must be {np.dtype(dtype)} of hu's shape {shape}, not "
                    f"{array.dtype} of {array.shape}"
                )
        if len(shape) != 3 or 0 in shape:
            raise DataError(f"StudyPage: hu must be (n, H, W) with a slice at least, not {shape}")
        for name, values in (("slab_mm", self.slab_mm), ("labels", self.labels)):
            if values is not None and len(values) != len(self.hu):
                raise DataError(
                    f"StudyPage: {name} must have one entry per slice, {len(self.hu)}, "
                    f"not {len(values)}"
                )


def render_page(study: StudyPage) -> str:
    """The page as HTML. Each slice is packed by itself, and the one with the largest area stands
    before the script: it is drawn while the browser reads the others."""
    page, style, script = _load_files()
    description = _describe(study)
    first = description["first"]
    packed = [_write_slice(study, i) for i in range(len(study.hu))]
    return page.substitute(
        title=_escape(study.title),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        warnings=_list_warnings(study.warnings),
        interval=_escape(study.interval or ""),
        facts="".join(
            f"<tr><th scope=row>{_escape(name)}</th><td>{_escape(value)}</td></tr>"
            for name, value in study.facts
        ),
        credit=_escape(study.credit),
        study=_write_json(description),
        first=packed.pop(first),
        others="\n".join(packed),
    )


@cache
def _load_files() -> tuple[Template, str, str]:
    """The page without its contents, its style and its script."""
    style = _read(HERE.parent / "report" / "common.css") + _read(HERE / "viewer.css")
    script = "".join(_read(HERE / name) for name in SCRIPTS)
    return Template(_read(HERE / "viewer.html")), style, script


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _escape(text: str) -> str:
    """As HTML. Names of files may hold bytes that are no text: each becomes a question mark."""
    return escape(text.encode("utf-8", "replace").decode())


def _hash(text: str) -> str:
    """As a Content-Security-Policy names what may run."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _write_slice(study: StudyPage, i: int) -> str:
    target = None if study.target is None else study.target[i]
    text = pack_slice(study.hu[i], study.probability[i], target)
    return f'<script type="text/plain" id="slice-{i}">{text}</script>'


def _list_warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{_escape(warning)}</li>" for warning in warnings)
    return f'<section class="warnings" aria-label="Warnings"><ul>{items}</ul></section>'


def _describe(study: StudyPage) -> dict[str, Any]:
    """What the page's script has to know beside the voxels."""
    height, width = study.hu.shape[1:]
    histograms = np.stack([np.bincount(q.ravel(), minlength=TOP + 1) for q in study.probability])
    step = own_step(study.threshold)
    target = None if study.target is None else study.target.sum((1, 2))
    first = _choose_first(histograms[:, step + 1 :].sum(1), target)
    return {
        "height": height,
        "width": width,
        "spacing": study.spacing,
        "slabs": None if study.slab_mm is None else [float(slab) for slab in study.slab_mm],
        "window": study.window,
        "threshold": study.threshold,
        "step": step,
        "histograms": histograms.tolist(),
        "target": None if target is None else target.tolist(),
        "first": first,
        "labels": study.labels and list(study.labels),
        "oneScan": study.one_scan,
    }


def _choose_first(above: np.ndarray, target: np.ndarray | None) -> int:
    """The slice with the most pixels above the threshold or, without any, of the target; the middle
    one where there is nothing to see."""
    for counts in (above, target):
        if counts is not None and counts.any():
            return int(counts.argmax())
    return len(above) // 2


def _write_json(value: Any) -> str:
    """JSON that ends no script element and holds no line separator, whatever is in its strings."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII: U+2028 is escaped
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
