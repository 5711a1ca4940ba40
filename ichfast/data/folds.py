"""Splits by whole patients: neighbouring slices of one head are nearly the same picture."""

import hashlib
from collections.abc import Mapping, Sequence

from ichfast.errors import DataError


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
    names = sorted(set(patients), key=lambda name: (_shuffle(seed, name), name))
    if len(names) < len(fractions):
        raise DataError(
            f"{len(names)} patients cannot be split into {len(fractions)} parts "
            f"({', '.join(fractions)}) without leaving one empty"
        )
    part_of: dict[str, str] = {}
    start = 0
    for part, count in _counts(len(names), fractions).items():
        part_of.update(dict.fromkeys(names[start : start + count], part))
        start += count
    parts: dict[str, list[int]] = {part: [] for part in fractions}
    for i, name in enumerate(patients):
        parts[part_of[name]].append(i)
    check_no_leak(parts, patients)
    return parts


def check_no_leak(parts: Mapping[str, Sequence[int]], patients: Sequence[str]) -> None:
    """DataError when a patient is in more than one part."""
    names = {part: {patients[i] for i in indices} for part, indices in parts.items()}
    listed = list(names)
    for i, one in enumerate(listed):
        for other in listed[i + 1 :]:
            shared = len(names[one] & names[other])
            if shared:
                raise DataError(
                    f"{shared} patient{'s' * (shared > 1)} in both {one!r} and {other!r}: "
                    f"the result would be flattered; split by patient"
                )


def _shuffle(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).digest()


def _counts(patients: int, fractions: Mapping[str, float]) -> dict[str, int]:
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
