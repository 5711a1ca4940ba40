"""What is a CT image in Hounsfield units by what its header says: one table for every reader.

Image Type (PS3.3 C.8.2.1.1.1; in enhanced files Frame Type, C.8.16.1 and C.8.15.2.1.1), Rescale
Type (C.11.1.1.2), Pixel Presentation (C.8.16.2.1.1), the units of a real-world value mapping
(C.7.6.16.2.11), and the SOP class.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from pydicom import Dataset, config
from pydicom.uid import UID

from ichfast.data.problems import Refused

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
NON_IMAGES = {"1.3.12.2.1107.5.9.1"}  # Siemens CSA Non-Image, which says that it is CT

# What is calculated from pictures and is none in HU, whichever value of Image Type from the third
# on says so, alone or among others ("CT_SOM5 SUB"). Terms of the standard come first in each line.
_CALCULATED = (
    "ADDITION", "DIVISION", "MULTIPLICATION", "STD_DEVIATION", "QUANTITY", "T_TEST", "Z_SCORE",
    "SUBTRACTION", "SUBTRACTED", "SUB", "DSA", "DIFFERENCE", "RATIO", "VARIANCE", "STDDEV",
    "RCBF", "RCBV", "MTT", "TTP", "KTRANS", "CBF", "CBV", "RMTT", "RTTP", "TMAX", "TTD", "TTS",
    "TTM", "PBV", "PBF", "PERM", "PERMEABILITY", "PERFUSION_MAP", "PENUMBRA",
    "TISSUE_CLASSIFICATION", "MAT", "EFF_ATOMIC_NUM", "ELECTRON_DENSITY", "ENERGY_PROP_WT",
    "IODINE", "IODINE_MAP", "CALCIUM", "ZEFF", "Z_EFF", "EFF_Z", "RHO", "RHO_Z", "RHOZ", "EDW",
    "OVERLAY", "FUSED", "FUSION", "RGB", "COLOR", "COLOUR", "SEGMENTATION", "LABELMAP",
    "LABEL", "MASK", "PROBABILITY", "VRT", "SSD", "RENDERED", "RENDERING", "PROT", "REPORT",
    "DOSE_REPORT", "DOSE_INFO", "SCREEN_SAVE", "SCREENSAVE", "SCREEN_SHOT", "SCREENSHOT",
    "SCREEN_CAPTURE", "SCREENCAPTURE",
)  # fmt: skip
_IS_CALCULATED = re.compile("_(" + "|".join(_CALCULATED) + ")_")
_IS_LOCALIZER = re.compile("LOCALI[SZ]ER|_(SCOUT|TOPOGRAM|SURVIEW|SCANOGRAM)_")
# Derived from a series over time, and yet pictures in HU.
_OVER_TIME = {"NONE", "MAXIMUM", "MEAN", "MINIMUM", "AVERAGE", "RESAMPLED", "FILTERED", "MIP"}

# Letters alone. HU_MOD is HU after metal artefact reduction; US, "unspecified", is what careless
# writers put.
_IS_HU = re.compile(r"HU(MOD)?|HOU?N[DS]*FIE?LDS?(UNITS?)?(HU)?")
_UNSPECIFIED = "US"
_OTHER_RESCALES = {"OD", "MGML", "PCT", "ZEFF", "ED", "EDW"}

_HU_UNITS = {"[hnsf'u]", "hnsf'u", "[hu]", "hu"}  # UCUM, in lower case


class Reason(NamedTuple):
    text: str
    skip: bool = True


def refuse(reason: Reason | None) -> None:
    """Raise it, if there is one."""
    if reason is not None:
        raise Refused(reason.text, skip=reason.skip)


@lru_cache(maxsize=256)
def judge_words(image_type: bytes, rescale_type: bytes, presentation: bytes) -> Reason | None:
    """Why a picture with these values is none in HU; None: they say nothing against it."""
    values = [_to_words(value) for value in image_type.split(b"\\")]
    for value in values[2:]:
        if _IS_LOCALIZER.search(value):
            return Reason("localizer")
        if found := _IS_CALCULATED.search(value):
            return Reason(f"calculated and not in HU (image type {found[1]})")
    words = {value.strip("_") for value in values[2:]}
    of_perfusion = any("_PERFUSION_" in value for value in values[2:])
    if of_perfusion and values[0] == "_DERIVED_" and not words & _OVER_TIME:
        return Reason("calculated and not in HU (image type PERFUSION)")
    if _to_text(presentation) not in ("", "MONOCHROME"):
        return Reason("colours and not HU (PixelPresentation)")
    return _judge_rescale_type(_to_text(rescale_type))


def _judge_rescale_type(text: str) -> Reason | None:
    letters = re.sub("[^A-Z]", "", text)
    if text in ("", _UNSPECIFIED) or _IS_HU.fullmatch(letters):
        return None
    if letters in _OTHER_RESCALES:
        return Reason("RescaleType is not HU (a dual-energy map?)")
    return Reason("RescaleType is neither HU nor another of the standard's units", skip=False)


def judge_frame_rescale(rescale_type: bytes, original: bool) -> Reason | None:
    """Of an Enhanced CT, whose writers must say HU where it is HU."""
    if _to_text(rescale_type) != _UNSPECIFIED:
        return None
    if original:
        return Reason("RescaleType is unspecified, of an original picture", skip=False)
    return Reason("RescaleType is not HU, of a derived picture")


def judge_units(mappings: Iterable[Dataset]) -> Reason | None:
    """By the items of Real World Value Mapping Sequences: several units may be given for the same
    pixels.
    """
    codes = [
        str(unit.get("CodeValue", "")).strip().lower()
        for mapping in mappings
        for unit in mapping.get("MeasurementUnitsCodeSequence") or ()
    ]
    if codes and not _HU_UNITS.intersection(codes):
        return Reason("not in HU (the units of its real-world values)")
    return None


def judge_class(sop_class: str, modality: str, is_image: bool) -> Reason | None:
    """Enhanced CT is not asked about here. Files without a class are judged by their modality."""
    if modality not in ("", "CT"):
        return Reason("not a CT image (Modality)")
    if sop_class in (CT_IMAGE, ""):
        return None if modality else Reason("Modality is missing", skip=False)
    uid = UID(sop_class, validation_mode=config.IGNORE)  # else it warns, and quotes the file
    known = uid.name != sop_class  # in the standard's dictionary
    if known or sop_class in NON_IMAGES or not is_image:
        return Reason("not a CT Image (SOP class)")
    return Reason("SOP class is not known, so what its pixels mean is not, either", skip=False)


def _to_text(raw: bytes) -> str:
    return raw.decode("latin-1").strip(" \0").upper()


def _to_words(raw: bytes) -> str:
    """Between and around the words are underscores."""
    return "_" + re.sub("[^A-Z0-9]+", "_", _to_text(raw)).strip("_") + "_"
