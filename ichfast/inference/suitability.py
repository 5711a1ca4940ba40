"""Whether a series is what the models were made for: a plain axial CT of a whole head."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ichfast.data.problems import refuse_failures, silence
from ichfast.data.quirks import TILT_DEGREES
from ichfast.data.series import Series

HEAD_PARTS = (
    "HEAD",
    "SKULL",
    "BRAIN",
    "NEURO",
    "CRANI",
    "SCHADEL",
    "SCHÄDEL",
    "KOPF",
    "CRAN",
    "TETE",
)
OTHER_PARTS = (
    "NECK", "SPINE", "CHEST", "THORAX", "LUNG", "HEART", "ABDOMEN", "PELVIS", "LIVER", "KNEE",
    "HIP", "LEG", "ARM", "SHOULDER", "FOOT", "ANKLE", "HAND", "WRIST", "EXTREMITY", "WHOLEBODY",
    "AORTA", "CAROTID",
)  # fmt: skip
"""of DICOM's list (PS3.16 annex L); a text that names one of HEAD_PARTS too is a head"""
SHORT = 4  # letters
NO_AGENT = ("", "0", "NO", "NONE", "N", "NEIN", "KEIN", "KEINE")
WITHOUT_AGENT = {
    "W/O", "WO", "WITHOUT", "NATIVE", "NATIV", "OHNE", "NON-CONTRAST", "NONCONTRAST", "NON",
    "SANS", "PRE-CONTRAST", "C-", "NCCT", "UNENHANCED",
}  # fmt: skip
WITH_AGENT = {
    "CTA", "ANGIO", "ANGIOGRAPHY", "CONTRAST", "W/CONTRAST", "POST-CONTRAST", "POSTCONTRAST",
    "CONTRASTED", "ENHANCED", "C+", "CE", "KM", "PERFUSION",
}  # fmt: skip
TAGS = (
    "BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName",
    "ContrastBolusAgent",
)  # fmt: skip

SKIN_HU, BONE_HU, BRAIN_HU = -300.0, 300.0, (0.0, 80.0)
WIDTH_MM, LENGTH_MM, HEIGHT_MM = (100.0, 210.0), (120.0, 270.0), 40.0
"""of a head from ear to ear and from nose to neck, newborns' and the largest adults' with room on
either side; and how much of the long axis a scan covers at least"""
BONE_SHARE = 0.03
"""of the largest slice of the body; a skull is more, soft parts are less"""
BRAIN_SHARE = 0.25
"""likewise between 0 and 80 HU; a chest is mostly air and fat"""


@dataclass(frozen=True)
class Facts:
    """What the header says beside the geometry; empty where it says nothing."""

    part: str = ""
    description: str = ""
    contrast: str = ""


def read_facts(path: Path) -> Facts:
    """Of a DICOM file; nothing of it is trusted, and an odd value counts as none."""
    from ichfast.data.deflated import read_elements  # loads pydicom

    with path.open("rb") as file, refuse_failures("damaged DICOM file"), silence("pydicom"):
        header, _ = read_elements(file, list(TAGS), force=True)

        def get(name: str) -> str:
            value: Any = header.get(name)
            return "" if value is None else str(value).strip()

        texts = (get(name) for name in ("StudyDescription", "SeriesDescription", "ProtocolName"))
        return Facts(
            get("BodyPartExamined"),
            " ".join(text for text in texts if text),
            get("ContrastBolusAgent"),
        )


def find_doubts(series: Series, facts: Facts) -> list[str]:
    """Why the series may be none that a model should be applied to, in words; empty: go on."""
    return [*_doubt_shape(series), *_doubt_part(facts), *_doubt_pixels(series)]


def find_warnings(series: Series, facts: Facts) -> list[str]:
    """What a reader of the result should know; the series is segmented all the same."""
    found = []
    agent = facts.contrast.upper() not in NO_AGENT
    if agent or _is_enhanced(facts.description):
        found.append("contrast agent was given: vessels and enhancing tissue look like blood")
    if series.grid is not None and series.grid.file_forms is not None and _is_tilted(series):
        found.append(
            "NIfTI of a tilted gantry: the distance between slices that such a file gives is often "
            "too short, and the volume with it; segment the DICOM files"
        )
    if series.hu_range:
        low, high = series.hu_range
        found.append(f"pictures of one window: HU from {low:g} to {high:g} alone")
    return found


def _is_tilted(series: Series) -> bool:
    return abs(series.tilt) > TILT_DEGREES


def _doubt_shape(series: Series) -> list[str]:
    if len(series) == 1:
        return ["one slice is no scan of a head"]
    covered = float(np.ptp(series.positions))
    if covered < HEIGHT_MM and not np.isnan(series.spacing).any():
        return [f"covers {covered:.0f} mm of the long axis, a head at least {HEIGHT_MM:.0f}"]
    return []


def _doubt_part(facts: Facts) -> list[str]:
    for name, text in (("BodyPartExamined", facts.part), ("the description", facts.description)):
        words = text.upper()
        if any(part in words for part in HEAD_PARTS):
            return []
        if other := next((part for part in OTHER_PARTS if _names(words, part)), None):
            return [f"{name} names {other}, not the head"]
    return []


def _names(words: str, part: str) -> bool:
    """A short part as a word of its own: a leg is in every college."""
    pattern = part if len(part) > SHORT else f"(?<![A-Z]){part}S?(?![A-Z])"
    return re.search(pattern, words) is not None


def _doubt_pixels(series: Series) -> list[str]:
    """By the slice whose body is largest among nine: its size, its bone and its brain."""
    from scipy import ndimage

    if series.hu_range:  # no air and no bone to be seen in such pictures
        return []
    step = 1 + max(series.stored.shape[1:]) // 256  # a body is not told from a table by less
    best: tuple[int, np.ndarray, np.ndarray] | None = None
    for i in np.unique(np.linspace(0, len(series) - 1, 9).round().astype(int)):
        hu = series.hu(slice(i, i + 1))[0, ::step, ::step]
        labels, count = ndimage.label(hu > SKIN_HU)
        if not count:
            continue
        sizes = np.bincount(labels.ravel())[1:]
        if best is None or sizes.max() > best[0]:
            best = int(sizes.max()), labels == 1 + int(sizes.argmax()), hu
    if best is None:
        return ["no slice shows a body"]
    _, body, hu = best
    inside = ndimage.binary_fill_holes(body)
    bone = float((hu[inside] > BONE_HU).mean())
    brain = float(((hu[inside] > BRAIN_HU[0]) & (hu[inside] < BRAIN_HU[1])).mean())
    doubts = []
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    length, width = (
        float(np.ptp(found) + 1) * step * spacing
        for found, spacing in zip((rows, columns), series.spacing, strict=True)
    )
    if not np.isnan(series.spacing).any() and not (
        WIDTH_MM[0] <= width <= WIDTH_MM[1] and LENGTH_MM[0] <= length <= LENGTH_MM[1]
    ):
        doubts.append(
            f"the body measures {width:.0f} by {length:.0f} mm, a head {WIDTH_MM[0]:.0f} to "
            f"{WIDTH_MM[1]:.0f} by {LENGTH_MM[0]:.0f} to {LENGTH_MM[1]:.0f}"
        )
    if bone < BONE_SHARE:
        doubts.append(
            f"{bone:.0%} of the largest slice is bone, of a head at least {BONE_SHARE:.0%}"
        )
    if brain < BRAIN_SHARE:
        doubts.append(
            f"{brain:.0%} of the largest slice is between 0 and 80 HU, of a head at least "
            f"{BRAIN_SHARE:.0%}"
        )
    return doubts


def _is_enhanced(description: str) -> bool:
    text = description.upper().replace("NO CONTRAST", "W/O")
    words = set(re.split(r"[\s,;()_]+", text))
    return not words & WITHOUT_AGENT and bool(words & WITH_AGENT)
