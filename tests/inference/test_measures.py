"""Volumes, areas, components and ABC/2 against the formulas of what was drawn."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import BLEED, BLEED_HU, write_ct_series
from pydicom import dcmread

from ichfast.data import Problems, Series, read_series
from ichfast.inference.measures import label_components, measure, measure_abc2

FINE = {"shape": (160, 160), "spacing": (1.25, 1.25), "slices": 64, "step": 2.0}


def read_one(root: Path, **options: Any) -> tuple[Series, np.ndarray, float]:
    written = write_ct_series(root, **options)
    (series,) = read_series(root, Problems())
    return series, series.hu() == BLEED_HU, written.volume_ml


def make_series(positions: Any, size: int = 40, spacing: float = 1.0) -> Series:
    """Without files."""
    n = len(positions)
    return Series(
        stored=np.zeros((n, size, size), np.int16),
        slope=np.ones(n),
        intercept=np.zeros(n),
        padding=None,
        mask=None,
        patient="a",
        study="a",
        series="a",
        positions=np.array(positions, float),
        spacing=(spacing, spacing),
        tilt=0.0,
        sources=("a",) * n,
    )


def box(shape: tuple[int, ...], *slices: slice) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[slices] = True
    return mask


@pytest.mark.parametrize("geometry", ["flat", "tilted", "uneven", "both"])
def test_volume_of_an_ellipsoid(tmp_path: Path, geometry: str) -> None:
    series, mask, truth = read_one(tmp_path, geometry=geometry, **FINE)
    found = measure(series, mask)
    assert found.ml == pytest.approx(truth, rel=0.005)
    assert found.unknown is None
    assert len(found.components) == 1
    assert found.components[0].ml == found.ml
    assert found.gaps == ()
    assert found.areas is not None
    assert found.slabs is not None
    assert found.ml == pytest.approx(np.dot(found.areas, found.slabs) / 1000)


def test_missing_slices(tmp_path: Path) -> None:
    """Two of those through the bleed; SliceThickness is what it was."""
    series, mask, truth = read_one(tmp_path, **{**FINE, "missing": (30, 36)})
    found = measure(series, mask)
    assert found.ml == pytest.approx(truth, rel=0.005)
    assert [text.partition("; ")[0] for text in found.gaps] == [
        "a gap of 4.0 mm between slices 30 and 31, 2.0 mm beside it: 1 slice missing",
        "a gap of 4.0 mm between slices 35 and 36, 2.0 mm beside it: 1 slice missing",
    ]
    added = [float(text.rpartition("adds ")[2].removesuffix(" mL")) for text in found.gaps]
    areas = np.array(found.areas)
    np.testing.assert_allclose(added, [areas[29:31].sum() / 1000, areas[34:36].sum() / 1000], 0.1)


def test_two_images_at_one_place(tmp_path: Path) -> None:
    written = write_ct_series(tmp_path, **FINE)
    again = dcmread(written.files[32])
    again.PixelData = dcmread(written.files[33]).PixelData
    again.SOPInstanceUID = "1.2.3"
    again.save_as(tmp_path / "again.dcm")
    (series,) = read_series(tmp_path, Problems())
    found = measure(series, series.hu() == BLEED_HU)
    assert found.ml == pytest.approx(written.volume_ml, rel=0.005)


def test_no_blood(tmp_path: Path) -> None:
    series, mask, _ = read_one(tmp_path, geometry="negative", shape=(20, 20), spacing=(10, 10))
    found = measure(series, mask)
    assert (found.ml, found.components, found.abc2) == (0, (), None)
    assert set(found.pixels) == {0}


def test_a_mask_at_the_border() -> None:
    """All of it counts: first and last slice, all four edges."""
    series = make_series([0, 5, 10], size=8, spacing=2.0)
    found = measure(series, np.ones((3, 8, 8), bool))
    assert found.ml == pytest.approx(15 * 16 * 16 / 1000)
    assert found.areas == (256, 256, 256)
    one = measure(series, box((3, 8, 8), slice(0, 1), slice(0, 1), slice(7, 8)))
    assert one.ml == pytest.approx(5 * 4 / 1000)


def test_one_slice(tmp_path: Path) -> None:
    few = {"shape": (80, 80), "spacing": (2.5, 2.5), "slices": 1}
    series, mask, _ = read_one(tmp_path / "a", **few, SliceThickness=4)
    found = measure(series, mask)
    assert found.ml == pytest.approx(np.pi * BLEED[0] * BLEED[1] * 4 / 1000, rel=0.02)
    series, mask, _ = read_one(tmp_path / "b", **few, SliceThickness=None)
    found = measure(series, mask)
    assert (found.ml, found.slabs, found.abc2) == (None, None, None)
    assert found.unknown is not None
    assert "SliceThickness" in found.unknown
    assert found.areas == (np.count_nonzero(mask) * 2.5**2,)


def test_without_a_spacing() -> None:
    series = replace(make_series([0, 5, 10, 20, 25]), spacing=(float("nan"), float("nan")))
    found = measure(series, box((5, 40, 40), slice(1, 3), slice(5, 9), slice(5, 10)))
    assert found.pixels == (0, 20, 20, 0, 0)
    assert (found.ml, found.areas, found.abc2) == (None, None, None)
    assert found.unknown is not None
    assert "how large a pixel" in found.unknown
    assert [(c.pixels, c.ml, c.first, c.last) for c in found.components] == [(40, None, 1, 2)]
    assert len(found.gaps) == 1


def test_components_touch_by_corners() -> None:
    mask = np.zeros((4, 40, 40), bool)
    mask[0, 10, 10] = mask[1, 11, 11] = True  # one
    mask[1, 30:33, 30:33] = True  # another, on slices without and with a double slab
    mask[3, 10, 10] = True  # a third: slice 2 lies between
    found = measure(make_series([0, 1, 2, 10]), mask)
    assert [(c.pixels, c.first, c.last) for c in found.components] == [
        (9, 1, 1),
        (1, 3, 3),
        (2, 0, 1),
    ]
    assert found.ml == pytest.approx(sum(c.ml or 0 for c in found.components))
    labels, number = label_components(mask)
    assert number == 3
    np.testing.assert_array_equal(labels > 0, mask)


@pytest.mark.parametrize("angle", [0, 20, 45, 90, 130])
def test_abc2(angle: float) -> None:
    """An ellipsoid of half axes 30, 18 and 24 mm: slices count whole up to half of 24 mm from the
    middle, half up to 0.866 of it.
    """
    z, y, x = np.mgrid[-30:31:1, -40:40.5:0.5, -40:41:1]
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    mask = ((c * x + s * y) / 30) ** 2 + ((c * y - s * x) / 18) ** 2 + (z / 24) ** 2 < 1
    found = measure_abc2(mask, (0.5, 1.0), np.full(61, 1.0))
    assert found.a == pytest.approx(60, abs=1)
    assert found.b == pytest.approx(36, abs=1)
    assert found.c == pytest.approx(2 * 24 * (0.5 + 0.366 / 2), abs=1)
    assert found.ml == found.a * found.b * found.c / 2000


def test_abc2_of_a_pixel() -> None:
    found = measure_abc2(box((1, 5, 5), slice(1), slice(2, 3), slice(2, 3)), (0.5, 1.0), np.ones(1))
    assert (found.a, found.b, found.c) == (1.0, 0.5, 1.0)


def test_abc2_of_a_crescent() -> None:
    """It is as wide as it is thick: the hollow beside it does not count."""
    y, x = np.mgrid[-60:61, -60:61]
    crescent = (x**2 + y**2 < 50**2) & ((x + 10) ** 2 + y**2 >= 50**2) & (x > 0) & (abs(y) < 40)
    found = measure_abc2(crescent[None], (1.0, 1.0), np.ones(1))
    assert found.b == pytest.approx(11, abs=1.5)  # 7° off the level


def test_abc2_is_of_the_largest_component() -> None:
    mask = box((3, 40, 40), slice(0, 1), slice(2, 6), slice(2, 6))
    mask[2, 10:30, 10:20] = True
    found = measure(make_series([0, 5, 10]), mask)
    assert found.abc2 is not None
    assert found.abc2.b == pytest.approx(10, rel=0.2)
    assert found.abc2.c == 5


def test_measures_are_json(tmp_path: Path) -> None:
    series, mask, _ = read_one(tmp_path, slices=20)
    found = measure(series, mask)
    assert json.loads(json.dumps(asdict(found)))["ml"] == found.ml


def test_a_mask_of_another_kind(tmp_path: Path) -> None:
    series = make_series([0, 5])
    with pytest.raises(ValueError, match=r"mask is bool \(1, 40, 40\); pass bool \(2, 40, 40\)"):
        measure(series, np.zeros((1, 40, 40), bool))
    with pytest.raises(ValueError, match="mask is float64"):
        measure(series, np.zeros((2, 40, 40)))
