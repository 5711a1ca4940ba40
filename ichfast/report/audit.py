"""The page of an audit, its JSON, and how it ends."""

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ichfast.data.audit import DISAGREE, Options, audit
from ichfast.errors import OutputError
from ichfast.files import write_whole
from ichfast.report.page_template import load_template

SALT = "audit.salt"
FILES_SHOWN = 8  # per finding
SERIES_SHOWN = 100
BARS = 12


def write_audit(
    sets: Sequence[Path],
    out: Path,
    *,
    pixels: bool,
    identify: bool,
    lists: Sequence[Path],
    workers: int | None,
) -> int:
    """Audit the sets, write page and JSON, print what was found; return the exit status."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        salt = b"" if identify else _read_salt(out / SALT)
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror}. Choose another folder with --out.") from None
    options = Options(
        pixels=pixels,
        identify=identify,
        workers=workers,
        lists=tuple(lists),
        salt=salt,
        leave=out,
    )
    found = audit(sets, options)
    trouble = find_troubles(found)
    fix = "Make room or choose another folder with --out."
    text = json.dumps(found, indent=1) + "\n"
    for name, content in (("audit.json", text), ("audit.html", render(found))):
        write_whole(out / name, content.encode(), lasting=False, fix=fix)
    for part in found["sets"]:
        print(
            f"{part['name']}: {_count(part['files'], 'file')}, "
            f"{_count(part['slices'], 'CT slice')} in {_count(part['series'], 'series')} of "
            f"{_count(part['patients'], 'patient')}; "
            f"{part['refused']:,} refused, {part['left_out']:,} left out"
        )
    for listed in found["listed"]:
        print(f"{listed['list']}: {_count(listed['ids'], 'id')} read, {listed['present']:,} found")
    for line in [*trouble, *_list_oddities(found)]:
        print(line)
    print(f"report: {out / 'audit.html'}")
    return 1 if trouble else 0


def find_troubles(found: dict[str, Any]) -> list[str]:
    """What needs attention before training, one sentence each."""
    lines = []
    for part in found["sets"]:
        if part["refused"]:
            lines.append(f"{part['name']}: {_count(part['refused'], 'file')} cannot be read")
        if not part["slices"]:
            lines.append(f"{part['name']}: no CT slice")
    for finding in found["findings"]:
        if finding["name"] == DISAGREE:
            lines.append(f"installed decoders disagree on {_count(finding['files'], 'file')}")
    for pair in found["shared"]:
        shared = [
            _count(len(pair[kind]), kind) for kind in ("patient", "study", "series") if pair[kind]
        ]
        if shared:
            lines.append(f"{' and '.join(pair['sets'])} share {', '.join(shared)}")
    if several := len(found["studies_of_several_patients"]):
        lines.append(f"{_count(several, 'study')} under more than one patient's id")
    for listed in found["listed"]:
        if listed["present"]:
            lines.append(
                f"{_count(listed['present'], 'id')} of {listed['list']} in the data, which should "
                "be left out"
            )
    if found["identical"] and (across := found["identical"]["groups_across_sets"]):
        lines.append(f"{_count(across, 'picture')} in more than one set")
    return lines


def _list_oddities(found: dict[str, Any]) -> list[str]:
    lines = []
    for finding in found["findings"]:
        counts = [_count(finding["files"], "file")] if finding["files"] else []
        if finding["possible"]:
            counts.append(f"possible in {_count(finding['possible'], 'file')}")
        lines.append(f"  {finding['name']}: {', '.join(counts)}")
    for name, number in found["series_findings"].items():
        lines.append(f"  {name}: {_count(number, 'series')}")
    return lines


def _count(number: int, what: str) -> str:
    plural = {"study": "studies", "series": "series"}.get(what, f"{what}s")
    return f"{number:,} {what if number == 1 else plural}"


def _read_salt(path: Path) -> bytes:
    """The secret behind the pseudonyms; kept, so that the same folder keeps the same ones."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(16))
    except FileExistsError:
        pass
    salt = path.read_bytes().strip()
    if not 16 <= len(salt) <= 64:
        raise OutputError(f"{path} is not the salt of an audit. Delete it to make new pseudonyms.")
    return salt


def render(found: dict[str, Any]) -> str:
    by_kind = {
        kind: [finding for finding in found["findings"] if finding["kind"] == kind]
        for kind in ("refused", "decoders", "quirk", "left out")
    }
    odd = sorted(
        (one for one in found["series"] if one["found"] or one["quirks_of_files"]),
        key=lambda one: -len(one["found"]) - len(one["quirks_of_files"]),
    )
    return load_template("audit.html", many=_count).render(
        found=found,
        troubles=find_troubles(found),
        by_kind=by_kind,
        odd=odd,
        files_shown=FILES_SHOWN,
        series_shown=SERIES_SHOWN,
        spreads=[
            ("Between slices", "mm", "gaps", _make_bars(found["slice_spacing_mm"])),
            ("Pixel spacing", "mm", "series", _make_bars(found["pixel_spacing_mm"])),
            ("Tilt", "°", "series", _make_bars(found["tilt_degrees"])),
        ],
    )


def _make_bars(spread: list[list[float]]) -> list[tuple[str, int, float]]:
    """Label, number and length in per cent; neighbours are merged where there are many."""
    values = [value for value, _ in spread]
    if len(spread) > BARS:
        low, high = values[0], values[-1]
        step = (high - low) / BARS
        groups = [[low + i * step, low + (i + 1) * step, 0.0] for i in range(BARS)]
        for value, number in spread:
            groups[min(int((value - low) / step), BARS - 1)][2] += number
        rows = [(f"{a:.4g} – {b:.4g}", int(number)) for a, b, number in groups]
    else:
        rows = [(f"{value:g}", int(number)) for value, number in spread]
    most = max((number for _, number in rows), default=1)
    return [(label, number, round(100 * number / most, 1)) for label, number in rows]
