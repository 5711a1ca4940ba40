"""What is taken for a head, and what is said of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_series import write_ct_series

from ichfast.data.problems import Problems
from ichfast.data.series import Series
from ichfast.data.stacks import read_stacks
from ichfast.inference.suitability import Facts, find_doubts, find_warnings, read_facts


@pytest.fixture
def series(tmp_path: Path) -> Series:
    write_ct_series(tmp_path)
    (found,) = read_stacks(tmp_path, Problems())
    return found


@pytest.mark.parametrize(
    ("part", "description", "other"),
    [
        ("HEAD", "", ""),
        ("", "", ""),
        ("HEADNECK", "CT Neck", ""),
        ("", "Cranial CT", ""),
        ("CHEST", "", "CHEST"),
        ("", "CT Abdomen/Pelvis", "ABDOMEN"),
        ("cspine", "", "SPINE"),
        ("", "College of pharmacy, whiplash", ""),
        ("", "CT_HIPS", "HIP"),
    ],
)
def test_the_part_of_the_body(series: Series, part: str, description: str, other: str) -> None:
    doubts = find_doubts(series, Facts(part, description))
    assert [other in doubt for doubt in doubts] == ([True] if other else [])


@pytest.mark.parametrize(
    ("contrast", "description", "said"),
    [
        ("", "CT Head without contrast", False),
        ("", "CT HEAD W/O", False),
        ("", "CTA head", True),
        ("", "CT head with contrast", True),
        ("", "Schädel mit KM", True),
        ("", "Schädel ohne KM", False),
        ("", "CT head no contrast", False),
        ("NONE", "CT head", False),
        ("Iohexol 300", "", True),
        ("", "Head CE", True),
        ("", "CT head", False),
    ],
)
def test_contrast(series: Series, contrast: str, description: str, said: bool) -> None:
    warnings = find_warnings(series, Facts("", description, contrast))
    assert any("contrast agent" in warning for warning in warnings) == said


def test_pixels_that_are_no_head(series: Series) -> None:
    soft = replace(series, stored=np.minimum(series.stored, 1024 + 60))
    assert "is bone" in find_doubts(soft, Facts())[0]
    empty = replace(series, stored=np.zeros_like(series.stored))
    assert find_doubts(empty, Facts()) == ["no slice shows a body"]
    small = replace(series, spacing=(1.0, 1.0))
    assert "the body measures" in find_doubts(small, Facts())[0]
    short = replace(series, positions=series.positions / 3)
    assert "of the long axis" in find_doubts(short, Facts())[0]
    pictures = replace(series, spacing=(np.nan, np.nan), hu_range=(-20.0, 100.0))
    assert not find_doubts(pictures, Facts())


def test_facts_of_a_header(tmp_path: Path) -> None:
    written = write_ct_series(tmp_path, BodyPartExamined=None)
    assert read_facts(written.files[0]) == Facts("", "Head flat")
