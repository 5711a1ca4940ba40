import numpy as np
import pytest
import torch

import ichfast.data
from ichfast.data import load_slices
from ichfast.data.phantom import write_phantom
from ichfast.errors import DataError

BRAIN = (40.0, 80.0)


def load(root, **options):
    options = {"size": 16, "window": BRAIN, "labelled": False, "progress": False} | options
    return load_slices(root, **options)[0]


def window(hu):
    return np.clip((hu - 39.5) / 79 + 0.5, 0, 1)


def area(array, size):
    n = array.shape[-1] // size
    return array.reshape(*array.shape[:-2], size, n, size, n).mean((-3, -1))


def test_labelled_set(tmp_path, write_ct_ich, head):
    slices = load(write_ct_ich(tmp_path), labelled=True)
    assert len(slices) == 8
    images, masks = slices.batch(torch.arange(8))
    assert images.shape == masks.shape == (8, 1, 16, 16)
    assert (images.dtype, masks.dtype) == (torch.float32, torch.uint8)
    assert slices.patients == ("049",) * 4 + ("050",) * 4
    assert slices.positive.tolist() == [False, False, True, False] * 2
    assert slices.sources[2] == "ct_scans/049.nii#3"
    np.testing.assert_allclose(np.diff(slices.positions[:4]), 5)
    assert slices.spacings == ((1.0, 1.0),) * 8  # 32 x 32 pixels of 0.5 mm as 16 x 16
    expected = np.stack([area(head() + k, 16) for k in range(4)])
    np.testing.assert_allclose(images[:4, 0], window(np.rint(expected)), atol=1e-5)
    np.testing.assert_array_equal(masks[2, 0], area(head() == 70, 16) >= 0.5)


def test_positive_slices(tmp_path, write_ct_ich, write_rsna):
    slices = load(write_ct_ich(tmp_path / "a"), labelled=True, slices="positive")
    assert slices.sources == ("ct_scans/049.nii#3", "ct_scans/050.nii#3")
    assert load(tmp_path / "a", slices="positive").sources == slices.sources
    assert len(load(write_rsna(tmp_path / "b"), slices="positive")) == 2


def test_a_mask_that_vanishes_at_this_size_is_not_positive(tmp_path, write_ct_ich):
    root = write_ct_ich(tmp_path)
    assert len(load(root, labelled=True, slices="positive", size=32)) == 2
    for slices in ("positive", "all"):
        with pytest.raises(DataError, match=r"at this size; check the masks or raise data\.size"):
            load(root, labelled=True, slices=slices, size=2)


def test_a_table_without_a_positive_label(tmp_path, write_ct_ich):
    (table,) = write_ct_ich(tmp_path).glob("*.csv")
    table.write_text(table.read_text().replace(",1,0,0,0\n", ",0,0,1,0\n"))
    with pytest.raises(
        DataError, match="no slice is labelled with haemorrhage; check the set's table"
    ):
        load(tmp_path, slices="positive")


@pytest.mark.parametrize("layout", ["ct-ich", "rsna"])
def test_limit(tmp_path, write_ct_ich, write_rsna, layout):
    root = (write_ct_ich if layout == "ct-ich" else write_rsna)(tmp_path)
    whole = load(root)
    seen = set()
    for seed in range(20):
        some = load(root, limit=3, seed=seed)
        assert len(some) == 3
        assert some.fingerprint() == load(root, limit=3, seed=seed).fingerprint()
        order = [whole.sources.index(name) for name in some.sources]
        assert order == sorted(order)
        assert some.fingerprint() == whole.select(order).fingerprint()
        seen.update(order)
    assert seen == set(range(len(whole)))


def test_select_and_fingerprint(tmp_path, write_ct_ich):
    slices = load(write_ct_ich(tmp_path), labelled=True)
    some = slices.select([2, 0])
    assert some.sources == (slices.sources[2], slices.sources[0])
    assert some.spacings == slices.spacings[:2]
    for own, those in zip(some.batch([0, 1]), slices.batch([2, 0]), strict=True):
        assert torch.equal(own, those)
    prints = {s.fingerprint() for s in (slices, some, slices.select([0, 2]), slices.select([]))}
    assert len(prints) == 4
    assert slices.select(range(8)).fingerprint() == slices.fingerprint()
    former = slices.fingerprint()
    slices.masks[0, 0, 0] = 1
    assert slices.fingerprint() != former


def test_real_head_ct(head_ct):
    slices = load(head_ct, size=64)
    assert len(slices) == 28
    assert len(set(slices.patients)) == len(set(slices.series)) == 1
    images, _ = slices.batch(torch.arange(28))
    middle = images[16, 0, 24:40, 24:40]  # brain is mid-grey in the brain window
    assert 0.2 < float(middle.mean()) < 0.7
    assert float(images[:, :, :2, :2].max()) == 0  # air and padding


def test_what_cannot_be_asked(tmp_path, write_ct_ich, write_rsna, write_dicom, head):
    labelled, unlabelled = write_ct_ich(tmp_path / "a"), write_rsna(tmp_path / "b")
    plain = write_dicom(tmp_path / "c" / "a.dcm", head().astype(np.int16)).parent
    for root, options, reason in (
        (unlabelled, {"labelled": True}, "'rsna' has no masks"),
        (plain, {"labelled": True}, "'dicom' has no masks"),
        (plain, {"slices": "positive"}, "no labels"),
        (labelled, {"size": 0}, "size is 0"),
        (labelled, {"limit": 0}, "limit is 0"),
        (labelled, {"window": (40, 0)}, "width is 0"),
        (tmp_path / "gone", {}, "no such folder"),
    ):
        with pytest.raises(DataError, match=reason):
            load(root, **options)


def test_spacing_follows_the_size(tmp_path, write_dicom, head):
    write_dicom(tmp_path / "a.dcm", head().astype(np.int16), PixelSpacing=[0.75, 0.5])
    for size, spacing in ((16, (1.5, 1.0)), (32, (0.75, 0.5)), (64, (0.375, 0.25))):
        assert load(tmp_path, size=size).spacings == (spacing,)


def test_oblong_scans_are_left_out(tmp_path, write_dicom, head):
    write_dicom(tmp_path / "a.dcm", head()[4:].astype(np.int16))
    write_dicom(tmp_path / "b.dcm", head().astype(np.int16))
    slices, problems = load_slices(tmp_path, size=8, window=BRAIN, labelled=False, progress=False)
    assert slices.sources == ("b.dcm",)
    assert problems.items[0].reason == "its scan is not square"


def test_import_is_light():
    import subprocess
    import sys

    code = (
        "import sys, ichfast.data; print({'pydicom', 'nibabel', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert set(ichfast.data.__all__) <= set(dir(ichfast.data))


# --- the phantom takes the same road as the published sets ---


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom")
    write_phantom(
        root,
        patients=3,
        unlabelled_patients=2,
        size=64,
        slices=6,
        seed=3,
        progress=False,
        workers=1,
    )
    return root


def test_phantom_is_read_as_it_was_made(phantom):
    slices, problems = load_slices(
        phantom / "labelled", size=64, window=BRAIN, labelled=True, progress=False
    )
    assert problems.items == []
    assert len(slices) == 18
    images, masks = slices.batch(torch.arange(18))
    blood = images[masks.bool()]
    assert float(blood.median()) > 0.55  # over 45 HU; brain is near 0.45
    for image, mask in zip(images, masks, strict=True):
        assert not (mask.bool() & (image == 0)).any(), "blood in air: image and mask are turned"
    unlabelled, problems = load_slices(
        phantom / "unlabelled", size=64, window=BRAIN, labelled=False, progress=False
    )
    assert problems.items == []
    assert len(unlabelled) == 12
    assert len(set(unlabelled.patients)) == 2


def test_phantom_labels_follow_its_masks(phantom):
    for series in ichfast.data.read_series(phantom / "labelled", ichfast.data.Problems()):
        np.testing.assert_array_equal(series.mask.any((1, 2)), series.subtypes.any(1))
        assert series.hu()[:, 0, 0].max() < -900
