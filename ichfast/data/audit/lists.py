"""Lists of ids that must not occur: one a line, or columns of a table. What cannot be understood is
refused: a list that is read wrongly finds nothing, and nothing found looks like no leak.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ichfast.data.names import split_names
from ichfast.data.texts import parse_whole, read_text
from ichfast.errors import DataError

DELIMITERS = ",;\t"
# Names of columns with ids, as PatientID, patient_id, "Series Instance UID" or File Name.
OWNERS = "patient|subject|case|study|series|scan|image|file|slice|sop|instance"
TITLE = re.compile(rf"(({OWNERS})s?)?(instance)?(ids?|uids?|number|names?)?")
SUFFIXES = re.compile(r"\.(dcm|nii\.gz|nii|jpe?g|png)$", re.I)


def read_list(path: Path) -> dict[str, str]:
    """Each id in a list, by every name that data may have for it: as it is, without a suffix of
    files, the ids that are parts of it, and a number that a table has as 49.0 as 49. DataError
    where the list holds no id, or is not understood."""
    lines = [line for line in read_text(path).split("\n") if line.strip()]
    lines = [line for line in lines if not line.lstrip().startswith("#")]
    delimiter = next((c for c in DELIMITERS if any(c in line for line in lines)), None)
    try:
        rows = list(csv.reader(lines, delimiter=delimiter or ",", skipinitialspace=True))
    except csv.Error as error:
        raise DataError(f"{path}: not a list of ids ({error}); give one per line") from None
    rows = [[cell.strip() for cell in row] for row in rows]
    cells = _pick_cells(path, rows)
    if "\ufffd" in "".join(cells):
        raise DataError(f"{path}: has ids that are no text; save it as UTF-8")
    ids = {name: cell for cell in cells if cell for name in _list_names(cell)}
    if not ids:
        raise DataError(f"{path}: holds no id; expected one per line")
    return ids


def _pick_cells(path: Path, rows: list[list[str]]) -> list[str]:
    """Those of the columns with ids. A single column needs no name, and may have one."""
    if not rows:
        return []
    if max(map(len, rows)) == 1 or all(not any(row[1:]) for row in rows):
        cells = [row[0] for row in rows]
        return cells[1:] if _is_title(cells[0]) and len(cells) > 1 else cells
    chosen = [place for place, name in enumerate(rows[0]) if _is_title(name)]
    if not chosen:
        raise DataError(
            f"{path}: has several columns, and its first line names none of them patient, study, "
            "series, file or id; give one id per line"
        )
    return [row[place] for row in rows[1:] for place in chosen if place < len(row)]


def _is_title(cell: str) -> bool:
    letters = re.sub(r"[\s_.-]", "", cell).lower()
    return bool(letters and TITLE.fullmatch(letters))


def _list_names(cell: str) -> Iterator[str]:
    yield from (cell, SUFFIXES.sub("", cell), PurePosixPath(cell).stem)
    yield from split_names([SUFFIXES.sub("", cell)])
    if re.fullmatch(r"\d+\.0*", cell):
        yield str(parse_whole(cell))
