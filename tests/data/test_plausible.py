"""Numbers that cannot be HU are refused in every format, and those that can are not."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from preparing import make
from published import save_nifti, scan

from ichfast.data import Problems, read_series, read_window
from ichfast.data.plausible import is_plain, judge, take_census
from ichfast.data.quirks import correct
from ichfast.errors import DataError


def grey(hu: np.ndarray, top: int = 255) -> np.ndarray:
    return np.asarray((np.clip(hu / 80, 0, 1) * top).astype(np.int32))


def in_circle(hu: np.ndarray, outside: int) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : hu.shape[-2] * 1j, -1 : 1 : hu.shape[-1] * 1j]
    return np.where(np.hypot(x, y) > 1, outside, hu)


WRONG = {
    "grey": (grey, {}),
    "grey of 12 bits": (lambda hu: grey(hu, 4095), {"BitsStored": 12}),
    "grey below air": (grey, {"RescaleIntercept": -1024}),
    "0 and 1": (lambda hu: grey(hu, 1), {}),
    "lost intercept": (lambda hu: hu + 1024, {}),
    "lost intercept, padded": (
        lambda hu: in_circle(hu + 1024, 5000),
        {"PixelPaddingValue": 5000},
    ),
    "twice the intercept": (lambda hu: hu + 1024, {"RescaleIntercept": -2048}),
    "inverted": (lambda hu: -hu + 1000, {"RescaleIntercept": -1000}),
    "slope -1": (lambda hu: hu + 1024, {"RescaleSlope": -1, "RescaleIntercept": 1024}),
    "tenfold": (lambda hu: hu + 1024, {"RescaleSlope": 10, "RescaleIntercept": -10240}),
    "bone cut off": (lambda hu: np.minimum(hu, 80) + 1024, {"RescaleIntercept": -1024}),
}


@pytest.mark.parametrize(("change", "tags"), WRONG.values(), ids=WRONG.keys())
def test_not_in_hu(tmp_path: Path, write_dicom: Any, change: Any, tags: Any) -> None:
    root = tmp_path / "set"
    for k, hu in enumerate(scan()):
        stored = change(hu.astype(np.int32))
        kind = np.uint16 if "BitsStored" in tags else np.int16
        write_dicom(root / f"{k}.dcm", stored.astype(kind), 5 * k, **tags)
    with pytest.raises(DataError, match="not in HU"):
        list(read_series(root, Problems()))
    with pytest.raises(DataError, match="not in HU"):
        make(root, tmp_path / "pool")
    # One slice may lie above the skull, so bone that is missing tells nothing.
    if tags.get("RescaleIntercept") not in (-1024, -2048) or change is grey:
        with pytest.raises(DataError, match=r"0\.dcm: not in HU"):
            read_window(root / "0.dcm", 16, (40, 80))


PATCH = st.tuples(
    st.sampled_from([-3000, -1000, -700, -60, 30, 250, 900, 4000]), *[st.floats(0, 1)] * 4
)


@given(
    background=st.sampled_from([-3000, -1024, -1000, 0, 40, 900]),
    patches=st.lists(PATCH, max_size=6),
    slope=st.sampled_from([0.5, 1.0, 2.0]),
    intercept=st.sampled_from([-1024.0, 0.0, -8192.0]),
)
def test_what_is_plain_is_not_refused(
    background: int, patches: list[Any], slope: float, intercept: float
) -> None:
    hu = np.full((192, 192), background)
    for value, top, left, height, width in patches:
        y, x = int(192 * top), int(192 * left)
        hu[y : y + int(192 * height) + 1, x : x + int(192 * width) + 1] = value
    stored = ((hu - intercept) / slope).astype(np.int32)
    if is_plain(stored, slope, intercept):
        judge(take_census(stored[None], np.array([slope]), np.array([intercept]), None))


def test_a_head_is_plain() -> None:
    head = np.full((256, 256), -1000, np.int16)
    head[32:224, 32:224] = 900
    head[56:200, 56:200] = 35
    assert is_plain(head + 1024, 1.0, -1024.0)
    assert not is_plain(head + 1024, 1.0, 0.0)  # a lost intercept: the border is no air
    assert not is_plain(np.where(head == 35, 900, head), 1.0, 0.0)  # no soft tissue


@pytest.mark.parametrize("bits", [12, 16])
def test_grey_levels_are_not_unwrapped(tmp_path: Path, write_dicom: Any, bits: int) -> None:
    stored = grey(scan()[0].astype(np.int32), 4095).astype(np.uint16)
    path = write_dicom(tmp_path / "a.dcm", stored, BitsStored=bits)
    with pytest.raises(DataError, match="not in HU"):
        read_window(path, 16, (40, 80))


def test_undeclared_padding_of_a_wrapped_picture(tmp_path: Path, write_dicom: Any) -> None:
    """-2000 in 12 bits is 2096; dense bone of that value stays."""
    from ichfast.data.dicom import read_image

    hu = scan(64)[0].astype(np.int32)
    hu[30, 30] = 2096
    stored = (in_circle(hu, -2000) % 4096).astype(np.uint16)
    image = read_image(write_dicom(tmp_path / "a.dcm", stored, BitsStored=12))
    assert correct(image) == ("wrapped 12-bit",)
    found = image.stored * image.slope + image.intercept
    found[image.stored == image.padding] = -1000
    np.testing.assert_array_equal(found, in_circle(hu, -1000))


def test_scans_that_are_odd_and_in_hu(tmp_path: Path, write_dicom: Any) -> None:
    hu = scan(64).astype(np.int32)
    few = np.where(hu > 80, 40, hu)  # above the skull
    inner = hu[:, 10:54, 12:52]
    inside = np.where(inner < -500, -100, inner)  # no air, a little fat
    padded = in_circle(hu, -2000)
    for name, volume in (("few", few[:2]), ("inside", inside), ("padded", padded)):
        for k, own in enumerate(volume):
            pixels = own.astype(np.int16)
            write_dicom(tmp_path / name / f"{k}.dcm", pixels, 5 * k, SeriesInstanceUID=name)
    found = {series.series: series.quirks for series in read_series(tmp_path, Problems())}
    assert found == {"few": ("no bone",), "inside": ("no air",), "padded": ()}


def test_ranges_in_nifti(tmp_path: Path) -> None:
    for slope, reason in ((100, "no scanner makes"), (1e6, "no scanner makes"), (10, "not in HU")):
        path = tmp_path / "a.nii"
        save_nifti(path, scan())
        with path.open("r+b") as file:
            header = nibabel.Nifti1Header.from_fileobj(file)
            header["scl_slope"], header["scl_inter"] = slope, 0
            file.seek(0)
            file.write(header.binaryblock)
        with pytest.raises(DataError, match=reason):
            list(read_series(tmp_path, Problems()))


def test_coarse_steps(tmp_path: Path, write_dicom: Any) -> None:
    """By the slope, and in the pixels; a lossy picture says that it is one."""
    rng = np.random.default_rng(0)
    hu = scan(64).astype(np.int32) + rng.integers(-20, 20, (4, 64, 64))
    hu[hu > 500] += rng.integers(-400, 400, int((hu > 500).sum()))
    coarse = {"RescaleSlope": 32, "RescaleIntercept": -1024, "LossyImageCompression": "01"}
    for k in range(4):
        own = {"z": 5.0 * k, "SeriesInstanceUID": "1"}
        write_dicom(
            tmp_path / f"a{k}.dcm", ((hu[k] + 1024) // 32).astype(np.uint8), **own, **coarse
        )
        own["SeriesInstanceUID"] = "2"
        write_dicom(tmp_path / f"b{k}.dcm", (hu[k] // 16 * 16).astype(np.int16), **own)
        own["SeriesInstanceUID"] = "3"
        write_dicom(tmp_path / f"c{k}.dcm", hu[k].astype(np.int16), **own)
    found = {series.series: series.quirks for series in read_series(tmp_path, Problems())}
    assert found == {"1": ("lossy compression", "coarse steps"), "2": ("coarse steps",), "3": ()}
