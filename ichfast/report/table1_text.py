"""The table in Markdown: what a repository keeps of it, beside the JSON."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ichfast.report.page import format_score
from ichfast.report.page_template import NO_NUMBER
from ichfast.report.table1_words import format_difference, format_interval, format_probability

SCORES = {
    "dice.pooled": "Dice, blood",
    "dice.all": "all slices",
    "dice.per_patient": "per patient",
    "dice.volume": "per patient, all slices",
    "auc.slices": "AUC, slices",
    "auc.scans": "AUC, scans",
    "operating.scans": "specificity at 0.9, scans",
}
"""scores and their columns"""
DIFFERENCES = {"dice.pooled": "less {}, blood", "dice.all": "less {}, all slices"}


def format_text(result: Mapping[str, Any]) -> str:
    lines = [
        f"# Table 1, preset {result['preset']}",
        "",
        f"{result['cells']['ended']} of {result['cells']['planned']} runs; {result['patients']} "
        f"labelled patients, {result['unlabelled_slices']} slices of the unlabelled set, "
        f"{result['seeds']} seed{'s' * (result['seeds'] > 1)}. In brackets: 95 % by resampling the "
        "patients.",
    ]
    if result["primary"]:
        lines += ["", "## What was to be shown", "", *_list_comparisons(result)]
    for protocol in result["protocols"]:
        lines += ["", f"## {protocol['label']}", "", protocol["about"]]
        for scheme in protocol["schemes"]:
            lines += ["", *_list_rows(protocol, scheme, result["baseline"])]
    return "\n".join(lines) + "\n"


def _list_comparisons(result: Mapping[str, Any]) -> Iterator[str]:
    primary = result["primary"]
    yield (
        f"Chosen beforehand: {primary['row']} less {primary['other']}, protocol "
        f"{primary['protocol']}, {primary['scheme']} % labelled, by {primary['score']}. The "
        f"others are corrected by Holm, for all {len(result['secondary'])} of them."
    )
    yield ""
    yield from _head(["comparison", "pairs", "difference", "of each seed", "p", "Holm"])
    for one in (primary, *result["secondary"]):
        found = one["difference"]
        what = f"{one['row']} less {one['other']}, {one['protocol']}, {one['scheme']} %"
        yield _line(
            [
                f"**{what}**" if one is primary else what,
                f"{one['pairs']} of {one['planned']}",
                _subtract(found),
                ", ".join(map(format_difference, one["by_seed"])),
                format_probability(found and found["p"]),
                format_probability(one["holm"]),
            ]
        )


def _list_rows(protocol: Mapping[str, Any], scheme: str, baseline: str) -> Iterator[str]:
    against = [text.format(baseline) for text in DIFFERENCES.values()]
    printed = ["paper"] if protocol["printed"] else []
    yield from _head([f"{scheme} % labelled", "runs", *printed, *SCORES.values(), *against])
    for row in protocol["rows"]:
        entry = row["schemes"][scheme]
        if not entry["planned"]:
            continue
        pair = row["differences"][scheme].get(baseline)
        scores = entry["scores"] or {}
        paper = row["paper"][scheme]
        yield _line(
            [
                row["name"],
                f"{entry['ended']} of {entry['planned']}"
                + f", {entry['diverged']} diverged" * bool(entry["diverged"]),
                *([_spell(paper)] if protocol["printed"] else []),
                *(_score(scores.get(name)) for name in SCORES),
                *(_subtract(pair and pair["scores"][name]) for name in DIFFERENCES),
            ]
        )


def _head(names: Sequence[str]) -> list[str]:
    return [_line(names), "|" + "---|" * len(names)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _score(one: Mapping[str, Any] | None) -> str:
    if one is None or one["estimate"] is None:
        return NO_NUMBER
    interval = format_interval(one)
    return format_score(one["estimate"]) + f" [{interval}]" * bool(interval)


def _subtract(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return NO_NUMBER
    text = format_difference(one["estimate"])
    if one["low"] is None:
        return text
    return f"{text} [{format_difference(one['low'])} to {format_difference(one['high'])}]"


def _spell(paper: Any) -> str:
    """What the paper has printed."""
    if paper is None:
        return NO_NUMBER
    return paper if isinstance(paper, str) else f"{paper[0]:.2f}"
