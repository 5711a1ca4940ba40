"""``summary.csv`` and ``index.html``: every scan at a glance, and all that was left out."""

import csv
import io
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from ichfast.data.problems import Problem
from ichfast.files import write_whole
from ichfast.inference.inputs import describe_problems
from ichfast.inference.result import COLUMNS, REPORT, RESEARCH_ONLY
from ichfast.inference.state import DONE, Outcome, Settings

SUMMARY, INDEX = "summary.csv", "index.html"
LISTED = 200
"""files that the page names one by one"""

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }}
body {{ max-width: 70rem; margin: 0 auto; padding: 1rem; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ padding: .35rem .75rem; text-align: left; border-bottom: 1px solid #8884; }}
td {{ overflow-wrap: anywhere; }}
.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
.note {{ border-left: .25rem solid #c60; padding: .25rem .75rem; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="note">{research}</p>
<p>{about}</p>
{sections}
</main>
</body>
</html>
"""


def write_summary(
    out: Path,
    outcomes: Sequence[Outcome],
    problems: Sequence[Problem],
    failures: Sequence[str],
    settings: Settings,
) -> None:
    """Both files, of everything that has been looked at so far."""
    page = make_page(outcomes, problems, failures, settings)
    for name, text in ((SUMMARY, make_csv(outcomes)), (INDEX, page)):
        # Names of files may hold bytes that are no text.
        write_whole(out / name, text.encode("utf-8", "backslashreplace"), lasting=False)


def make_csv(outcomes: Sequence[Outcome]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "status", "reason", *COLUMNS])
    for outcome in outcomes:
        cells = [outcome.numbers.get(column) for column in COLUMNS]
        writer.writerow(map(_guard, [outcome.name, outcome.status, outcome.reason, *cells]))
    return text.getvalue()


def _guard(cell: object) -> object:
    """Text that a spreadsheet would take for a formula, such as a patient's id may be, as text."""
    if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{cell}"
    return cell


def make_page(
    outcomes: Sequence[Outcome],
    problems: Sequence[Problem],
    failures: Sequence[str],
    settings: Settings,
) -> str:
    done = [outcome for outcome in outcomes if outcome.status == DONE]
    others = [outcome for outcome in outcomes if outcome.status != DONE]
    title = f"{len(done)} scan{'s' * (len(done) != 1)} segmented"
    about = f"Model: {settings.model}. Largest volumes first; a name opens the scan."
    sections = [_make_table(done)] if done else []
    if others or failures:
        lines = [f"{o.name}: {o.status}: {o.reason}" for o in others]
        sections.append(_make_list("Scans without a result", [*failures, *lines]))
    if problems:
        lines = describe_problems(problems, LISTED, anonymous=settings.anonymous)
        sections.append(_make_list("Files that are no slice of a scan", lines))
    return PAGE.format(
        title=escape(title),
        research=escape(RESEARCH_ONLY),
        about=escape(about),
        sections="\n".join(sections),
    )


def _make_table(done: Sequence[Outcome]) -> str:
    rows = sorted(done, key=_rank, reverse=True)
    lines = [f"<tr>{''.join(_make_cells(outcome))}</tr>" for outcome in rows]
    head = (
        "<tr><th scope='col'>scan</th><th scope='col' class='number'>volume</th>"
        "<th scope='col' class='number'>components</th><th scope='col' class='number'>slices</th>"
        "<th scope='col'>scan-level</th><th scope='col'>said about it</th></tr>"
    )
    body = "\n".join(lines)
    return f"<div class='table' tabindex='0'><table>{head}\n{body}\n</table></div>"


def _rank(outcome: Outcome) -> tuple[bool, float]:
    """By mL; those without after them, by pixels."""
    ml = outcome.numbers["volume_ml"]
    return ml is not None, outcome.numbers["pixels"] if ml is None else ml


def _make_cells(outcome: Outcome) -> Iterator[str]:
    numbers = outcome.numbers
    link = f"{outcome.name}/{REPORT}"
    yield f"<td><a href='{escape(link)}'>{escape(outcome.name)}</a></td>"
    yield f"<td class='number'>{escape(numbers['volume'])}</td>"
    yield f"<td class='number'>{numbers['components']}</td>"
    yield f"<td class='number'>{numbers['slices']}</td>"
    yield f"<td>{escape(numbers['scan'])}</td>"
    yield f"<td>{escape(numbers['warnings'])}</td>"


def _make_list(title: str, lines: Sequence[str]) -> str:
    items = "\n".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h2>{escape(title)}</h2>\n<ul>\n{items}\n</ul>"
