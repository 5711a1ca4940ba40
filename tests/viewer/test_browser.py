"""The page in headless Chromium: a reader's wheel, keys, drags and fingers, and the numbers."""

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chromium import Page, find_chromium, start_chromium

from ichfast.viewer import StudyPage, render_page

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium"
)
READY = "performance.getEntriesByName('all slices').length > 0"
RIGHT_CLICK, SHIFT = {"button": "right"}, {"modifiers": 8}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    assert CHROMIUM is not None
    with start_chromium(CHROMIUM, tmp_path_factory.mktemp("chromium") / "profile") as page:
        yield page


@pytest.fixture
def show(browser: Page, tmp_path: Path) -> Iterator[Callable[[StudyPage], Page]]:
    """Opens a study's page; at the end it has fetched nothing and logged no error."""
    file = tmp_path / "report.html"

    def show(study: StudyPage) -> Page:
        file.write_text(render_page(study), encoding="utf-8")
        browser.resize(1280, 860)
        browser.events.clear()
        browser.open(file.as_uri(), READY)
        browser.settle()
        return browser

    yield show
    requests = browser.find_events("Network.requestWillBeSent")
    assert {event["request"]["url"] for event in requests} == {file.as_uri()}
    for kind in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
        assert browser.find_events(kind) == []
    assert browser.find_events("Page.javascriptDialogOpening") == []


def slice_number(page: Page) -> int:
    """What is written over the picture, which both sliders say too."""
    number, total = map(int, page.text("#number").split("/"))
    for name in ("stage", "strip"):
        assert page.evaluate(f"get('{name}').getAttribute('aria-valuenow')") == str(number)
        assert page.evaluate(f"get('{name}').getAttribute('aria-valuemax')") == str(total)
        assert page.evaluate(f"get('{name}').getAttribute('aria-valuetext')").startswith(
            f"{number} of {total}"
        )
    return number


def window(page: Page) -> tuple[float, float]:
    level, width = re.fullmatch(r"L (\S+) W (\S+)", page.text("#window")).groups()
    assert page.evaluate("[get('level').value, get('width').value]") == [level, width]
    return float(level), float(width)


def measure(study: StudyPage, mask: np.ndarray) -> tuple[str, list[str]]:
    """Volume in mL and area of each slice in mm², as the page writes them."""
    area = study.spacing[0] * study.spacing[1]
    counts = mask.sum((1, 2))
    volume = float((counts * area * study.slab_mm).sum()) / 1000
    return f"{volume:.1f} mL", [f"{count * area:.1f} mm²" for count in counts]


def test_it_opens_on_the_largest_area_with_pythons_numbers(show, study, probability):
    page = show(study)
    volume, areas = measure(study, probability > study.threshold)
    assert slice_number(page) == 4
    assert page.text("#label") == "z 12 mm"
    assert page.text("#volume") == volume
    assert page.text("#area") == areas[3]
    assert page.text("#interval") == "90 %: 0.1 to 9.9 mL"
    assert page.text("#threshold-text") == "0.430 (the model's own)"
    assert page.evaluate("document.activeElement.id") == "stage"


def test_what_is_unpacked_is_what_was_packed(show, with_target):
    page = show(with_target)
    for name in ("hu", "probability", "target"):
        unpacked = page.evaluate(f"ready.map((slice) => [...slice.{name}])")
        assert np.array_equal(np.reshape(unpacked, (6, 48, 40)), getattr(with_target, name))


def test_wheel_goes_up_and_down_and_stops_at_the_ends(show, study):
    page = show(study)
    page.turn_wheel("#stage", -120)
    assert slice_number(page) == 5
    page.turn_wheel("#stage", 120)
    page.turn_wheel("#stage", 120)
    assert slice_number(page) == 3
    for _ in range(9):
        page.turn_wheel("#stage", 120)
    assert slice_number(page) == 1


def test_keys(show, study):
    page = show(study)
    seen = []
    for key in ("ArrowUp", "ArrowLeft", "ArrowDown", "Home", "PageUp", "PageDown", "End"):
        page.press(key)
        seen.append(slice_number(page))
    assert seen == [5, 4, 3, 1, 6, 1, 6]


def test_keys_on_the_strip(show, study):
    page = show(study)
    page.press("Tab")
    assert page.evaluate("document.activeElement.id") == "strip"
    page.press("ArrowRight", 2)
    assert slice_number(page) == 6


def test_drag_by_mouse_or_finger_goes_through_the_slices(show, study):
    page = show(study)
    page.drag("#stage", 0, -200)
    assert slice_number(page) == 6
    page.touch("#stage", 0, 2000)
    assert slice_number(page) == 1


def test_strip_jumps_by_click(show, study):
    page = show(study)
    x, y = page.centre("#strip svg")
    width = page.evaluate("strip.getBoundingClientRect().width")
    for number in (1, 6, 3):
        page.click_at(x + (number - 0.5 - 3) / 6 * width, y)
        assert slice_number(page) == number


@pytest.mark.parametrize("more", [RIGHT_CLICK, SHIFT], ids=["right button", "Shift"])
def test_window_follows_a_drag(show, study, more):
    page = show(study)
    page.drag("#stage", 40, -20, **more)
    assert window(page) == (30, 100)
    assert slice_number(page) == 4
    assert page.evaluate("[...document.querySelectorAll('[aria-pressed=true]')].length") == 0


def test_window_presets_and_numbers(show, study):
    page = show(study)
    page.click("#presets button[value='600/2800']")
    assert window(page) == (600, 2800)
    page.evaluate("get('width').select(), get('width').focus()")
    page.call("Input.insertText", text="120")
    page.press("Tab")
    assert window(page) == (600, 120)
    page.click("#presets button[value='40/80']")
    assert page.evaluate("document.querySelector('[aria-pressed=true]').textContent") == "brain"


def test_a_window_that_is_no_preset_is_one(show, study):
    page = show(replace(study, window=(45.0, 130.0)))
    assert page.evaluate("document.querySelector('[aria-pressed=true]').textContent") == "model"


def read_canvas(page: Page) -> np.ndarray:
    """(height, width, 4) uint8: what is drawn."""
    copy = "new OffscreenCanvas(picture.canvas.width, picture.canvas.height)"
    shape = page.evaluate("[picture.canvas.height, picture.canvas.width]")
    values = page.evaluate(
        f"(context => {{ context.drawImage(picture.canvas, 0, 0); return btoa(Array.from("
        f"context.getImageData(0, 0, {shape[1]}, {shape[0]}).data, (v) => String.fromCharCode(v))"
        f".join('')) }})({copy}.getContext('2d', {{ willReadFrequently: true }}))"
    )
    return np.frombuffer(base64.b64decode(values), np.uint8).reshape(*shape, 4)


def count_coloured(page: Page) -> int:
    red, _, blue, _ = np.moveaxis(read_canvas(page), 2, 0)
    return int((red != blue).sum())


def test_greys_are_those_of_the_window(show, study):
    page = show(study)
    drawn = read_canvas(page)
    height, width = drawn.shape[:2]
    for row, grey in ((3, 0), (7.5, 255)):  # air, bone
        assert drawn[int(row / 48 * height), width // 2].tolist() == [grey, grey, grey, 255]


def test_mask_and_outline_can_be_taken_away(show, study):
    page = show(study)
    both = count_coloured(page)
    page.click("#outline")
    fill = count_coloured(page)
    page.evaluate("get('opacity').focus()")
    page.press("Home")
    assert both > fill > 0
    assert count_coloured(page) == 0


def test_threshold_moves_every_number(show, study, probability):
    page = show(study)
    page.evaluate("get('areas').open = true")
    page.evaluate("get('threshold').focus()")
    for key, times, step in (("ArrowLeft", 30, 79), ("ArrowRight", 100, 179), ("End", 1, 254)):
        page.press(key, times)
        volume, areas = measure(study, np.floor(probability * 255) > step)
        assert page.text("#threshold-text") == f"{(step + 1) / 255:.3f}"
        assert page.text("#volume") == volume
        assert page.text("#area") == areas[3]
        rows = (
            "[...document.querySelectorAll('#areas tr')].slice(1).map((r) => r.cells[2].innerText)"
        )
        assert [f"{area} mm²" for area in page.evaluate(rows)] == areas
        assert page.text("#interval") == "The interval holds at the model's own threshold."
    page.click("#own")
    assert page.text("#volume") == measure(study, probability > study.threshold)[0]
    assert page.text("#interval") == "90 %: 0.1 to 9.9 mL"


def test_largest_component(show, study, probability):
    page = show(replace(study, probability=study.probability.clip(max=254)))
    page.press("Home")
    page.click("#largest")
    page.wait("get('component').textContent.includes('mL')")
    mask = probability > study.threshold
    mask[0] = False
    volume = measure(study, mask)[0]
    assert page.text("#component") == f"The largest of 2: {volume}, slices 3 to 5."
    assert slice_number(page) == 4
    page.evaluate("setStep(254)")
    assert page.text("#component") == ""
    page.click("#largest")
    page.wait("get('component').textContent.startsWith('Nothing')")


def test_the_pointer_reads_hu_and_probability(show, study):
    page = show(study)
    page.mouse("mouseMoved", *page.centre("#stage"))
    page.settle()
    shown = f"{study.hu[3, 24, 20]} HU, p {study.probability[3, 24, 20] / 255:.2f}"
    assert page.text("#probe") == shown


def test_slices_of_several_scans_are_not_added_up(show, with_target):
    page = show(with_target)
    counts = (with_target.probability[3] > page.evaluate("study.step")).sum()
    assert page.text("#area") == f"{counts} pixels"
    assert page.text("#target") == "120 pixels"
    for hidden in ("total", "largest", "scale"):
        assert page.evaluate(f"get('{hidden}').hidden")
    assert page.evaluate("[...document.querySelectorAll('.side')].every((side) => side.hidden)")


def test_a_stack_without_geometry_is_counted_in_pixels(show, study, probability):
    page = show(replace(study, spacing=None, slab_mm=None, interval=None))
    assert page.text("#volume") == f"{(probability > study.threshold).sum()} pixels"
    assert page.text("#total-name") == "Pixels, all slices"


def test_one_slice_without_a_finding(show, study):
    nothing = replace(
        study,
        hu=study.hu[:1],
        probability=np.zeros_like(study.probability[:1]),
        slab_mm=study.slab_mm[:1],
        labels=None,
    )
    page = show(nothing)
    page.press("ArrowUp")
    assert slice_number(page) == 1
    assert page.text("#volume") == "0.0 mL"
    assert page.text("#label") == ""


def test_tab_goes_through_every_control_and_out_again(show, study):
    page = show(study)
    seen = []
    while (name := page.evaluate("document.activeElement.id || document.activeElement.value")) and (
        len(seen) < 30
    ):
        assert page.evaluate("document.activeElement.matches(':focus-visible')")
        seen.append(name)
        page.press("Tab")
    presets = ["40/80", "75/215", "40/40", "600/2800", "40/120"]
    assert seen[:5] == ["stage", "strip", "threshold", "own", "largest"]
    assert seen[5:] == [*presets, "level", "width", "opacity", "outline"]
    page.press("Tab", 2)  # both of the parts that unfold, and no control holds the reader
    assert page.evaluate("document.activeElement === document.body")


def test_every_control_has_a_name(show, with_target):
    page = show(with_target)
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"slider", "button", "checkbox", "spinbutton", "DisclosureTriangle"}
    found = [node for node in nodes if node.get("role", {}).get("value") in roles]
    names = [node.get("name", {}).get("value") for node in found]
    assert len(found) > 14
    assert all(names)
    assert "Threshold" in names


@pytest.mark.parametrize("width", [380, 700, 1000])
def test_a_narrow_window_has_no_horizontal_scroll(show, study, width):
    page = show(replace(study, title="W" * 60, facts=[("Series", "1.2.840." * 12)]))
    page.resize(width, 700)
    page.evaluate("get('areas').open = true")
    page.settle()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.press("ArrowUp")
    assert slice_number(page) == 5


def test_hostile_text_is_shown_and_not_run(show, study):
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"\u2028"
    page = show(replace(study, title=hostile, labels=[hostile] * 6, facts=[(hostile, hostile)]))
    page.evaluate("get('areas').open = true")
    page.settle()
    assert page.text("h1") == hostile
    assert page.text("#label") == hostile
    assert page.evaluate("document.querySelectorAll('img').length") == 0


def test_slices_that_cannot_be_unpacked_are_said(show, study, monkeypatch):
    monkeypatch.setattr("ichfast.viewer.page.pack_slice", lambda *_: "AAAA")
    monkeypatch.setattr(
        "test_browser.READY", "document.querySelector('#failure')?.hidden === false"
    )
    page = show(study)
    assert page.text("#failure").startswith("The slices cannot be shown: ")
    page.events[:] = [e for e in page.events if e["method"] == "Network.requestWillBeSent"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screenshot(show, study, tmp_path, scheme):
    page = show(study)
    page.resize(1280, 860, scheme)
    page.photograph(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    expected = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == expected
