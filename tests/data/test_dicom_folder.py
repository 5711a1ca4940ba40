import os
from pathlib import Path

import numpy as np
import pytest

from ichfast.data import Problems, detect_layout, read_series
from ichfast.errors import DataError


def one(root: Path, problems: Problems | None = None):
    (series,) = read_series(root, problems or Problems())
    return series


def write_stack(write_dicom, root, head, zs, **tags):
    for i, z in enumerate(zs):
        write_dicom(root / f"{i}.dcm", (head() + i).astype(np.int16), z=z, **tags)


def test_slices_are_ordered_by_position_not_by_name(tmp_path, write_dicom, head):
    write_stack(write_dicom, tmp_path, head, [10, 0, 15, 5])
    series = one(tmp_path)
    assert series.sources == ("1.dcm", "3.dcm", "0.dcm", "2.dcm")
    np.testing.assert_allclose(series.positions, [0, 5, 10, 15])
    np.testing.assert_array_equal(series.hu(), [head() + i for i in (1, 3, 0, 2)])
    assert series.spacing == (0.5, 0.5)
    assert series.stored.dtype == np.int16
    assert series.quirks == ()


ORIENTATIONS = {
    "usual": ([1, 0, 0, 0, 1, 0], lambda upright: upright),
    "columns to the right": ([-1, 0, 0, 0, 1, 0], lambda upright: upright[:, ::-1]),
    "rows to the front": ([1, 0, 0, 0, -1, 0], lambda upright: upright[::-1]),
    "turned over": ([-1, 0, 0, 0, -1, 0], lambda upright: upright[::-1, ::-1]),
    "transposed": ([0, 1, 0, 1, 0, 0], lambda upright: upright.T),
    "turned left": ([0, -1, 0, 1, 0, 0], lambda upright: upright[::-1].T),
}


@pytest.mark.parametrize(("cosines", "store"), ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_every_orientation_becomes_upright(tmp_path, write_dicom, head, cosines, store):
    for i, z in enumerate([0, 5]):
        pixels = np.ascontiguousarray(store(head() + i).astype(np.int16))
        tags = {"ImageOrientationPatient": cosines, "PixelSpacing": [0.5, 0.75]}
        write_dicom(tmp_path / f"{i}.dcm", pixels, z=z, **tags)
    series = one(tmp_path)
    np.testing.assert_array_equal(series.hu(), [head(), head() + 1])
    np.testing.assert_allclose(series.positions, [0, 5])
    assert series.spacing == ((0.75, 0.5) if cosines[0] == 0 else (0.5, 0.75))


def test_series_sizes_and_orientations_are_kept_apart(tmp_path, write_dicom, head):
    pixels = head().astype(np.int16)
    write_dicom(tmp_path / "a.dcm", pixels)
    write_dicom(tmp_path / "b.dcm", pixels, z=5, SeriesInstanceUID="9.9")
    write_dicom(tmp_path / "c.dcm", head(16).astype(np.int16), z=5)
    tilted = [1, 0, 0, 0, 0.95, -0.3122499]
    write_dicom(tmp_path / "d.dcm", pixels, z=5, ImageOrientationPatient=tilted)
    write_dicom(tmp_path / "e.dcm", pixels, z=5, PatientID="someone else")
    all_series = list(read_series(tmp_path, Problems()))
    assert sorted(s.sources[0] for s in all_series) == [f"{n}.dcm" for n in "abcde"]


def test_a_copied_file_counts_once(tmp_path, write_dicom, head):
    write_stack(write_dicom, tmp_path, head, [0, 5])
    (tmp_path / "copy of 1.dcm").write_bytes((tmp_path / "1.dcm").read_bytes())
    problems = Problems()
    assert len(one(tmp_path, problems)) == 2
    assert problems.items[0].reason == "the same image as 1.dcm"


def test_nothing_readable_is_an_error_with_the_reasons(tmp_path, write_dicom, head):
    write_dicom(tmp_path / "a.dcm", head().astype(np.int16), RescaleSlope=None)
    with pytest.raises(DataError, match=r"nothing could be read.*a\.dcm: RescaleSlope"):
        list(read_series(tmp_path, Problems()))


def test_too_many_bad_files_stop(tmp_path, write_dicom, head):
    pixels = head(8).astype(np.int16)
    for i in range(30):
        write_dicom(tmp_path / f"good{i}.dcm", pixels + i, z=i)
        write_dicom(tmp_path / f"bad{i}.dcm", pixels, RescaleSlope=None)
    with pytest.raises(DataError, match="too many unreadable files"):
        list(read_series(tmp_path, Problems()))


def test_summary_stays_short():
    problems = Problems()
    problems.expect(1000)
    for i in range(90):
        problems.add(f"{i}.dcm", "empty file")
        problems.skip(f"{i}.txt", f"reason {i}")
    text = problems.summary()
    assert text.startswith(
        "90 not read, 90 left out or odd (0.dcm, 1.dcm, 2.dcm and 87 more: empty"
    )
    assert text.endswith("and 83 more reasons)")


def test_no_patient_in_messages(tmp_path, write_dicom, head, caplog, recwarn, capfd):
    pixels = head().astype(np.int16)
    tags = {"PatientID": "Jane\nRoe", "PatientName": "Roe^Jane"}
    write_dicom(tmp_path / "good.dcm", pixels, **tags)
    write_dicom(tmp_path / "bad.dcm", pixels, z=5, RescaleSlope=None, **tags)
    problems = Problems()
    list(read_series(tmp_path, problems))
    output = capfd.readouterr()
    for text in (problems.summary(), caplog.text, output.out, output.err, *map(str, recwarn)):
        assert "Roe" not in text


def test_strange_file_names_are_printable(tmp_path, write_dicom, head):
    write_dicom(tmp_path / "good.dcm", head().astype(np.int16))
    (tmp_path / os.fsdecode(b"bad\xff\x1b[31m.dcm")).touch()
    problems = Problems()
    list(read_series(tmp_path, problems))
    assert problems.items[0].source.isprintable()
    problems.summary().encode()


# --- a real scan ---


def test_real_head_ct(head_ct):
    series = one(head_ct)
    assert series.stored.shape == (28, 512, 512)
    assert series.tilt == pytest.approx(18.5, abs=0.01)
    np.testing.assert_allclose(
        np.diff(series.positions), [4.002] * 13 + [1.081] + [6.999] * 13, atol=1e-3
    )
    assert series.padding == -1500
    assert series.quirks == ("pixel padding", "gantry tilt", "uneven spacing")
    hu = series.hu()
    assert hu.min() >= -1024
    assert hu[:, 0, 0].max() == -1000  # padding in the corners
    # Upright: in a slice through the face the nose is a thin tip above, the head below is wide.
    tissue = hu[2] > -300
    rows = np.flatnonzero(tissue.any(1))
    assert tissue[rows[10]].sum() < tissue[rows[len(rows) // 2]].sum() / 3


def test_layout_errors(tmp_path):
    with pytest.raises(DataError, match="no such folder; check"):
        detect_layout(tmp_path / "missing")
    with pytest.raises(DataError, match="Looked for a folder ct_scans"):
        detect_layout(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be listed"):
        detect_layout(tmp_path / "file")
    (tmp_path / "labelled").mkdir()
    (tmp_path / "unlabelled").mkdir()
    with pytest.raises(DataError, match="holds two sets"):
        detect_layout(tmp_path)
