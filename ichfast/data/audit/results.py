"""From the tally to the findings: plain numbers and strings for the JSON and the page."""

import base64
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from math import isfinite
from typing import Any

import numpy as np

from ichfast.data import quirks
from ichfast.data.acquisitions import are_interleaved
from ichfast.data.audit.look import find_quirks, make_unread
from ichfast.data.audit.tally import NAMED, SeriesTally, Tally, make_word_pattern
from ichfast.data.grid import SAME_POSITION_MM
from ichfast.data.names import find_shared, split_names
from ichfast.data.plausible import judge
from ichfast.data.problems import Refused, make_printable
from ichfast.data.series import Series

FORMAT = "ichfast-audit"
VERSION = 1
MISSING = "missing slices"
SINGLE = "single slice"
RUNS = 6  # different spacings that are listed per series


class Pseudonyms:
    """Ids as pseudonyms, or as they are with `identify`. Only the salt reproduces a pseudonym, so
    trying all hospital numbers tells nothing to anyone who has the report alone.
    """

    def __init__(self, salt: bytes, identify: bool, telling: Mapping[str, str]):
        self.salt = salt
        self.identify = identify
        self.pieces = {
            piece: make_word_pattern(patient).sub(self.hide("patient", patient), piece)
            for piece, patient in telling.items()
        }

    def hide(self, kind: str, text: str) -> str:
        if self.identify or not text:
            return make_printable(text)
        secret = f"{kind}:{text}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(secret, key=self.salt, digest_size=5).digest()
        return f"{kind}-{base64.b32encode(digest).decode().lower()}"

    def hide_in_path(self, source: str) -> str:
        if self.pieces and not self.identify:
            source = "/".join(self.pieces.get(piece, piece) for piece in source.split("/"))
        return make_printable(source)


def summarise(
    tally: Tally,
    sets: Sequence[str],
    lists: Mapping[str, Mapping[str, str]],
    pixels: bool,
    identify: bool,
    salt: bytes,
) -> dict[str, Any]:
    pseudonyms = Pseudonyms(salt, identify, tally.telling)
    scans = [scan for own in tally.scans.values() for scan in own]
    odd = {id(scan): _judge(scan, tally) for scan in scans}
    series = [
        _describe_series(scan, len(own), odd[id(scan)], pseudonyms, sets)
        for own in tally.scans.values()
        for scan in own
    ]
    return {
        "format": FORMAT,
        "version": VERSION,
        "pixels_read": pixels,
        "identified": identify,
        "sets": [_describe_set(part, name, tally, scans) for part, name in enumerate(sets)],
        "shared": _find_shared(scans, sets, pseudonyms),
        "studies_of_several_patients": _find_studies_of_several_patients(scans, pseudonyms),
        "listed": [
            _find_listed(name, ids, tally, scans, sets, pseudonyms) for name, ids in lists.items()
        ],
        "identical": _find_identical(tally, sets, pseudonyms) if pixels else None,
        "findings": _list_findings(tally, sets, pseudonyms),
        "series_findings": dict(
            _sort_by_count(Counter(name for one in series for name in one["found"]))
        ),
        "slice_spacing_mm": _count_values(
            np.round(gap, 3) for s in scans for gap in _measure_gaps(s)
        ),
        "pixel_spacing_mm": _count_values(
            round(x, 4) for s in scans for x in sorted(set(s.about.spacing)) if isfinite(x)
        ),
        "tilt_degrees": _count_values(one["tilt"] for one in series),
        "series": series,
    }


def _sort_by_count(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _count_values(values: Iterable[float]) -> list[list[float]]:
    """[value, count], by value."""
    return [[value, count] for value, count in sorted(Counter(map(float, values)).items())]


def _measure_gaps(scan: SeriesTally) -> np.ndarray:
    """Distances between neighbours, without the zeros between slices at one position."""
    gaps: np.ndarray = np.diff(np.sort(np.frombuffer(scan.positions)))
    return gaps[gaps >= SAME_POSITION_MM]


def _describe_set(
    part: int, name: str, tally: Tally, scans: Sequence[SeriesTally]
) -> dict[str, Any]:
    own = [scan for scan in scans if scan.set == part]
    slices = sum(len(scan.positions) for scan in own)
    return {
        "name": make_printable(name),
        "files": tally.files[part],
        "slices": slices,
        "series": len(own),
        "studies": len({scan.about.study for scan in own} - {""}),
        "patients": len({scan.about.patient for scan in own} - {""}),
        "refused": tally.refused[part],
        "left_out": tally.left_out[part],
    }


def _judge(scan: SeriesTally, tally: Tally) -> tuple[str, ...]:
    """What is odd about the values of all its slices; where they are not HU, it is tallied."""
    if scan.census is None:
        return ()
    try:
        return judge(scan.census)
    except Refused as refused:
        tally.add_refused(scan.set, scan.first, refused)
        return ()


def _describe_series(
    scan: SeriesTally, parts: int, odd: tuple[str, ...], pseudonyms: Pseudonyms, sets: Sequence[str]
) -> dict[str, Any]:
    about = scan.about
    positions = np.frombuffer(scan.positions)
    order = np.argsort(positions, kind="stable")
    positions, n = positions[order], len(positions)
    whole = Series(
        stored=make_unread(n),
        slope=np.ones(n),
        intercept=np.zeros(n),
        padding=None,
        mask=None,
        patient=about.patient,
        study=about.study,
        series=about.series,
        positions=positions,
        spacing=about.spacing,
        tilt=about.tilt,
        sources=(),
        mixed=parts > 1,
        interleaved=bool(scan.stack)
        and are_interleaved(positions, [scan.acquisitions[i] for i in order]),
    )
    found, _ = find_quirks(quirks.SERIES_QUIRKS, whole)
    missing = _count_missing(_measure_gaps(scan))
    own = {MISSING: missing > 0, SINGLE: n == 1}
    found += [*(name for name, there in own.items() if there), *odd, *scan.quirks]
    return {
        "set": make_printable(sets[scan.set]),
        "patient": pseudonyms.hide("patient", about.patient),
        "study": pseudonyms.hide("study", about.study),
        "series": pseudonyms.hide("series", about.series),
        "first_file": pseudonyms.hide_in_path(scan.first),
        "slices": n,
        "size": list(about.size),
        "pixel_spacing_mm": list(about.spacing) if isfinite(about.spacing[0]) else None,
        "tilt": round(about.tilt, 1),
        "spacings_mm": _group_gaps(np.diff(positions)),
        "duplicate_positions": int((np.diff(positions) < SAME_POSITION_MM).sum()),
        "missing_slices": missing,
        "found": list(dict.fromkeys(found)),
        "quirks_of_files": dict(scan.found),
        "possible": dict(scan.possible),
    }


def _group_gaps(gaps: np.ndarray) -> list[list[float]]:
    """The different spacings with their counts, from foot to head."""
    groups: list[list[float]] = []
    for gap in map(float, gaps):
        for group in groups:
            if abs(group[0] - gap) <= SAME_POSITION_MM:
                group[1] += 1
                break
        else:
            groups.append([round(gap, 3), 1])
    return sorted(sorted(groups, key=lambda g: -g[1])[:RUNS], key=groups.index)


def _count_missing(gaps: np.ndarray) -> int:
    """How many slices would fill the gaps, where all are multiples of the commonest. Else 0: the
    spacing is uneven, and nothing shows that slices are missing.
    """
    if len(gaps) < 3:
        return 0
    values, counts = np.unique(np.round(gaps, 2), return_counts=True)
    usual = float(values[counts.argmax()])
    times = np.round(gaps / usual)
    if times.min() < 1 or np.abs(gaps / usual - times).max() > 0.05:
        return 0
    return int((times - 1).sum())


def _find_shared(
    scans: Sequence[SeriesTally], sets: Sequence[str], pseudonyms: Pseudonyms
) -> list[dict[str, Any]]:
    """What each pair of sets has in common."""
    kinds: dict[str, Callable[[SeriesTally], str]] = {
        "patient": lambda scan: scan.about.patient,
        "study": lambda scan: scan.about.study,
        "series": lambda scan: scan.about.series,
    }
    pairs = []
    for one, other in combinations(range(len(sets)), 2):
        known: set[str] = set()  # a scan that is no DICOM has one name for all
        pair: dict[str, Any] = {"sets": [make_printable(sets[one]), make_printable(sets[other])]}
        for kind, of in kinds.items():
            names = [
                {of(scan) for scan in scans if scan.set == part} - {""} for part in (one, other)
            ]
            both = sorted(find_shared(*names) - known)
            known.update(both)
            pair[kind] = [pseudonyms.hide(kind, name) for name in both]
        pairs.append(pair)
    return pairs


def _find_studies_of_several_patients(
    scans: Sequence[SeriesTally], pseudonyms: Pseudonyms
) -> list[dict[str, Any]]:
    """Studies with the ids of several patients, as a second pseudonymisation makes them: the same
    person can be in two parts of a split, and no comparison of ids shows it.
    """
    patients: dict[str, set[str]] = defaultdict(set)
    for scan in scans:
        if scan.about.study and scan.about.patient:
            patients[scan.about.study].add(scan.about.patient)
    return [
        {
            "study": pseudonyms.hide("study", study),
            "patients": sorted(pseudonyms.hide("patient", patient) for patient in own),
        }
        for study, own in sorted(patients.items())
        if len(own) > 1
    ]


def _find_listed(
    name: str,
    ids: Mapping[str, str],
    tally: Tally,
    scans: Sequence[SeriesTally],
    sets: Sequence[str],
    pseudonyms: Pseudonyms,
) -> dict[str, Any]:
    """Which of the ids (of patients, studies, series or files) are in the sets."""
    hits = []
    met: set[str] = set()
    for scan in scans:
        kinds: dict[str, str] = {}
        for kind in ("series", "study", "patient"):
            whole = getattr(scan.about, kind)
            kinds |= dict.fromkeys((whole, *split_names([whole])), kind)
        for own, kind in kinds.items():
            if own in ids:
                met.add(ids[own])
                hits.append((scan.set, kind, pseudonyms.hide(kind, own), scan.first))
    for stem, part, source in tally.listed:
        if stem in ids:
            met.add(ids[stem])
            hits.append((part, "file", pseudonyms.hide_in_path(stem), source))
    # One line per id and set, not per series of a patient.
    single = {(part, kind, own): source for part, kind, own, source in reversed(hits)}
    return {
        "list": make_printable(name),
        "ids": len(set(ids.values())),
        "present": len(met),
        "found": [
            {
                "set": make_printable(sets[part]),
                "kind": kind,
                "id": own,
                "file": pseudonyms.hide_in_path(source),
            }
            for (part, kind, own), source in reversed(single.items())
        ],
    }


def _find_identical(tally: Tally, sets: Sequence[str], pseudonyms: Pseudonyms) -> dict[str, Any]:
    """Groups of files with the same picture in HU."""
    codes: np.ndarray = np.array([code for code, _, _ in tally.hashes], np.uint64)
    values, counts = np.unique(codes, return_counts=True)
    repeated = set(values[counts > 1].tolist())
    groups: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for code, part, source in tally.hashes:
        if code in repeated:
            groups[code].append((part, source))
    across = [group for group in groups.values() if len({part for part, _ in group}) > 1]
    within = [group for group in groups.values() if len({part for part, _ in group}) == 1]
    named = (across + within)[:NAMED]
    return {
        "groups": len(groups),
        "groups_across_sets": len(across),
        "files": sum(map(len, groups.values())),
        "named": [
            [
                {"set": make_printable(sets[part]), "file": pseudonyms.hide_in_path(source)}
                for part, source in group
            ]
            for group in named
        ],
    }


def _list_findings(
    tally: Tally, sets: Sequence[str], pseudonyms: Pseudonyms
) -> list[dict[str, Any]]:
    order = ("refused", "decoders", "quirk", "left out")
    return [
        {
            "kind": kind,
            "name": name,
            "files": finding.files,
            "possible": finding.possible,
            "named": [
                {
                    "set": make_printable(sets[part]),
                    "file": pseudonyms.hide_in_path(source),
                    "detail": detail,
                }
                for part, source, detail in finding.named
            ],
        }
        for (kind, name), finding in sorted(
            tally.findings.items(),
            key=lambda item: (order.index(item[0][0]), -item[1].files, item[0][1]),
        )
    ]
