"""read_window: one file, as the training path makes it."""

import os
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from typing import Any

import numpy as np
import pytest
import torch

from ichfast.data import dicom, load_slices, read_window
from ichfast.data.dicom import find_pixels, read_image
from ichfast.data.problems import Refused
from ichfast.errors import DataError

BRAIN = (40.0, 80.0)


def test_as_load_slices_makes_it(tmp_path, write_dicom, head) -> None:
    turned = head().T[::-1].astype(np.int16)
    variants = {
        "plain": ({}, head().astype(np.int16)),
        "rescaled": (
            {"RescaleSlope": "0.5", "RescaleIntercept": "-100"},
            (2 * head() + 200).astype(np.int16),
        ),
        "padded": ({"PixelPaddingValue": -1000}, head().astype(np.int16)),
        "turned": ({"ImageOrientationPatient": [0, -1, 0, -1, 0, 0]}, turned),
    }
    for name, (tags, pixels) in variants.items():
        path = write_dicom(tmp_path / name / "a.dcm", pixels, **tags)
        slices, _ = load_slices(path.parent, size=16, window=BRAIN, labelled=False, progress=False)
        images, _ = slices.batch([0])
        # Slices in memory are rounded to whole HU.
        torch.testing.assert_close(
            read_window(path, 16, BRAIN), images[0, 0], atol=0.501 / 79, rtol=0
        )


def test_each_result_is_its_own(tmp_path, write_dicom, head) -> None:
    paths = [
        write_dicom(tmp_path / f"{k}.dcm", (head() + 5 * k).astype(np.int16)) for k in range(6)
    ]
    one_by_one = [read_window(path, 16, BRAIN).clone() for path in paths]
    kept = [read_window(path, 16, BRAIN) for path in paths]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda path: read_window(path, 16, BRAIN), paths * 20))
    for k, expected in enumerate(one_by_one):
        assert torch.equal(kept[k], expected)
        assert all(torch.equal(other, expected) for other in together[k :: len(paths)])
    assert not torch.equal(kept[0], kept[1])


def test_a_truncated_file_does_not_show_the_one_before(tmp_path, write_dicom, head) -> None:
    whole = write_dicom(tmp_path / "whole.dcm", head().astype(np.int16))
    half = tmp_path / "half.dcm"
    half.write_bytes(whole.read_bytes()[:-100])
    read_image(whole)
    with pytest.raises(Refused, match="truncated"):
        read_image(half)
    with pytest.raises(DataError, match=r"half\.dcm: pixel data is truncated"):
        read_window(half, 16, BRAIN)


def test_a_file_cut_while_it_is_read(tmp_path, write_dicom, head, monkeypatch) -> None:
    path = write_dicom(tmp_path / "a.dcm", head().astype(np.int16))
    size = path.stat().st_size

    def cut(*arguments: Any) -> int:
        begin = find_pixels(*arguments)
        os.truncate(path, size - 100)
        return begin

    monkeypatch.setattr(dicom, "find_pixels", cut)
    with pytest.raises(DataError, match=r"a\.dcm: pixel data is truncated since"):
        read_window(path, 16, BRAIN)


def test_a_disk_that_gives_its_bytes_in_parts(tmp_path, write_dicom, head, monkeypatch) -> None:
    path = write_dicom(tmp_path / "a.dcm", head().astype(np.int16))
    expected = read_image(path).stored

    class Slow(FileIO):
        def readinto(self, buffer: Any) -> int:
            return super().readinto(memoryview(buffer)[:100])

    monkeypatch.setattr(dicom, "open_file", Slow)
    np.testing.assert_array_equal(read_image(path).stored, expected)


def test_what_has_no_slice_to_show(tmp_path, write_dicom, head) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    oblong = write_dicom(tmp_path / "oblong.dcm", head()[4:].astype(np.int16))
    side = write_dicom(
        tmp_path / "side.dcm",
        head().astype(np.int16),
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
    )
    for path, reason in (
        (tmp_path / "notes.txt", "not a DICOM file"),
        (tmp_path / "gone.dcm", "cannot be opened"),
        (oblong, "not square"),
        (side, "not an axial slice"),
    ):
        with pytest.raises(DataError, match=rf"{path.name}: {reason}"):
            read_window(path, 16, BRAIN)
