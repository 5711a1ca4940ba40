"""Folders and tables on disk; errors name what cannot be listed or opened."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ichfast.data.problems import Problems
from ichfast.errors import DataError


def list_folder(folder: Path) -> list[Path]:
    """Its entries by name, without hidden ones (half-written files, a desktop's notes)."""
    try:
        names = sorted(os.listdir(folder))  # faster than paths are
    except FileNotFoundError:
        raise DataError(f"{folder}: no such folder; check how it is spelt") from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from None
    return [folder / name for name in names if not name.startswith(".")]


def list_by_name(folder: Path) -> dict[str, Path]:
    """The same by their names in lower case."""
    return {path.name.lower(): path for path in list_folder(folder)}


NIFTI = (".nii", ".nii.gz")


def list_volumes(folder: Path | None) -> dict[str, Path]:
    """The folder's NIfTI files by their names without the suffix. Of a.nii and a.nii.gz the latter:
    `report_twins` says so.
    """
    found = _list_nifti(folder)
    return {strip_suffix(path): path for path in found}


def report_twins(root: Path, folders: Iterable[Path | None], problems: Problems) -> None:
    """Name the NIfTI files that `list_volumes` leaves out of these folders."""
    for folder in folders:
        taken = list_volumes(folder)
        for path in _list_nifti(folder):
            if taken[strip_suffix(path)] != path:
                reason = "left out, since the .nii.gz of the same name beside it is read"
                problems.skip(name_source(path, root), reason)


def _list_nifti(folder: Path | None) -> list[Path]:
    if folder is None or not folder.is_dir():
        return []
    return [path for path in list_folder(folder) if path.name.lower().endswith(NIFTI)]


def strip_suffix(path: Path) -> str:
    """The name of a NIfTI file without .nii or .nii.gz."""
    return path.name[: path.name.lower().rindex(".nii")]


def find_files(root: Path, problems: Problems) -> list[Path]:
    """All regular files under the root, in an order that does not depend on the machine, also
    through links. The problems expect them, and hold what cannot be reached.
    """
    lost: list[tuple[str, str]] = []

    def report_failure(error: OSError) -> None:
        lost.append((error.filename, "folder cannot be listed"))

    def report_link(path: str, reason: str, is_lost: bool) -> None:
        if is_lost:
            lost.append((path, reason))
        else:
            problems.skip(name_source(Path(path), root), reason)

    found = [Path(path) for path in walk_files(str(root), report_failure, report_link)]
    problems.expect(len(found) + len(lost))
    for path, reason in lost:
        problems.add(name_source(Path(path), root), reason)
    return found


def walk_files(
    root: str,
    report_failure: Callable[[OSError], None] | None = None,
    report_link: Callable[[str, str, bool], None] | None = None,
) -> Iterator[str]:
    """Every regular file under the root that is not hidden, in the same order on every machine.

    Folders are walked first where they really lie, then through links to those that lie elsewhere.
    Each is walked once, so that links may form loops. `report_link` gets the path of a link that
    leads nowhere or to what is read anyway, the reason, and whether files may be lost by it.
    """

    def report(path: str, reason: str, lost: bool = False) -> None:
        if report_link is not None:
            report_link(path, reason, lost)

    seen: set[tuple[int, int]] = set()
    waiting = deque([root])
    while waiting:
        start = waiting.popleft()
        if start != root and _identify(start) in seen:
            report(start, "a link to a folder that is read by another name")
            continue
        for folder, folders, names in os.walk(start, onerror=report_failure):
            own = _identify(folder)
            if own in seen:  # where a link leads into the middle of what was walked
                folders.clear()
                continue
            seen.add(own)
            folders.sort()
            paths = {name: os.path.join(folder, name) for name in (*folders, *sorted(names))}
            links = [name for name in folders if os.path.islink(paths[name])]
            waiting += [paths[name] for name in links if not name.startswith(".")]
            for name in sorted(names):
                if name.startswith("."):
                    continue
                if os.path.isfile(paths[name]):  # no pipes
                    yield paths[name]
                elif os.path.islink(paths[name]):
                    report(paths[name], "a link that leads nowhere", True)


def _identify(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def name_source(path: Path, root: Path) -> str:
    """The file as it is named in a set: relative to the root, with slashes."""
    return path.relative_to(root).as_posix()


def name_slice(source: str, number: int) -> str:
    """The third slice of a file that holds several is "a.dcm#3". Number 0 stands for the slice of a
    file with one, which has the file's own name.
    """
    return f"{source}#{number}" if number else source
