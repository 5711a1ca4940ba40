"""A pool's folder: what it gives, and what is refused."""

import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ichfast import prepare
from ichfast.data import SUBTYPES, Pool, load_slices
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


def flip(path: Path, place: int, bits: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= bits
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["pool.npy", "masks.npy"])
def test_verify_and_loading_find_a_changed_bit(folder: Path, name: str) -> None:
    Pool(folder).verify()
    flip(folder / name, -5)
    pool = Pool(folder)
    with pytest.raises(DataError, match=rf"{name}: changed since it was written"):
        pool.verify()
    pool.check_slices(range(7))  # the last one has the bit
    with pytest.raises(DataError, match=rf"{name}: changed since it was written"):
        load_slices(folder, size=16, window=(40, 80), labelled=True)


def test_opening_finds_another_index_and_another_header(folder: Path) -> None:
    kept = (folder / "pool.npy").read_bytes()
    flip(folder / "pool.npy", 120, ord(" ") ^ ord("\t"))  # NumPy reads it all the same
    with pytest.raises(DataError, match=r"pool\.npy: not the array of 8 slices"):
        Pool(folder)
    (folder / "pool.npy").write_bytes(kept)
    index = folder / "index.jsonl"
    index.write_bytes(index.read_bytes().replace(b'"049"', b'"050"'))
    with pytest.raises(DataError, match=r"index\.jsonl: changed since it was written"):
        Pool(folder)


def test_some_of_many_slices_are_compared(folder: Path) -> None:
    pool = Pool(folder)
    flip(folder / "pool.npy", 128 + 2 * 16**2 * 3)
    pool.check_slices(range(8), most=4 * 3 * 16**2)  # every other one, from the first on
    with pytest.raises(DataError, match=r"pool\.npy: changed"):
        pool.check_slices(range(1, 8), most=4 * 3 * 16**2)


def rewrite_index(folder: Path, change: Callable[[dict], object], row: int = 3) -> None:
    """A pool whose checksums are right for what it holds."""
    rows = [json.loads(line) for line in (folder / "index.jsonl").read_bytes().splitlines()]
    change(rows[row])
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    (folder / "index.jsonl").write_bytes(data)
    manifest = json.loads((folder / "pool.json").read_text())
    digest = hashlib.sha256(data).hexdigest()
    manifest["files"]["index.jsonl"] = {"bytes": len(data), "sha256": digest}
    (folder / "pool.json").write_text(json.dumps(manifest))


def test_masks_of_200_are_refused_whatever_their_checksums(folder: Path) -> None:
    masks = np.load(folder / "masks.npy")
    masks[2] *= 200
    np.save(folder / "masks.npy", masks)
    digest = hashlib.sha256(masks[2].tobytes()).hexdigest()
    rewrite_index(folder, lambda row: row["sha256"].__setitem__(1, digest), 2)
    with pytest.raises(DataError, match=r"masks\.npy: has values other than 0 and 1"):
        load_slices(folder, size=16, window=(40, 80), labelled=True)


HOSTILE = (None, "", "x", -1, 0, 1e308, float("nan"), float("inf"), [], {}, [[]], 10**400, True)


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_hostile_values_end_in_a_sentence(folder: Path, value: object) -> None:
    kept = {name: (folder / name).read_bytes() for name in ("pool.json", "index.jsonl")}
    manifest = json.loads(kept["pool.json"])
    for key in manifest:
        (folder / "pool.json").write_text(json.dumps({**manifest, key: value}))
        open_and_load(folder)
    for key in json.loads(kept["index.jsonl"].splitlines()[0]):
        for name, content in kept.items():
            (folder / name).write_bytes(content)
        rewrite_index(folder, lambda row, key=key: row.update({key: value}))
        open_and_load(folder)


def open_and_load(folder: Path) -> None:
    """Nothing but a DataError."""
    with contextlib.suppress(DataError):
        pool = Pool(folder)
        assert len(pool.index) == len(pool)
        pool.problems.summary()
        pool.verify()
        load_slices(folder, size=16, window=(40, 80), labelled=True)


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
    with pytest.raises(DataError, match=r"pool\.npy: not the array of 8 slices of 17 x 17"):
        Pool(folder)


def test_a_damaged_index_is_refused(folder: Path) -> None:
    size = (folder / "index.jsonl").stat().st_size
    (folder / "index.jsonl").write_bytes(b"?" * size)
    with pytest.raises(DataError, match=r"index\.jsonl: changed"):
        Pool(folder)


def test_the_command_verifies(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main(["--out", str(folder), "--verify"]) == 0
    assert "8 slices are as they were written" in capsys.readouterr().out
    flip(folder / "masks.npy", -5)
    assert prepare.main(["--out", str(folder), "--verify"]) == 2
    assert "masks.npy: changed since" in capsys.readouterr().err
