"""Any folder with DICOM files in it, at any depth, and how a set of them is listed by series."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from ichfast.data.layouts.base import Layout, Map, Selection, Unit, refuse_empty
from ichfast.data.listing import find_files, name_slice, name_source, walk_files
from ichfast.data.problems import Problems, Refused
from ichfast.data.sampling import choose
from ichfast.data.series import Series
from ichfast.data.sniff import START, is_dicom

HEADERS = 256  # files whose headers a worker reads at a time


class DicomFolder(Layout):
    name = "dicom"
    signs = "DICOM files at any depth"
    has_masks = False
    has_labels = False

    def detect_files(self, root: Path) -> bool:
        return any(map(_is_dicom_file, walk_files(str(root))))

    def _read(
        self, root: Path, problems: Problems, selection: Selection, progress: bool
    ) -> Iterator[Series]:
        from ichfast.data.stacks import read_stacks  # pydicom is loaded only where it is needed

        return read_stacks(root, problems, progress=progress)

    def list_units(
        self, root: Path, problems: Problems, run: Map, selection: Selection
    ) -> list[Unit]:
        files = [name_source(path, root) for path in find_files(root, problems)]
        return list_series(root, files, problems, run, selection)

    def read_unit(
        self, root: Path, unit: Unit, problems: Problems, *, with_masks: bool = True
    ) -> Iterator[Series]:
        from ichfast.data.stacks import read_stacks

        return read_stacks(root, problems, [root / name for name in unit.files])


def _is_dicom_file(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return is_dicom(file.read(START))
    except OSError:
        return False


def list_series(
    root: Path, files: list[str], problems: Problems, run: Map, selection: Selection
) -> list[Unit]:
    """A unit for each SeriesInstanceUID among the files that are axial CT, with the files in which
    the selection has slices. The caller has told the problems how many files to expect.
    """
    chunks = [files[start : start + HEADERS] for start in range(0, len(files), HEADERS)]
    series: dict[str, tuple[str, str, bool]] = {}  # by slice: UID, file, and whether it is whole
    for chunk, results in zip(chunks, run(partial(_read_headers, root), chunks), strict=True):
        for name, found in zip(chunk, results, strict=True):
            problems.expect(len(found) - 1)
            for source, result in found:
                if isinstance(result, Refused):
                    problems.record(source, result)
                else:
                    uid, whole = result
                    series[source] = uid, name, whole
    if not series:
        refuse_empty(root, problems)
    chosen = set(choose(list(series), selection.limit, selection.seed))
    files_chosen = {name for source, (_, name, _) in series.items() if source in chosen}
    grouped: dict[str, Counter[str]] = {}  # files with their slices
    for uid, name, whole in series.values():
        names = grouped.setdefault(uid, Counter())  # the order of the whole set, whatever is chosen
        if name in files_chosen:
            names[name] += whole
    return [
        Unit(uid, tuple(names), slices=names.total()) for uid, names in grouped.items() if names
    ]


# Of each slice in a file its name, and why it is refused, or its series and whether it is whole.
_Slices = list[tuple[str, Refused | tuple[str, bool]]]


def _read_headers(root: Path, names: Sequence[str]) -> list[_Slices]:
    """Of each file. One that is refused as a whole has one slice with its own name."""
    from ichfast.data.enhanced import Picture, read_pictures
    from ichfast.data.headers import is_cut_short
    from ichfast.data.stacks import name_series, require_axial

    results: list[_Slices] = []
    for name in names:
        path = root / name
        try:
            pictures = read_pictures(path)
        except Refused as refused:
            pictures = [Picture(0, refused)]
        found: _Slices = []
        for picture in pictures:
            source = name_slice(name, picture.number)
            try:
                header, _ = require_axial(picture)
                whole = picture.number > 0 or not is_cut_short(header, path)
                found.append((source, (name_series(header, name), whole)))
            except Refused as refused:
                found.append((source, refused))
        results.append(found)
    return results
