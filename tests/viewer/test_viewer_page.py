"""The page as a file: what is in it is exact, escaped and complete."""

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ichfast.errors import DataError
from ichfast.viewer import StudyPage, quantise, render_page
from ichfast.viewer.pack import own_step, pack_slice

VOID = {"meta", "input", "br"}
HOSTILE = "</script><script>alert('1')</script>\"'<img src=x onerror=alert(2)>&amp;\u2028$study<!--"


class Parsed(HTMLParser):
    """Checks that tags balance; keeps tags, attributes and text, and scripts by themselves."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif self.open[-1:] != ["style"]:
            self.text += data


def describe(html: str) -> dict[str, Any]:
    (text,) = (text for attributes, text in Parsed(html).scripts if attributes.get("id") == "study")
    described: dict[str, Any] = json.loads(text)
    return described


def unpack(text: str, height: int, width: int) -> list[np.ndarray]:
    """HU, probability and perhaps target, as `voxels.js` does it."""
    data = np.frombuffer(gzip.decompress(base64.b64decode(text)), np.uint8)
    low, high, *others = data.reshape(-1, height, width)
    zigzag = low.astype(np.int32) | high.astype(np.int32) << 8
    hu = ((zigzag >> 1) ^ -(zigzag & 1)).cumsum(1).cumsum(0)
    return [hu, *others]


unit = st.floats(0, 1, width=32)


@given(
    probability=arrays(np.float32, st.integers(1, 30), elements=unit),
    threshold=st.floats(0, 1),
)
def test_every_step_of_the_slider_counts_as_python_does(probability, threshold):
    probability = np.append(probability, np.float32(threshold))
    q = quantise(probability, threshold)
    own = own_step(threshold)
    assert np.array_equal(q > own, probability > threshold)
    for step in (0, own - 1, own + 1, 254):
        if step not in (-1, own, 255):
            assert np.array_equal(q > step, np.floor(probability * 255) > step)


def test_ends_of_the_scale():
    ends = np.array([0, 1], np.float32)
    assert quantise(ends, 0.0).tolist() == [0, 255]
    assert quantise(ends, 0.999999).tolist() == [0, 255]
    assert quantise(ends, 1.0).tolist() == [0, 254]


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan])
def test_what_is_no_probability_is_refused(value):
    with pytest.raises(DataError, match=r"must be in \[0, 1\]"):
        quantise(np.array([0.5, value], np.float32), 0.5)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, np.nan])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(DataError, match=r"threshold must be in \[0, 1\]"):
        quantise(np.zeros(1, np.float32), threshold)


@given(hu=arrays(np.int16, (4, 5)))
def test_hu_come_back_within_the_range_of_ct(hu):
    probability = np.arange(20, dtype=np.uint8).reshape(4, 5)
    target = probability % 3 == 0
    back = unpack(pack_slice(hu, probability, target), 4, 5)
    for array, expected in zip(back, (hu.clip(-1024, 3071), probability, target), strict=True):
        assert np.array_equal(array, expected)


def test_slices_are_in_the_page_as_they_are(with_target):
    html = render_page(with_target)
    packed = {
        attributes["id"]: text
        for attributes, text in Parsed(html).scripts
        if attributes.get("type") == "text/plain"
    }
    assert len(packed) == 6
    for i in range(6):
        hu, probability, target = unpack(packed[f"slice-{i}"], 48, 40)
        assert np.array_equal(hu, with_target.hu[i])
        assert np.array_equal(probability, with_target.probability[i])
        assert np.array_equal(target, with_target.target[i])


def test_histograms_count_what_lies_above_each_step(study, probability):
    described = describe(render_page(study))
    histograms = np.array(described["histograms"])
    assert histograms.shape == (6, 256)
    above = histograms[:, described["step"] + 1 :].sum(1)
    assert np.array_equal(above, (probability > study.threshold).sum((1, 2)))


def test_the_first_slice_comes_before_the_script(study):
    ids = [attributes.get("id") for attributes, _ in Parsed(render_page(study)).scripts]
    assert ids == ["study", "slice-3", None, *(f"slice-{i}" for i in (0, 1, 2, 4, 5))]


def test_where_the_page_begins(study, with_target):
    nothing = np.zeros_like(study.probability)
    assert describe(render_page(study))["first"] == 3
    assert describe(render_page(replace(with_target, probability=nothing)))["first"] == 2
    assert describe(render_page(replace(study, probability=nothing)))["first"] == 3


def fill(study: StudyPage, text: str) -> str:
    """The page with this text wherever a study may have one."""
    texts = {"title": text, "interval": text, "credit": text, "warnings": [text]}
    return render_page(replace(study, **texts, labels=[text] * 6, facts=[(text, text)]))


def test_hostile_text_stays_text(study):
    html = fill(study, HOSTILE)
    page, harmless = Parsed(html), Parsed(fill(study, "harmless"))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in harmless.tags]
    assert [sorted(a) for _, a in page.tags] == [sorted(a) for _, a in harmless.tags]
    assert page.text.count(HOSTILE) == 7  # title twice, interval, warning, fact, its value, credit
    assert describe(html)["labels"] == [HOSTILE] * 6


def test_bytes_that_are_no_text_can_be_written(study):
    html = fill(study, "na\udce9ve")
    assert "na?ve" in html.encode().decode()
    assert describe(html)["labels"][0] == "na\udce9ve"


def test_a_noisy_study_stays_small():
    """35 slices of 512×512 with the noise of a thin slice, here four of them."""
    random = np.random.default_rng(0)
    hu = random.normal(35, 5, (4, 512, 512)).round().astype(np.int16)
    hu[:, :64] = -1024
    html = render_page(StudyPage("", hu, np.zeros(hu.shape, np.uint8), 0.5, (40.0, 80.0)))
    assert len(html) / 4 * 35 < 10e6


def test_only_this_script_may_run_and_nothing_is_fetched(study):
    html = render_page(study)
    page = Parsed(html)
    (policy,) = (a["content"] for tag, a in page.tags if "http-equiv" in a and tag == "meta")
    assert policy is not None
    (script,) = (text for attributes, text in page.scripts if not attributes)
    style = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    for kind, text in (("script", script), ("style", *style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not [a for _, a in page.tags if {"src", "href", "style"} & a.keys()]
    assert "http://" not in re.sub(r'"http://www.w3.org/2000/svg"', "", html)
    assert "https://" not in html


def test_ids_are_unique_and_the_script_finds_each(study):
    html = render_page(study)
    ids = [attributes["id"] for _, attributes in Parsed(html).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'\bget\("([\w-]+)"\)', html)) <= set(ids)


def test_same_study_same_page(study):
    assert render_page(study) == render_page(study)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"probability": np.zeros((6, 48, 40), np.float32)}, "probability must be uint8"),
        ({"target": np.zeros((6, 48, 41), bool)}, "target must be bool"),
        ({"labels": ["one"]}, "labels must have one entry per slice, 6, not 1"),
        ({"slab_mm": np.ones(7)}, "slab_mm must have one entry per slice, 6, not 7"),
        ({"hu": np.zeros((6, 48, 40))}, "hu must be int16"),
    ],
)
def test_arrays_that_do_not_fit_are_named(study, changes, says):
    with pytest.raises(DataError, match=re.escape(says)):
        replace(study, **changes)


def test_a_study_without_slices_is_refused():
    empty = np.zeros((0, 4, 4))
    with pytest.raises(DataError, match="a slice at least"):
        StudyPage("", empty.astype(np.int16), empty.astype(np.uint8), 0.5, (40.0, 80.0))
