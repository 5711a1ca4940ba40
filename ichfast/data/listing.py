"""Folders and tables on disk; errors name what cannot be listed or opened."""

import os
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
    """The folder's NIfTI files by their names without the suffix."""
    if folder is None or not folder.is_dir():
        return {}
    found = (path for path in list_folder(folder) if path.name.lower().endswith(NIFTI))
    return {path.name[: path.name.lower().rindex(".nii")]: path for path in found}


def find_files(root: Path, problems: Problems) -> list[Path]:
    """All regular files under the root, in an order that does not depend on the machine."""

    def report(error: OSError) -> None:
        problems.add(name_source(Path(error.filename), root), "folder cannot be listed")

    found = []
    for folder, folders, names in os.walk(root, onerror=report):
        folders.sort()
        paths = (Path(folder, name) for name in sorted(names) if not name.startswith("."))
        found += [path for path in paths if os.path.isfile(path)]  # no pipes, no broken links
    return found


def name_source(path: Path, root: Path) -> str:
    """The file as it is named in a set: relative to the root, with slashes."""
    return path.relative_to(root).as_posix()


def name_slice(source: str, number: int) -> str:
    """The third slice of a file that holds several is "a.dcm#3". Number 0 stands for the slice of a
    file with one, which has the file's own name.
    """
    return f"{source}#{number}" if number else source
