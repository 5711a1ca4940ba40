"""Slices of a pool: those of its set, mapped and not read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from preparing import make
from published import ct_ich_100

from ichfast.data import Pool, SliceSet, find_layout, load_slices
from ichfast.errors import DataError

BRAIN = (40.0, 80.0)


def load(root: Path, **options: Any) -> SliceSet:
    options = {"size": 16, "window": BRAIN, "labelled": False, "progress": False} | options
    return load_slices(root, **options)[0]


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("slices", ["all", "positive"])
def test_as_from_the_set(tmp_path, write_ct_ich, labelled, slices) -> None:
    root = write_ct_ich(tmp_path / "set", patients=3)
    pool = make(root, tmp_path / "pool")
    own, those = (load(path, labelled=labelled, slices=slices) for path in (pool.path, root))
    for name in ("patients", "series", "positions", "sources", "spacings", "studies", "subtypes"):
        assert getattr(own, name) == getattr(those, name), name
    every = range(len(own))
    (images, masks), (expected, targets) = own.batch(every), those.batch(every)
    assert torch.equal(images, expected)
    assert torch.equal(masks, targets) if labelled else masks is None is targets


def test_pixels_are_mapped_and_selections_share_them(tmp_path, write_ct_ich) -> None:
    pool = make(write_ct_ich(tmp_path / "set"), tmp_path / "pool")
    slices = load(pool.path, labelled=True)
    assert slices.to("cpu").store.place == "mapped"
    some = slices.select([5, 2])
    assert some.hu.data_ptr() == slices.hu.data_ptr()
    assert torch.equal(some.batch([0])[0], slices.batch([5])[0])


def test_rsna_s_labels_choose_without_a_look_at_the_pixels(tmp_path, write_rsna) -> None:
    root = write_rsna(tmp_path / "set")
    pool = make(root, tmp_path / "pool")
    assert find_layout(pool.path).name == find_layout(root).name == "rsna"
    assert load(pool.path, slices="positive").sources == load(root, slices="positive").sources


def test_without_a_table_no_unlabelled_slice_is_positive(tmp_path, write_ct_ich) -> None:
    """Although the set has masks."""
    root = write_ct_ich(tmp_path / "set")
    next(root.glob("*.csv")).unlink()
    pool = make(root, tmp_path / "pool")
    for path in (root, pool.path):
        with pytest.raises(DataError, match=r"or set data\.unlabelled_slices = 'all'"):
            load(path, slices="positive")


def test_a_limit_is_a_seeded_choice(tmp_path, write_ct_ich) -> None:
    pool = make(write_ct_ich(tmp_path / "set"), tmp_path / "pool")
    seen = set()
    for seed in range(20):
        some = load(pool.path, limit=3, seed=seed)
        assert len(set(some.sources)) == 3
        assert some.rows.tolist() == sorted(some.rows.tolist())
        assert some.fingerprint() == load(pool.path, limit=3, seed=seed).fingerprint()
        seen.update(some.rows.tolist())
    assert seen == set(range(8))
    prints = {load(pool.path, limit=3, seed=seed).fingerprint() for seed in range(5)}
    assert len(prints) > 1


def test_scans_without_a_mask_are_not_learnt_from(tmp_path, write_ct_ich) -> None:
    root = write_ct_ich(tmp_path / "set", patients=3)
    (root / "masks" / "050.nii").unlink()
    pool = make(root, tmp_path / "pool")
    slices, problems = load_slices(pool.path, size=16, window=BRAIN, labelled=True, progress=False)
    own, _ = load_slices(root, size=16, window=BRAIN, labelled=True, progress=False)
    assert own.sources == slices.sources
    assert len(slices) == len(pool) - 1
    assert "1 slices have no mask and are left out, 1 of them labelled" in problems.summary()


def test_what_a_pool_cannot_give(tmp_path, write_ct_ich, write_dicom, head) -> None:
    labelled = make(write_ct_ich(tmp_path / "a"), tmp_path / "labelled").path
    write_dicom(tmp_path / "b" / "a.dcm", head().astype(np.int16))
    plain = make(tmp_path / "b", tmp_path / "plain").path
    pictures = make(ct_ich_100(tmp_path / "c"), tmp_path / "pictures").path
    for root, options, reason in (
        (
            labelled,
            {"size": 32},
            r"slices of 16 x 16, but 32 x 32 .* data\.size = 16, or .*--size 32",
        ),
        (plain, {"labelled": True}, "no masks to learn from"),
        (
            plain,
            {"slices": "positive"},
            "no slice is labelled with haemorrhage.*1 slices without a known label",
        ),
        (pictures, {"window": (40, 400)}, r"HU from -20 to 100 only, but the window"),
    ):
        with pytest.raises(DataError, match=reason):
            load(root, **options)
    unmeasured = load(pictures, window=(40, 120), labelled=True)
    assert np.isnan(unmeasured.spacings).all()
    Pool(labelled).verify()
