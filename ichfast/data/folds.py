"""Splits by whole patients: neighbouring slices of one head are nearly the same picture."""

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, NamedTuple

from ichfast.data.problems import make_printable
from ichfast.data.sampling import shuffle, shuffle_key
from ichfast.errors import DataError, SplitError

SCHEMES = {80: 5, 50: 2, 20: 5}  # share of the patients trained on, in percent -> number of folds


class Fold(NamedTuple):
    """Indices of the slices on either side."""

    train: list[int]
    test: list[int]


def make_folds(
    patients: Sequence[str],
    scheme: int,
    seed: int,
    *,
    subtypes: Mapping[str, Collection[str]] | None = None,
    by: Literal["patient", "slice"] = "patient",
) -> list[Fold]:
    """The cross-validations of Wang et al. 2020, Table 1: 80 % (5-fold, train on 4, test on 1),
    50 % (2-fold), 20 % (5-fold inverted: train on 1, test on 4). `patients` names the patient of
    every slice; `subtypes` the haemorrhages of each patient, which are then spread evenly.

    `by="slice"` deals out slices instead. That puts neighbouring slices of one patient on both
    sides and flatters the result; it is there to show by how much.
    """
    if scheme not in SCHEMES:
        raise DataError(f"scheme is {scheme}; it must be one of {', '.join(map(str, SCHEMES))}")
    if by not in ("patient", "slice"):
        raise DataError(f"by is {by!r}; it must be 'patient' or 'slice'")
    units = list(patients)
    kinds: Mapping[str, Collection[str]] = subtypes or {}
    if by == "slice":
        warnings.warn(
            "slice-wise folds: slices of one patient are on both sides, so the result is flattered",
            stacklevel=2,
        )
        units = [f"{name}#{place}" for name, place in _number_slices(patients)]
        kinds = {unit: kinds.get(name, ()) for unit, name in zip(units, patients, strict=True)}
    count = SCHEMES[scheme]
    if len(set(units)) < count:
        raise SplitError(f"{len(set(units))} {by}s cannot be dealt out to {count} folds")
    fold_of = _deal(set(units), kinds, count, seed)
    folds = []
    for k in range(count):
        own = [i for i, unit in enumerate(units) if fold_of[unit] == k]
        others = [i for i, unit in enumerate(units) if fold_of[unit] != k]
        folds.append(Fold(own, others) if scheme == 20 else Fold(others, own))
        if by == "patient":
            check_no_leak({"train": folds[-1].train, "test": folds[-1].test}, patients)
    return folds


def _number_slices(patients: Sequence[str]) -> list[tuple[str, int]]:
    """Each slice as the patient and its place among that patient's."""
    seen: Counter[str] = Counter()
    places = []
    for name in patients:
        places.append((name, seen[name]))
        seen[name] += 1
    return places


def _deal(
    units: Collection[str], kinds: Mapping[str, Collection[str]], count: int, seed: int
) -> dict[str, int]:
    """Unit -> fold. Those with the rarest subtype come first, each to the fold that has the fewest
    of it, then of its other subtypes, then of all (after Sechidis et al., ECML PKDD 2011). So a
    subtype that no patient shares with others is balanced within 1, and so is the number of
    patients where none has more than one.
    """
    total = Counter(kind for unit in units for kind in set(kinds.get(unit, ())))
    own = {
        unit: sorted(set(kinds.get(unit, ())), key=lambda kind: (total[kind], kind))
        for unit in units
    }

    def turn(unit: str) -> tuple[int, str, int, bytes, str]:
        first = own[unit][0] if own[unit] else ""
        rarity = total[first] if first else len(units) + 1
        return rarity, first, -len(own[unit]), shuffle_key(seed, unit), unit

    held: list[Counter[str]] = [Counter() for _ in range(count)]
    sizes = [0] * count
    fold_of: dict[str, int] = {}
    for unit in sorted(units, key=turn):
        fold = min(
            range(count), key=lambda k: (*(held[k][kind] for kind in own[unit]), sizes[k], k)
        )
        fold_of[unit] = fold
        held[fold].update(own[unit])
        sizes[fold] += 1
    return fold_of


def order_evenly(kinds: Mapping[str, Collection[str]], seed: int) -> list[str]:
    """The patients, each with its subtypes, in an order of which every beginning has nearly the
    share of each subtype that it has of all patients: next comes whoever brings the sums closest to
    that, and of equals the first by the seed.
    """
    total = Counter(kind for own in kinds.values() for kind in set(own))
    waiting: dict[frozenset[str], list[str]] = defaultdict(list)
    for patient in reversed(shuffle(kinds, seed)):
        waiting[frozenset(kinds[patient])].append(patient)
    held: Counter[str] = Counter()
    order: list[str] = []
    for place in range(1, len(kinds) + 1):

        def rank(own: frozenset[str], place: int = place) -> tuple[int, bytes]:
            gaps = (
                len(kinds) * (held[kind] + (kind in own)) - place * total[kind] for kind in total
            )
            return sum(gap**2 for gap in gaps), shuffle_key(seed, waiting[own][-1])

        own = min((own for own, patients in waiting.items() if patients), key=rank)
        order.append(waiting[own].pop())
        held.update(own)
    return order


def split_patients(
    patients: Sequence[str], fractions: Mapping[str, float], seed: int
) -> dict[str, list[int]]:
    """Indices of the slices of each part; `patients` names the patient of every slice.

    Fractions are of patients, not of slices, and every part gets at least one. Patients are ordered
    by a hash of seed and name, so the split is the same on every machine and in every version, and
    does not depend on the order of the slices.
    """
    if any(not 0 < fraction <= 1 for fraction in fractions.values()):
        raise DataError(f"fractions must be between 0 and 1, not {dict(fractions)}")
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise DataError(f"fractions must add up to 1, not {sum(fractions.values()):g}")
    names = shuffle(set(patients), seed)
    if len(names) < len(fractions):
        raise SplitError(
            f"{len(names)} patients cannot be split into {len(fractions)} parts "
            f"({', '.join(fractions)}) without leaving one empty"
        )
    part_of: dict[str, str] = {}
    start = 0
    for part, count in _round_shares(len(names), fractions).items():
        part_of.update(dict.fromkeys(names[start : start + count], part))
        start += count
    parts: dict[str, list[int]] = {part: [] for part in fractions}
    for i, name in enumerate(patients):
        parts[part_of[name]].append(i)
    check_no_leak(parts, patients)
    return parts


def check_no_leak(parts: Mapping[str, Sequence[int]], patients: Sequence[str]) -> None:
    """DataError when a patient is in several parts; it names the first few, as the set does."""
    check_apart({part: {patients[i] for i in indices} for part, indices in parts.items()})


def check_apart(
    names: Mapping[str, Collection[str]],
    share: Callable[[set[str], set[str]], set[str]] = set.intersection,
) -> None:
    """DataError when two of the sets have a name in common, as `share` finds it. A set may mix
    patients, studies and series: whichever two scans share, it is the same head.
    """
    listed = list(names)
    for i, one in enumerate(listed):
        for other in listed[i + 1 :]:
            shared = sorted(share(set(names[one]), set(names[other])))
            if shared:
                more = f" and {len(shared) - 5} more" if len(shared) > 5 else ""
                raise DataError(
                    f"patients or studies in both {one!r} and {other!r}: "
                    f"{', '.join(map(make_printable, shared[:5]))}{more}. The result would be "
                    f"flattered; split by patient, or take them out of one of the two"
                )


def _round_shares(patients: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers nearest to the fractions, at least 1 each, that add up."""
    counts = {part: max(1, int(fraction * patients)) for part, fraction in fractions.items()}

    def excess(part: str) -> float:
        return counts[part] - fractions[part] * patients

    while (left := patients - sum(counts.values())) != 0:
        if left > 0:
            counts[min(counts, key=excess)] += 1
        else:
            counts[max((part for part in counts if counts[part] > 1), key=excess)] -= 1
    return counts
