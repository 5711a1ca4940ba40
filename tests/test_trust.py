"""The page of the kinds of faults names tests and modules that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_what_the_page_names_is_there() -> None:
    text = (ROOT / "docs" / "explanation" / "trust.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:\w+/)*\w+\.(?:py|cpp))`", text))
    assert len(named) > 40
    places = (ROOT / "tests", ROOT / "ichfast")
    assert not [name for name in named if not any((place / name).is_file() for place in places)]
    points = {int(number) for number in re.findall(r"^\| (\d+)\. ", text, re.MULTILINE)}
    assert points == set(range(1, 24))
