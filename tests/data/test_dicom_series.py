"""The drawn series are what they say they are."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from dicom_series import GEOMETRIES, TILT, write_ct_series
from dicom_tools import list_errors

from ichfast.data import Problems, read_series


@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_reader_finds_what_was_written(tmp_path: Path, geometry: str, enhanced: bool) -> None:
    written = write_ct_series(tmp_path, geometry, missing=(3,), enhanced=enhanced)
    problems = Problems()
    (series,) = read_series(tmp_path, problems)
    np.testing.assert_array_equal(series.hu(), written.hu)
    np.testing.assert_allclose(series.positions, written.positions, atol=1e-4)
    assert series.sources == written.sources
    assert series.tilt == pytest.approx(TILT if geometry in ("tilted", "both") else 0, abs=1e-3)
    assert written.mask.any() == (geometry != "negative")


@pytest.mark.parametrize(("transpose", "rows", "columns"), list(product([False, True], repeat=3)))
def test_orientation_of_files_does_not_matter(
    tmp_path: Path, transpose: bool, rows: bool, columns: bool
) -> None:
    written = write_ct_series(
        tmp_path,
        "both",
        shape=(48, 64),
        spacing=(4.5, 3.5),
        transpose=transpose,
        flip_rows=rows,
        flip_columns=columns,
        descending=True,
    )
    (series,) = read_series(tmp_path, Problems())
    np.testing.assert_array_equal(series.hu(), written.hu)
    assert series.spacing == (4.5, 3.5)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_volume_is_that_of_the_formula(tmp_path: Path, geometry: str) -> None:
    written = write_ct_series(
        tmp_path, geometry, shape=(200, 200), spacing=(1, 1), slices=48, step=1.25
    )
    slabs = np.gradient(written.positions)  # to half-way to both neighbours
    volume_ml = (slabs * written.mask.sum((1, 2))).sum() / 1000
    assert volume_ml == pytest.approx(written.volume_ml, rel=0.005)


def test_files_are_valid(tmp_path: Path) -> None:
    written = write_ct_series(tmp_path, "both", slices=3)
    for path in written.files:
        assert list_errors(path) == []
