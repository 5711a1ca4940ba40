"""Data sets: CT-ICH, RSNA, folders of NIfTI or DICOM -> scans, and windowed slices for training."""

from ichfast.data.folds import Fold, check_apart, check_no_leak, make_folds, split_patients
from ichfast.data.layouts import detect_layout, read_series
from ichfast.data.pool import Pool
from ichfast.data.problems import Problems
from ichfast.data.series import SUBTYPES, Series
from ichfast.data.slices import SliceSet, load_slices

__all__ = [
    "SUBTYPES",
    "Fold",
    "Pool",
    "Problems",
    "Series",
    "SliceSet",
    "check_apart",
    "check_no_leak",
    "detect_layout",
    "load_slices",
    "make_folds",
    "read_series",
    "split_patients",
]
