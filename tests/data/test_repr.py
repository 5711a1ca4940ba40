"""What a notebook prints of a data set names nobody."""

from collections.abc import Callable
from pathlib import Path

import pydicom

from ichfast.data import Pool, Problems, load_slices, read_series
from ichfast.data.headers import scan_header
from ichfast.data.prepare import prepare_pool
from ichfast.training.parts import Parts


def test_no_name_is_printed(tmp_path: Path, write_ct_ich: Callable[..., Path]) -> None:
    root = write_ct_ich(tmp_path / "set")
    scans = list(read_series(root, Problems()))
    pool = prepare_pool(root, tmp_path / "pool", size=16, workers=1, progress=False)
    slices, _ = load_slices(root, size=16, window=(40, 80), labelled=True)
    assert isinstance(pool, Pool)
    for shown in (*scans, pool, *pool.index, slices, Parts(slices, slices, slices)):
        for name in ("049", "050", "ct_scans"):
            assert name not in repr(shown)
    assert repr(slices) == "<SliceSet: 8 slices of 2 patients, 16 x 16, with masks>"


def test_no_uid_of_a_header_is_printed(tmp_path: Path, write_rsna: Callable[..., Path]) -> None:
    root = write_rsna(tmp_path)
    path = next(root.rglob("*.dcm"))
    data = pydicom.dcmread(path)
    header, _ = scan_header(path)
    for scan in read_series(root, Problems()):
        for shown in (header, scan):
            for name in (data.PatientID, data.StudyInstanceUID, data.SeriesInstanceUID, path.stem):
                assert str(name) not in repr(shown)
