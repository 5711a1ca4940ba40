"""The layouts of data sets that ichfast reads, one object each, and the one way in to all of them.

A new layout is a module with a `Layout` in it, and its line in LAYOUTS.
"""

from collections.abc import Iterator
from pathlib import Path

from ichfast.data.layouts.base import Layout, ScanLayout
from ichfast.data.layouts.ct_ich import CtIch
from ichfast.data.layouts.ct_ich_jpeg import CtIchJpeg
from ichfast.data.layouts.dicom_folder import DicomFolder
from ichfast.data.layouts.nifti_folder import NiftiFolder
from ichfast.data.layouts.rsna import Rsna
from ichfast.data.listing import list_by_name
from ichfast.data.problems import Problems
from ichfast.data.series import Series
from ichfast.errors import DataError

# In the order in which they are tried: first all by the names in the folder, then all by its files.
LAYOUTS: tuple[Layout, ...] = (
    CtIch(),
    CtIchJpeg(),
    Rsna(),
    DicomFolder(),
    NiftiFolder(),
)


def get_layout(name: str, root: Path) -> Layout:
    """The layout of this name, which the pool or plan at `root` holds."""
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise DataError(
        f"{root}: made from the layout {name!r}, which this ichfast does not have (it has "
        f"{known}); use the one that made it"
    )


def detect_layout(root: Path) -> Layout:
    """The layout of the data set in this folder; DataError where there is none."""
    root = Path(root)
    layout = _detect_by_names(root)
    if layout is not None:
        return layout
    folders = {name: path for name, path in list_by_name(root).items() if path.is_dir()}
    if {"labelled", "unlabelled"} <= folders.keys():
        raise DataError(f"{root}: holds two sets; give its folder labelled or unlabelled")
    for folder in folders.values():
        inner = _detect_by_names(folder)
        if inner is not None:
            raise DataError(
                f"{root}: its folder {folder.name} is a set ({inner.name}); give that one"
            )
    for layout in LAYOUTS:
        if layout.detect_files(root):
            return layout
    signs = "; ".join(layout.signs for layout in LAYOUTS)
    raise DataError(f"{root}: no data set found. Looked for {signs}")


def _detect_by_names(folder: Path) -> Layout | None:
    entries = list_by_name(folder)
    return next((layout for layout in LAYOUTS if layout.detect(folder, entries)), None)


def find_scan_layout(root: Path) -> ScanLayout | None:
    """The layout of this folder, where it is one of named scans."""
    try:
        layout = detect_layout(root)
    except DataError:
        return None
    return layout if isinstance(layout, ScanLayout) else None


def find_format(name: str) -> str | None:
    """The format of a file by its name, where it is one that some layout reads beside DICOM."""
    return next((kind for layout in LAYOUTS if (kind := layout.find_format(name))), None)


def read_series(root: Path, problems: Problems, *, progress: bool = False) -> Iterator[Series]:
    """Every scan of the set, one at a time. Bad files go into the problems and the rest is read;
    DataError when there are too many, or when nothing at all could be read.
    """
    root = Path(root)
    return detect_layout(root).read(root, problems, progress=progress)
