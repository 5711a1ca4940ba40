"""Whether two sets of different origin hold the same heads, as far as their names tell."""

from collections.abc import Collection
from itertools import combinations

SEPARATORS = frozenset("_- ")
LEAST = 6  # letters of a part that is taken for an id
MOST_WORDS = 16


def find_shared(one: set[str], other: set[str]) -> set[str]:
    """Names that both have: the same one, or one that is a part of a name of the other, as BHSD's
    files carry RSNA's ids of patient and study. Not for parts of a single set, whose names may
    well contain one another.
    """
    return (one & other) | (one & split_names(other)) | (split_names(one) & other)


def split_names(names: Collection[str]) -> set[str]:
    """The parts of names that may be an id: one or several whole words, not too short, of which one
    has a digit.
    """
    parts: set[str] = set()
    for name in names:
        ends = [place for place, letter in enumerate(name) if letter in SEPARATORS]
        if not 0 < len(ends) < MOST_WORDS:
            continue
        spans = (name[a + 1 : b] for a, b in combinations([-1, *ends, len(name)], 2))
        parts.update(span for span in spans if len(span) >= LEAST and any(map(str.isdigit, span)))
    return parts - set(names)
