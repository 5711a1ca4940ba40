"""``summary.csv`` and ``index.html``: every scan at a glance, and all that was left out."""

import csv
import io
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
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
<style>{style}</style>
</head>
<body>
<header>
<p class="kicker">ichfast</p>
<h1>{title}</h1>
<p class="note">{research}</p>
<p>{about}</p>
</header>
<main>
{sections}
</main>
</body>
</html>
"""
STYLE = """\
h2 { margin: 2.4rem 0 .8rem; }
a { color: inherit; }
table { width: 100%; }
td.names { min-width: 8rem; overflow-wrap: anywhere; }
td.n { white-space: nowrap; }
.note {
  margin: 1rem 0; padding: .6rem .9rem; border-left: 4px solid var(--warn);
  background: var(--panel);
}
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
        style=(files("ichfast.report") / "common.css").read_text(encoding="utf-8") + STYLE,
        title=escape(title),
        research=escape(RESEARCH_ONLY),
        about=escape(about),
        sections="\n".join(sections),
    )


def _make_table(done: Sequence[Outcome]) -> str:
    rows = sorted(done, key=_rank, reverse=True)
    lines = [f"<tr>{''.join(_make_cells(outcome))}</tr>" for outcome in rows]
    head = (
        "<tr><th scope='col'>scan</th><th scope='col' class='n'>volume</th>"
        "<th scope='col' class='n'>components</th><th scope='col' class='n'>slices</th>"
        "<th scope='col'>scan-level</th><th scope='col'>said about it</th></tr>"
    )
    body = "\n".join(lines)
    return (
        "<div class='scroll' tabindex='0' role='group' aria-label='Wider than the page'>"
        f"<table><thead>{head}</thead>\n<tbody>{body}</tbody>\n</table></div>"
    )


def _rank(outcome: Outcome) -> tuple[bool, float]:
    """By mL; those without after them, by pixels."""
    ml = outcome.numbers["volume_ml"]
    return ml is not None, outcome.numbers["pixels"] if ml is None else ml


def _make_cells(outcome: Outcome) -> Iterator[str]:
    numbers = outcome.numbers
    link = f"{outcome.name}/{REPORT}"
    yield f"<td class='names'><a href='{escape(link)}'>{escape(outcome.name)}</a></td>"
    yield f"<td class='n'>{escape(numbers['volume'])}</td>"
    yield f"<td class='n'>{numbers['components']}</td>"
    yield f"<td class='n'>{numbers['slices']}</td>"
    yield f"<td>{escape(numbers['scan'])}</td>"
    yield f"<td class='names'>{escape(numbers['warnings'])}</td>"


def _make_list(title: str, lines: Sequence[str]) -> str:
    items = "\n".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h2>{escape(title)}</h2>\n<ul>\n{items}\n</ul>"
