"""Small files that ask for gigabytes or minutes: each is refused by name, at once, and in little
memory. The numbers are in docs/data.md.
"""

import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bombs
import nibabel
import numpy as np
import pytest
from bombs import MIB
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from ichfast.data import limits
from ichfast.data.dicom import read_image
from ichfast.data.enhanced import EnhancedFile, read_pictures
from ichfast.data.headers import read_header
from ichfast.data.nifti import read_nifti
from ichfast.data.problems import Refused
from ichfast.data.texts import open_text, read_text
from ichfast.errors import DataError
from ichfast.inference.outputs.source_slices import _read_tags
from ichfast.inference.suitability import read_facts


def measure_peak(act: Callable[[], Any]) -> int:
    """Bytes that Python, NumPy and zlib took for it; what it refuses is refused."""
    tracemalloc.start()
    try:
        act()
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak


# Deflated DICOM


@pytest.mark.parametrize("read", [read_image, read_header, read_facts, _read_tags])
def test_deflated_pixels(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    """100 MiB in 100 kB, of 8 kB that are asked for."""
    path = bombs.deflated_pixels(tmp_path / "a.dcm", 100 * MIB)
    assert path.stat().st_size < 200_000

    def act() -> None:
        try:
            read(path)
        except Refused:
            assert read not in (read_header, read_facts)

    assert measure_peak(act) < 8 * MIB
    if read is read_image:
        with pytest.raises(Refused, match=r"holds 104,857,600 bytes, Rows x Columns needs 8,192"):
            read_image(path)


@pytest.mark.parametrize("read", [read_image, read_header, read_facts, read_pictures])
def test_deflated_elements(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    path = bombs.deflated_elements(tmp_path / "a.dcm", MIB)
    with pytest.raises(Refused, match="its deflated header inflates to over 1,048,576 bytes"):
        read(path)


@pytest.mark.parametrize("enhanced", [False, True])
def test_deflated_elements_without_a_preamble(tmp_path: Path, enhanced: bool) -> None:
    path = bombs.deflated_elements(tmp_path / "a.dcm", MIB)
    path.write_bytes(path.read_bytes()[132:])
    with pytest.raises(Refused, match=r"deflated header inflates to over|enhanced CT, deflated"):
        EnhancedFile(path) if enhanced else read_image(path)


def test_a_deflated_file_is_read_as_a_plain_one(
    tmp_path: Path, write_dicom: Any, make_dicom: Any, head: Any
) -> None:
    stored = head(64).astype(np.int16)
    plain = read_image(write_dicom(tmp_path / "plain.dcm", stored))
    path = tmp_path / "deflated.dcm"
    dataset = make_dicom(stored, TransferSyntaxUID=DeflatedExplicitVRLittleEndian)
    dataset.save_as(path, enforce_file_format=True)
    image = read_image(path)
    np.testing.assert_array_equal(image.stored, plain.stored)
    assert image.header.transfer_syntax == DeflatedExplicitVRLittleEndian
    assert image.header.position == plain.header.position
    data = path.read_bytes()
    path.write_bytes(data[132:])  # without its preamble
    np.testing.assert_array_equal(read_image(path).stored, plain.stored)
    for size in range(600, len(data) - 1, len(data) // 20):  # cut short
        path.write_bytes(data[:size])
        with pytest.raises(Refused):
            read_image(path)


def test_deflated_enhanced_ct(tmp_path: Path) -> None:
    path = bombs.empty_frames(tmp_path / "a.dcm", 3)
    data = path.read_bytes()
    at = data.index(bombs.ct_elements(1)[:20])
    syntax = DeflatedExplicitVRLittleEndian
    path.write_bytes(bombs.file_meta(syntax) + bombs.deflate(data[at:]))
    with pytest.raises(Refused, match="enhanced CT, deflated; convert it"):
        read_pictures(path)


# Frames


def test_frames_without_end(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="40,000 frames in a file; 16,384 can be read"):
        read_pictures(bombs.empty_frames(tmp_path / "a.dcm", 40_000))


def test_frames_that_the_file_does_not_hold(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="truncated: 16,000 frames in"):
        read_pictures(bombs.empty_frames(tmp_path / "a.dcm", 16_000))


def test_frames_beyond_any_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As 16,000 pictures of 4096 x 4096 in a kilobyte each."""
    monkeypatch.setattr(limits, "SCAN", 1000)
    with pytest.raises(Refused, match="1,536 bytes of voxels; 1,000 can be read"):
        read_pictures(bombs.empty_frames(tmp_path / "a.dcm", 3))


# Whole files


def test_a_large_file_of_one_slice(tmp_path: Path) -> None:
    """With a hole of a gigabyte in it, that takes no disk."""
    path = bombs.tiny_precincts(tmp_path / "a.dcm", 64)
    with path.open("ab") as file:
        file.truncate(1 << 30)
    with pytest.raises(Refused, match="1,073,741,824 bytes for one slice"):
        read_image(path)


# NIfTI


def read_scan(path: Path, mask: Path | None = None) -> Any:
    return read_nifti(path, mask, "a", "a")


@pytest.mark.parametrize(
    ("shape", "offset"), [((512, 512, 200), 352), ((16, 16, 8), 80 * MIB)], ids=["voxels", "before"]
)
def test_gzipped_nifti(
    tmp_path: Path, shape: tuple[int, int, int], offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FREE", MIB)
    path = bombs.gzipped_nifti(tmp_path / "a.nii.gz", shape, offset=offset)
    wanted = offset + 2 * math.prod(shape)
    with pytest.raises(Refused, match=f"says that it inflates to {wanted:,}"):
        read_scan(path)


def test_extensions_of_a_gzipped_nifti(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nibabel reads them while it opens the file."""
    monkeypatch.setattr(limits, "FREE", MIB)
    path = bombs.gzipped_nifti(tmp_path / "a.nii.gz", (16, 16, 8), offset=100 * MIB)
    with pytest.raises(Refused, match="inflates"):
        read_scan(path)


def test_a_scan_beyond_any_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((16, 16, 8), np.int16), np.eye(4)), path)
    monkeypatch.setattr(limits, "SCAN", 4096)
    with pytest.raises(Refused, match="4,448 bytes of voxels; 4,096 can be read"):
        read_scan(path)


def test_a_mask_is_bounded_by_its_scan(
    tmp_path: Path, head: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks shrink to a thousandth, so their own size says nothing."""
    affine = np.diag([-0.5, -0.5, 5.0, 1.0])
    scan = np.stack(4 * [head(32)], axis=2).astype(np.int16)
    for name, voxels in (("a", scan), ("mask", np.zeros(scan.shape))):
        nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / f"{name}.nii.gz")
    mask = tmp_path / "mask.nii.gz"
    monkeypatch.setattr(limits, "FREE", MIB)
    read_scan(tmp_path / "a.nii.gz", mask)
    bombs.gzipped_nifti(mask, scan.shape, offset=2 * MIB)
    with pytest.raises(Refused, match="says that it holds 2,1"):
        read_scan(tmp_path / "a.nii.gz", mask)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_ordinary_scans_are_read(tmp_path: Path, head: Any, kind: Any) -> None:
    voxels = np.stack(8 * [head(64)], axis=2).astype(np.int16)
    path = tmp_path / "a.nii.gz"
    nibabel.save(kind(voxels, np.diag([-0.5, -0.5, 5.0, 1.0])), path)
    series, _ = read_scan(path)
    assert len(series) == 8


# Tables and texts


@pytest.mark.parametrize("start", [b"", b"ID,Label\n", b"\xff\xfea\0,\0b\0\n\0"])
def test_a_line_without_end(tmp_path: Path, start: bytes) -> None:
    path = bombs.long_line(tmp_path / "a.csv", 1 << 30, start + b"a" * 5000)
    with pytest.raises(DataError, match=r"a\.csv: (a line of over|not a text)"):
        open_text(path)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_around_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    monkeypatch.setattr(limits, "LINE", 100)
    path = tmp_path / "a.csv"
    for length, before in ((100, 0), (100, 37), (100, 99), (101, 0), (101, 37), (250, 7)):
        path.write_bytes(b"b" * before + end + b"a" * length + end + b"b")
        if length > 100:
            with pytest.raises(DataError, match="a line of over 100 bytes, so it is no table"):
                open_text(path)
        else:
            with open_text(path) as file:
                assert file.read().count("a") == length


def test_a_text_of_a_gigabyte(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too many for a text"):
        read_text(bombs.long_line(tmp_path / "a.json", 1 << 30))


# Pictures


def test_a_jpeg_that_says_it_is_huge(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    from ichfast.data.layouts.ct_ich_jpeg import _read_grey

    with pytest.raises(Refused, match="not a readable JPEG picture"):
        _read_grey(bombs.wide_jpeg(tmp_path / "1.jpg", 65_500))
    with pytest.raises(Refused, match=r"1\.jpg has a side of 9,000 pixels; 4096 can be read"):
        _read_grey(bombs.wide_jpeg(tmp_path / "1.jpg", 9000))  # which Pillow would inflate


def test_the_writer_of_bombs_writes_what_is_read(tmp_path: Path) -> None:
    """Without the bomb in it, such a file is a CT slice."""
    pixels = np.arange(64 * 64, dtype="<u2")
    path = tmp_path / "a.dcm"
    element = bombs.element(0x7FE00010, b"OW", pixels.tobytes())
    path.write_bytes(bombs.file_meta(ExplicitVRLittleEndian) + bombs.ct_elements(64) + element)
    np.testing.assert_array_equal(read_image(path).stored.ravel(), pixels)
