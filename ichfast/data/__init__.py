"""Data sets: CT-ICH, RSNA and any folder of DICOM -> scans, and windowed slices for training."""

from ichfast.data.folds import check_no_leak, split_patients
from ichfast.data.layouts import detect_layout, read_series
from ichfast.data.pool import Pool
from ichfast.data.problems import Problems
from ichfast.data.series import SUBTYPES, Series
from ichfast.data.slices import SliceSet, load_slices

__all__ = [
    "SUBTYPES",
    "Pool",
    "Problems",
    "Series",
    "SliceSet",
    "check_no_leak",
    "detect_layout",
    "load_slices",
    "read_series",
    "split_patients",
]
