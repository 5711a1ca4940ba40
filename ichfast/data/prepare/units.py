"""What one task reads: a set is listed as units, in its own order, without decoding a pixel."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from ichfast.data.files import find_files, relative, slice_name
from ichfast.data.layouts import Layout
from ichfast.data.problems import Problems, Refused
from ichfast.data.series import Series
from ichfast.errors import DataError

Map = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]  # as the built-in, in order
READERS = {  # of layouts that are listed by scan; loaded by who needs them
    "ct-ich": "ichfast.data.ct_ich",
    "ct-ich-jpeg": "ichfast.data.ct_ich_jpeg",
    "nifti": "ichfast.data.nifti_folder",
}
HEADERS = 256  # files of one task of the first pass


@dataclass(frozen=True)
class Unit:
    """The files of a DICOM series, or a scan of another layout by its name."""

    name: str
    files: tuple[str, ...] = ()  # relative to the root
    labels: tuple[int, ...] = ()  # RSNA's bits, one for each file
    slices: int = 0  # whole ones in the files; 0 of a scan by its name


def list_units(
    root: Path,
    layout: Layout,
    problems: Problems,
    run: Map,
    *,
    positive: bool,
    limit: int | None,
    seed: int,
) -> list[Unit]:
    if layout in READERS:
        scans: dict[str, int] = import_module(READERS[layout]).list_scans(root)
        problems.expect(sum(scans.values()))
        return [Unit(name) for name in scans]
    if layout == "rsna":
        from ichfast.data.rsna import list_images

        images, labels = list_images(root, problems, positive=positive)
        files = [relative(path, root) for path in images]
        # Before their headers are read, since the published set has three quarters of a million.
        files = choose(files, limit, seed)
        return _by_series(root, files, problems, run, limit, seed, labels)
    files = [relative(path, root) for path in find_files(root, problems)]
    return _by_series(root, files, problems, run, limit, seed)


def read_unit(root: Path, layout: Layout, unit: Unit, problems: Problems) -> Iterator[Series]:
    if layout in READERS:
        series: Iterator[Series] = import_module(READERS[layout]).read_scan(
            root, unit.name, problems
        )
        return series
    from ichfast.data.stacks import read_stacks

    stacks = read_stacks(root, problems, [root / name for name in unit.files])
    if layout != "rsna":
        return stacks
    from ichfast.data.rsna import with_labels

    labels = {Path(n).stem: bits for n, bits in zip(unit.files, unit.labels, strict=True)}
    return (with_labels(one, labels) for one in stacks)


def choose(sources: Sequence[str], limit: int | None, seed: int) -> list[str]:
    """A seeded uniform choice of `limit`, in their order. By a hash of each name, so that it is the
    same however the sources were come by.
    """
    if limit is None or limit >= len(sources):
        return list(sources)
    chosen = set(heapq.nsmallest(limit, sources, key=partial(_shuffle, seed)))
    return [source for source in sources if source in chosen]


def _shuffle(seed: int, source: str) -> bytes:
    return hashlib.sha256(f"{seed}:{source}".encode("utf-8", "surrogatepass")).digest()


def _by_series(
    root: Path,
    files: list[str],
    problems: Problems,
    run: Map,
    limit: int | None,
    seed: int,
    labels: dict[str, int] | None = None,
) -> list[Unit]:
    """A unit for each SeriesInstanceUID among the files that are axial CT."""
    problems.expect(len(files))
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
        raise DataError(f"{root}: nothing could be read: {problems.summary()}")
    chosen = set(choose(list(series), limit, seed))
    files_chosen = {name for source, (_, name, _) in series.items() if source in chosen}
    grouped: dict[str, Counter[str]] = {}  # files with their slices
    for uid, name, whole in series.values():
        names = grouped.setdefault(uid, Counter())  # the order of the whole set, whatever is chosen
        if name in files_chosen:
            names[name] += whole
    return [
        Unit(
            uid,
            tuple(names),
            tuple(labels.get(Path(n).stem, 0) for n in names) if labels else (),
            names.total(),
        )
        for uid, names in grouped.items()
        if names
    ]


# Of each slice in a file its name, and why it is refused, or its series and whether it is whole.
_Slices = list[tuple[str, Refused | tuple[str, bool]]]


def _read_headers(root: Path, names: Sequence[str]) -> list[_Slices]:
    """Of each file. One that is refused as a whole has one slice with its own name."""
    from ichfast.data.enhanced import Picture, read_pictures
    from ichfast.data.headers import cut_short
    from ichfast.data.stacks import usable

    results: list[_Slices] = []
    for name in names:
        path = root / name
        try:
            pictures = read_pictures(path)
        except Refused as refused:
            pictures = [Picture(0, refused)]
        found: _Slices = []
        for picture in pictures:
            source = slice_name(name, picture.number)
            try:
                header, _ = usable(picture)  # refuses what is not axial
                whole = picture.number > 0 or not cut_short(header, path)
                found.append((source, (header.series, whole)))
            except Refused as refused:
                found.append((source, refused))
        results.append(found)
    return results
