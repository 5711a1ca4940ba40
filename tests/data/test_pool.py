"""A pool's folder: what it gives, and what is refused."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ichfast.data import SUBTYPES, Pool
from ichfast.data.prepare import prepare_pool
from ichfast.errors import DataError


@pytest.fixture
def folder(tmp_path: Path, write_ct_ich: Callable[..., Path]) -> Path:
    root = write_ct_ich(tmp_path / "set")
    prepare_pool(root, tmp_path / "pool", size=16, workers=1, progress=False)
    return tmp_path / "pool"


def test_arrays_are_mapped_and_plain_numpy_reads_them(folder: Path) -> None:
    pool = Pool(folder)
    assert (len(pool), pool.size, pool.patients, pool.series) == (8, 16, 2, 2)
    assert isinstance(pool.images, np.memmap)
    assert pool.images.dtype == np.int16
    assert np.array_equal(np.load(folder / "pool.npy"), pool.images)
    assert pool.masks is not None
    assert pool.masks.dtype == np.uint8
    assert set(np.unique(pool.masks)) == {0, 1}


def test_tensors_share_the_map_without_a_warning(folder: Path) -> None:
    pool = Pool(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images, masks = pool.tensor(), pool.mask_tensor()
    assert images.dtype == torch.int16
    assert images.shape == (8, 16, 16)
    assert images.data_ptr() == pool.images.__array_interface__["data"][0]
    assert masks is not None
    assert masks.data_ptr() == pool.masks.__array_interface__["data"][0]
    expected = np.array(pool.images)
    del pool  # the tensor keeps the map
    assert np.array_equal(images.numpy(), expected)


def test_index_has_a_row_for_every_slice(folder: Path) -> None:
    rows = Pool(folder).index
    assert [row.patient for row in rows] == ["049"] * 4 + ["050"] * 4
    assert [row.source for row in rows[:4]] == [f"ct_scans/049.nii#{k}" for k in (1, 2, 3, 4)]
    assert [row.subtypes for row in rows[:4]] == [(), (), ("epidural",), ()]
    assert all(set(row.subtypes or ()) <= set(SUBTYPES) and row.has_mask for row in rows)
    assert rows[0].spacing == (1.0, 1.0)  # 32 x 32 pixels of 0.5 mm as 16 x 16
    assert rows[1].position - rows[0].position == 5


def test_fingerprint_tells_pools_apart(
    tmp_path: Path, folder: Path, write_ct_ich: Callable[..., Path]
) -> None:
    same, other = tmp_path / "same", tmp_path / "other"
    prepare_pool(tmp_path / "set", same, size=16, workers=1, progress=False)
    prepare_pool(tmp_path / "set", other, size=8, workers=1, progress=False)
    assert Pool(folder).fingerprint() == Pool(same).fingerprint()
    assert Pool(folder).fingerprint() != Pool(other).fingerprint()


@pytest.mark.parametrize(
    ("name", "place", "bits"),
    [
        *((name, -5, 1) for name in ("pool.npy", "masks.npy", "index.jsonl")),
        ("pool.npy", 120, ord(" ") ^ ord("\t")),  # in the header, which NumPy reads all the same
    ],
)
def test_verify_finds_a_changed_byte(folder: Path, name: str, place: int, bits: int) -> None:
    Pool(folder).verify()
    content = bytearray((folder / name).read_bytes())
    content[place] ^= bits
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: changed since it was written"):
        Pool(folder).verify()


@pytest.mark.parametrize("name", ["pool.npy", "masks.npy", "index.jsonl"])
def test_missing_and_truncated_files_are_refused_at_once(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    with pytest.raises(DataError, match=rf"{name}: has .* bytes instead of .*delete the folder"):
        Pool(folder)
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: missing; copy it again"):
        Pool(folder)


def test_other_formats_and_other_folders_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match=r"no pool.*python -m ichfast.prepare ROOT --out"):
        Pool(tmp_path)
    manifest = folder / "pool.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "format": 1}))
    with pytest.raises(DataError, match=r"another version of ichfast \(pool format 1, not 2\)"):
        Pool(folder)
    for text in ("", "[]", "{", json.dumps({"format": 2}), json.dumps({**content, "files": 3})):
        manifest.write_text(text)
        with pytest.raises(DataError):
            Pool(folder)
    manifest.write_text(json.dumps({**content, "size": 17}))
    with pytest.raises(DataError, match=r"pool\.npy: holds int16 \(8, 16, 16\)"):
        Pool(folder)


def test_a_damaged_index_is_refused_when_it_is_read(folder: Path) -> None:
    size = (folder / "index.jsonl").stat().st_size
    (folder / "index.jsonl").write_bytes(b"?" * size)
    pool = Pool(folder)
    with pytest.raises(DataError, match=r"index\.jsonl: damaged"):
        _ = pool.index
