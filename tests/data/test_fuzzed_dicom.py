"""What fuzzing collected (tests/fuzz): inputs that each reach other code of the native walk. It
says of them what the Python walk and pydicom say. `make fuzz` looks for more.
"""

import zipfile
from pathlib import Path

import pytest
from against_pydicom import START, compare
from plain_elements import plain_elements

from ichfast.data.elements import walk_elements
from ichfast.data.headers import TAGS

FUZZ = Path(__file__).parents[1] / "fuzz"
with zipfile.ZipFile(FUZZ / "corpus.zip") as archive:
    CORPUS = {name: archive.read(name) for name in archive.namelist()}


def test_the_corpus_is_small_and_worth_it() -> None:
    assert len(CORPUS) >= 50
    assert (FUZZ / "corpus.zip").stat().st_size < 300_000
    walked = [walk_elements(START + data, TAGS) for data in CORPUS.values()]
    assert 10 <= sum(found is not None for found in walked) < len(walked)


@pytest.mark.parametrize("name", CORPUS)
def test_as_pydicom_has_it(name: str) -> None:
    assert compare(START + CORPUS[name]) == ""


@pytest.mark.parametrize("name", CORPUS)
def test_as_the_walk_in_python_has_it(name: str) -> None:
    data = START + CORPUS[name]
    found = walk_elements(data, TAGS)
    try:
        expected = plain_elements(data, set(TAGS))
    except Exception:
        assert found is None
        return
    assert found is not None
    assert (found, found.vrs, found.pixels) == (expected, expected.vrs, expected.pixels)


def test_a_difference_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test: a walk that finds another value, or pixels elsewhere, is named."""
    name = next(n for n in CORPUS if walk_elements(START + CORPUS[n], TAGS))
    found = walk_elements(START + CORPUS[name], TAGS)
    assert found is not None
    monkeypatch.setattr("against_pydicom.walk_elements", lambda *_: found)
    found.pixels += 1
    assert "PixelData begins" in compare(START + CORPUS[name])
    found[TAGS[0]] = b"another"
    assert "0x00080008 is b'another'" in compare(START + CORPUS[name])
