"""Data sets: CT-ICH, RSNA, folders of NIfTI or DICOM -> scans, and slices for training."""

from ichfast.data.folds import (
    SCHEMES,
    Fold,
    check_apart,
    check_no_leak,
    make_folds,
    order_evenly,
    split_patients,
)
from ichfast.data.layouts import detect_layout, read_series
from ichfast.data.loading import find_layout, load_slices
from ichfast.data.pool import Pool
from ichfast.data.problems import Problems
from ichfast.data.sampling import shuffle
from ichfast.data.series import SUBTYPES, Series
from ichfast.data.slices import SliceSet, Warp
from ichfast.data.window import read_window

__all__ = [
    "SCHEMES",
    "SUBTYPES",
    "Fold",
    "Pool",
    "Problems",
    "Series",
    "SliceSet",
    "Warp",
    "check_apart",
    "check_no_leak",
    "detect_layout",
    "find_layout",
    "load_slices",
    "make_folds",
    "order_evenly",
    "read_series",
    "read_window",
    "shuffle",
    "split_patients",
]
