"""From the tally to what is said: plain numbers and strings for the JSON and the page."""

import base64
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ichfast.data import quirks
from ichfast.data.audit.look import present, unread
from ichfast.data.audit.tally import NAMED, Scan, Tally, word
from ichfast.data.problems import make_printable
from ichfast.data.series import Series
from ichfast.data.stacks import measure_tilt

FORMAT = "ichfast-audit"
VERSION = 1
MISSING = "missing slices"
SINGLE = "single slice"
RUNS = 6  # different spacings that a series names


class Shown:
    """Ids as pseudonyms, or as they are. A pseudonym needs the salt to be made again, so that
    trying all hospital numbers tells nothing to who has the report alone.
    """

    def __init__(self, salt: bytes, identify: bool, telling: Mapping[str, str]):
        self.salt = salt
        self.identify = identify
        self.pieces = {
            piece: word(patient).sub(self.name("patient", patient), piece)
            for piece, patient in telling.items()
        }

    def name(self, kind: str, text: str) -> str:
        if self.identify or not text:
            return make_printable(text)
        secret = f"{kind}:{text}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(secret, key=self.salt, digest_size=5).digest()
        return f"{kind}-{base64.b32encode(digest).decode().lower()}"

    def file(self, source: str) -> str:
        if self.pieces and not self.identify:
            source = "/".join(self.pieces.get(piece, piece) for piece in source.split("/"))
        return make_printable(source)


def results(
    tally: Tally,
    sets: Sequence[str],
    lists: Mapping[str, frozenset[str]],
    pixels: bool,
    identify: bool,
    salt: bytes,
) -> dict[str, Any]:
    shown = Shown(salt, identify, tally.telling)
    scans = [scan for own in tally.scans.values() for scan in own]
    series = [_series(scan, len(tally.scans[key]), shown, sets) for key, scan in _keyed(tally)]
    return {
        "format": FORMAT,
        "version": VERSION,
        "pixels_read": pixels,
        "identified": identify,
        "sets": [_set(part, name, tally, scans) for part, name in enumerate(sets)],
        "shared": _shared(scans, sets, shown),
        "studies_of_several_patients": _patients_of_one_study(scans, shown),
        "listed": [_listed(name, ids, tally, scans, sets, shown) for name, ids in lists.items()],
        "identical": _identical(tally, sets, shown) if pixels else None,
        "findings": _findings(tally, sets, shown),
        "series_findings": dict(_most(Counter(name for one in series for name in one["found"]))),
        "slice_spacing_mm": _spread(np.round(gap, 3) for s in scans for gap in _gaps(s)),
        "pixel_spacing_mm": _spread(
            round(x, 4) for s in scans for x in sorted(set(s.stack.header.spacing))
        ),
        "tilt_degrees": _spread(one["tilt"] for one in series),
        "series": series,
    }


def _keyed(tally: Tally) -> list[tuple[tuple[int, str], Scan]]:
    return [(key, scan) for key, scans in tally.scans.items() for scan in scans]


def _most(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _spread(values: Iterable[float]) -> list[list[float]]:
    """[value, how often], by value."""
    return [[value, count] for value, count in sorted(Counter(map(float, values)).items())]


def _gaps(scan: Scan) -> np.ndarray:
    """Distances between neighbours, copies of a position apart."""
    gaps: np.ndarray = np.diff(np.sort(np.frombuffer(scan.positions)))
    return gaps[gaps >= quirks.SAME_POSITION_MM]


def _set(part: int, name: str, tally: Tally, scans: Sequence[Scan]) -> dict[str, Any]:
    own = [scan for scan in scans if scan.set == part]
    slices = sum(len(scan.positions) for scan in own)
    return {
        "name": make_printable(name),
        "files": tally.files[part],
        "slices": slices,
        "series": len(own),
        "studies": len({scan.stack.header.study for scan in own} - {""}),
        "patients": len({scan.stack.header.patient for scan in own} - {""}),
        "refused": tally.refused[part],
        "left_out": tally.left_out[part],
    }


def _series(scan: Scan, parts: int, shown: Shown, sets: Sequence[str]) -> dict[str, Any]:
    header = scan.stack.header
    positions = np.sort(np.frombuffer(scan.positions))
    n = len(positions)
    angle = measure_tilt(scan.stack.frame.normal, header.gantry_tilt)
    whole = Series(
        stored=unread(n),
        slope=np.ones(n),
        intercept=np.zeros(n),
        padding=None,
        mask=None,
        patient=header.patient,
        study=header.study,
        series=header.series,
        positions=positions,
        spacing=(header.spacing[0], header.spacing[1]),
        tilt=angle,
        sources=(),
        mixed=parts > 1,
    )
    found, _ = present(quirks.SERIES_QUIRKS, whole)
    missing = _missing(_gaps(scan))
    own = {MISSING: missing > 0, SINGLE: n == 1}
    found += [name for name, there in own.items() if there]
    return {
        "set": make_printable(sets[scan.set]),
        "patient": shown.name("patient", header.patient),
        "study": shown.name("study", header.study),
        "series": shown.name("series", header.series),
        "first_file": shown.file(scan.first),
        "slices": n,
        "size": [header.rows, header.columns],
        "pixel_spacing_mm": list(header.spacing),
        "tilt": round(angle, 1),
        "spacings_mm": _runs(np.diff(positions)),
        "duplicate_positions": int((np.diff(positions) < quirks.SAME_POSITION_MM).sum()),
        "missing_slices": missing,
        "found": list(dict.fromkeys(found)),
        "quirks_of_files": dict(scan.found),
        "possible": dict(scan.possible),
    }


def _runs(gaps: np.ndarray) -> list[list[float]]:
    """Its different spacings with their numbers, in the order from foot to head."""
    groups: list[list[float]] = []
    for gap in map(float, gaps):
        for group in groups:
            if abs(group[0] - gap) <= quirks.SAME_POSITION_MM:
                group[1] += 1
                break
        else:
            groups.append([round(gap, 3), 1])
    return sorted(sorted(groups, key=lambda g: -g[1])[:RUNS], key=groups.index)


def _missing(gaps: np.ndarray) -> int:
    """How many slices fill the gaps, where all are multiples of the commonest; else the spacing is
    uneven and nothing can be said to be missing.
    """
    if len(gaps) < 3:
        return 0
    values, counts = np.unique(np.round(gaps, 2), return_counts=True)
    usual = float(values[counts.argmax()])
    times = np.round(gaps / usual)
    if times.min() < 1 or np.abs(gaps / usual - times).max() > 0.05:
        return 0
    return int((times - 1).sum())


def _shared(scans: Sequence[Scan], sets: Sequence[str], shown: Shown) -> list[dict[str, Any]]:
    """What each two sets have in common."""
    kinds: dict[str, Callable[[Scan], str]] = {
        "patient": lambda scan: scan.stack.header.patient,
        "study": lambda scan: scan.stack.header.study,
        "series": lambda scan: scan.stack.header.series,
    }
    pairs = []
    for one, other in combinations(range(len(sets)), 2):
        pair: dict[str, Any] = {"sets": [make_printable(sets[one]), make_printable(sets[other])]}
        for kind, of in kinds.items():
            names = [{of(scan) for scan in scans if scan.set == part} for part in (one, other)]
            both = sorted((names[0] & names[1]) - {""})
            pair[kind] = [shown.name(kind, name) for name in both]
        pairs.append(pair)
    return pairs


def _patients_of_one_study(scans: Sequence[Scan], shown: Shown) -> list[dict[str, Any]]:
    """Studies with several patients' ids, as a second pseudonymisation makes them: the same person
    in two parts of a split, and no comparison of ids shows it.
    """
    patients: dict[str, set[str]] = defaultdict(set)
    for scan in scans:
        header = scan.stack.header
        if header.study and header.patient:
            patients[header.study].add(header.patient)
    return [
        {
            "study": shown.name("study", study),
            "patients": sorted(shown.name("patient", patient) for patient in own),
        }
        for study, own in sorted(patients.items())
        if len(own) > 1
    ]


def _listed(
    name: str,
    ids: frozenset[str],
    tally: Tally,
    scans: Sequence[Scan],
    sets: Sequence[str],
    shown: Shown,
) -> dict[str, Any]:
    """Which of the ids (of patients, studies, series or files) are in the sets."""
    hits = []
    met: set[str] = set()
    for scan in scans:
        header = scan.stack.header
        for kind in ("patient", "study", "series"):
            own = getattr(header, kind)
            if own in ids:
                met.add(own)
                hits.append((scan.set, kind, shown.name(kind, own), scan.first))
    for stem, part, source in tally.listed:
        if stem in ids:
            met.add(stem)
            hits.append((part, "file", shown.file(stem), source))
    # One line for each id and set, not for each series of a patient.
    single = {(part, kind, own): source for part, kind, own, source in reversed(hits)}
    return {
        "list": make_printable(name),
        "ids": len(ids),
        "present": len(met),
        "found": [
            {"set": make_printable(sets[part]), "kind": kind, "id": own, "file": shown.file(source)}
            for (part, kind, own), source in reversed(single.items())
        ],
    }


def _identical(tally: Tally, sets: Sequence[str], shown: Shown) -> dict[str, Any]:
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
                {"set": make_printable(sets[part]), "file": shown.file(source)}
                for part, source in group
            ]
            for group in named
        ],
    }


def _findings(tally: Tally, sets: Sequence[str], shown: Shown) -> list[dict[str, Any]]:
    order = ("refused", "decoders", "quirk", "left out")
    return [
        {
            "kind": kind,
            "name": name,
            "files": finding.files,
            "possible": finding.possible,
            "named": [
                {"set": make_printable(sets[part]), "file": shown.file(source), "detail": detail}
                for part, source, detail in finding.named
            ],
        }
        for (kind, name), finding in sorted(
            tally.findings.items(),
            key=lambda item: (order.index(item[0][0]), -item[1].files, item[0][1]),
        )
    ]
