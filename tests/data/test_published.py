"""Each published layout, as found on disk, with its quirks."""

import json

import nibabel
import numpy as np
import published
import pytest

from ichfast.data import SUBTYPES, Problems, detect_layout, load_slices, read_series
from ichfast.errors import DataError


def read(root):
    problems = Problems()
    return list(read_series(root, problems)), problems


def check(series, subtype="epidural"):
    np.testing.assert_array_equal(series.hu(), published.scan())
    np.testing.assert_array_equal(series.mask, published.spot())
    np.testing.assert_allclose(np.diff(series.positions), 5)
    if subtype:
        np.testing.assert_array_equal(series.subtypes.any(1), [0, 0, 1, 0])
        assert series.subtypes[2, SUBTYPES.index(subtype)]


def test_ct_ich_131(tmp_path):
    scans, problems = read(published.ct_ich_131(tmp_path))
    assert problems.items == []
    assert [series.patient for series in scans] == ["049", "058", "066"]
    for series in scans:
        check(series)


@pytest.mark.parametrize("table", ["hemorrhage_diagnosis.csv", "Hemmorhage_Diagnosis.csv"])
def test_ct_ich_100(tmp_path, table):
    scans, problems = read(published.ct_ich_100(tmp_path, table))
    assert problems.items == []
    assert detect_layout(tmp_path).name == "ct-ich-jpeg"
    assert [series.patient for series in scans] == ["049", "050"]
    for series in scans:
        assert series.quirks == ("windowed grey levels", "no pixel spacing")
        assert series.hu_range == (-20, 100)
        assert np.isnan(series.spacing).all()
        assert series.sources[2] == f"Patients_CT/{series.patient}/brain/3.jpg"
        expected = np.clip(published.scan(64), -20, 100)
        assert np.abs(series.hu() - expected).mean() < 2  # JPEG rings at the skull
        flat = np.s_[:, 26:38, 26:38]  # brain, away from edges
        np.testing.assert_allclose(np.median(series.hu()[flat], (1, 2)), [35, 36, 37, 38], atol=1)
        assert (series.mask != published.spot(64)).mean() < 1e-3
        np.testing.assert_array_equal(series.subtypes.any(1), [0, 0, 1, 0])


def load(root, window):
    return load_slices(root, size=32, window=window, labelled=True, progress=False)[0]


def test_ct_ich_100_in_other_windows(tmp_path):
    root = published.ct_ich_100(tmp_path)
    assert len(load(root, (40, 120))) == len(load(root, (40, 80))) == 8
    for window in ((40, 121), (80, 200), (30, 120)):
        with pytest.raises(DataError, match=r"-20 to 100 only.*set data\.window inside"):
            load(root, window)


def test_ct_ich_100_broken(tmp_path):
    root = published.ct_ich_100(tmp_path)
    brain = root / "Patients_CT" / "049" / "brain"
    (brain / "3_HGE_Seg.jpg").unlink()
    (brain / "1.jpg").write_bytes((brain / "1.jpg").read_bytes()[:300])
    published.save_jpeg(brain / "4.jpg", np.zeros((32, 32)))
    published.save_jpeg(brain / "7_HGE_Seg.jpg", np.zeros((64, 64)))
    other = root / "Patients_CT" / "050" / "brain"
    (other / "2.jpg").write_bytes(b"")
    published.save_jpeg(other / "3_HGE_Seg.jpg", np.zeros((32, 32)))
    (root / "Patients_CT" / "051").mkdir()
    scans, problems = read(root)
    assert [len(series) for series in scans] == [2, 2]
    assert scans[0].has_mask().tolist() == [True, False]
    assert scans[0].subtypes.any(1).tolist() == [False, True]
    assert scans[1].has_mask().all()
    assert not scans[1].subtypes.any()  # what is left of it has no haemorrhage
    found = {item.source.removeprefix("Patients_CT/"): item.reason for item in problems.items}
    for source, reason in {
        "049/brain/1.jpg": "1.jpg is not a readable JPEG",
        "049/brain/3.jpg": "labelled as haemorrhage, without a mask",
        "049/brain/4.jpg": "sizes differ: (32, 32), before it (64, 64)",
        "049/brain/7_HGE_Seg.jpg": "mask without its picture",
        "050/brain/2.jpg": "2.jpg is not a readable JPEG",
        "050/brain/3.jpg": "sizes differ: picture (64, 64), mask (32, 32)",
        "051": "no pictures brain/<n>.jpg",
    }.items():
        assert reason in found[source]


def test_ct_ich_100_empty(tmp_path):
    (tmp_path / "Patients_CT").mkdir()
    with pytest.raises(DataError, match=r"no pictures <patient>/brain/<n>\.jpg"):
        read(tmp_path)


@pytest.mark.parametrize("stage", [1, 2])
def test_rsna(tmp_path, stage):
    scans, problems = read(published.rsna(tmp_path, stage))
    assert [item.reason for item in problems.items] == [
        "pixel data is truncated: 1,048 bytes of 2,048"
    ]
    first, second = sorted(scans, key=lambda series: series.patient)
    np.testing.assert_array_equal(first.hu(), published.scan()[1:])
    np.testing.assert_array_equal(second.hu(), published.scan())
    assert second.quirks == ("wrapped 12-bit", "several windows")
    assert second.study == "ID_0000000001"
    for series in scans:
        assert series.subtypes[series.positions == 10, SUBTYPES.index("subdural")].all()
        assert series.subtypes.sum() == 1


def test_half_of_rsna(tmp_path):
    root = published.rsna(tmp_path)
    for path in sorted((root / "stage_2_train").iterdir())[:3]:
        path.unlink()
    _, problems = read(root)
    assert "3 of its 8 images are not in stage_2_train" in problems.summary()


def test_nnunet(tmp_path):
    scans, problems = read(published.nnunet(tmp_path))
    assert problems.items == []
    assert detect_layout(tmp_path).name == "nifti"
    assert [series.patient for series in scans] == ["ICH_001", "ICH_002"]
    assert scans[0].sources[2] == "imagesTr/ICH_001_0000.nii.gz#3"
    for series in scans:
        check(series, subtype=None)
        assert series.subtypes is None


@pytest.mark.parametrize("labels", [{"background": 0, "SDH": 1}, {"0": "background", "1": "SDH"}])
def test_nnunet_labels_that_name_subtypes(tmp_path, labels):
    for series in read(published.nnunet(tmp_path, labels))[0]:
        check(series, "subdural")


def test_nnunet_labels_that_cannot_be_learnt(tmp_path):
    root = published.nnunet(tmp_path, {"background": 0, "blood": 2, "ignore": 1})
    with pytest.raises(DataError, match="voxels to be ignored"):
        read(root)
    published.nnunet(tmp_path, {"background": 0, "blood": 2})
    with pytest.raises(DataError, match=r"label 1 that dataset\.json does not name"):
        read(root)
    (root / "dataset.json").write_text(json.dumps({"labels": {}}))
    with pytest.raises(DataError, match="must have labels and numTraining"):
        read(root)


def test_half_of_nnunet(tmp_path):
    root = published.nnunet(tmp_path)
    (root / "imagesTr" / "ICH_001_0000.nii.gz").unlink()
    (scan,), problems = read(root)
    assert scan.patient == "ICH_002"
    assert "mask without an image in imagesTr" in problems.summary()
    assert "speaks of 2 images, of which 1 are here" in problems.summary()


def test_a_second_channel(tmp_path):
    root = published.nnunet(tmp_path)
    published.save_nifti(root / "imagesTr" / "ICH_001_0001.nii.gz", published.scan())
    with pytest.raises(DataError, match="a second channel or copy of ICH_001"):
        read(root)


def test_bhsd(tmp_path):
    scans, problems = read(published.bhsd(tmp_path))
    assert problems.items == []
    assert [series.patient for series in scans] == ["case_a", "case_b"]
    for series in scans:
        check(series, subtype=None)


def test_nifti_without_masks(tmp_path):
    published.save_nifti(tmp_path / "a.nii.gz", published.scan())
    published.save_nifti(tmp_path / "b.nii", published.scan())
    scans, _ = read(tmp_path)
    assert [(series.patient, series.mask) for series in scans] == [("a", None), ("b", None)]
    with pytest.raises(DataError, match="has no masks to learn from; put them into labelsTr"):
        load(tmp_path, (40, 80))


def test_any_order_of_axes(tmp_path):
    """A file whose slices are its first axis, and which runs from head to foot."""
    root = published.nnunet(tmp_path)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = -5, 0.5, 0.75, 1
    for name, volume in (
        ("imagesTr/ICH_001_0000", published.scan()),
        ("labelsTr/ICH_001", published.spot().astype(np.uint8)),
    ):
        turned = volume[::-1, ::-1, ::-1].transpose(0, 2, 1)
        nibabel.save(nibabel.Nifti1Image(turned, affine), root / f"{name}.nii.gz")
    series = read(root)[0][0]
    check(series, subtype=None)
    assert series.spacing == (0.75, 0.5)
    assert series.sources[0].endswith("#4")


def test_broken_nifti_folder(tmp_path):
    root = published.nnunet(tmp_path)
    images, masks = root / "imagesTr", root / "labelsTr"
    scan, mask = published.scan(), published.spot().astype(np.uint8)
    good = (images / "ICH_001_0000.nii.gz").read_bytes()
    for name in ("half", "empty", "text", "lone"):
        (images / f"{name}_0000.nii.gz").write_bytes(good)
        if name != "lone":
            published.save_nifti(masks / f"{name}.nii.gz", mask)
    (images / "half_0000.nii.gz").write_bytes(good[: len(good) // 2])
    (images / "empty_0000.nii.gz").write_bytes(b"")
    (images / "text_0000.nii.gz").write_text("<html>404</html>" * 99)
    published.save_nifti(images / "grey_0000.nii.gz", np.clip(scan, 0, 255))
    published.save_nifti(masks / "grey.nii.gz", mask)
    published.save_nifti(images / "size_0000.nii.gz", scan)
    published.save_nifti(masks / "size.nii.gz", mask[1:])
    published.save_nifti(images / "place_0000.nii.gz", scan)
    published.save_nifti(masks / "place.nii.gz", mask, np.diag([0.5, -0.5, 5, 1]))
    scans, problems = read(root)
    assert [series.patient for series in scans] == ["ICH_001", "ICH_002", "lone"]
    assert scans[2].mask is None
    found = {item.source: item.reason for item in problems.items}
    for name, reason in {
        "half": "truncated",
        "empty": "not a readable NIfTI",
        "text": "not a readable NIfTI",
        "lone": "image without a mask in labelsTr",
        "grey": "not in HU: no air",
        "size": "sizes differ",
        "place": "lie in different places",
    }.items():
        assert reason in found[f"imagesTr/{name}_0000.nii.gz"]
    for path in masks.iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"labelsTr: no \.nii files; put the masks of imagesTr"):
        read(root)


def test_the_folder_above_or_below(tmp_path):
    published.rsna(tmp_path / "rsna-intracranial-hemorrhage-detection")
    with pytest.raises(DataError, match=r"its folder rsna-intra.* is a set \(rsna\); give that"):
        detect_layout(tmp_path)
    published.ct_ich_131(tmp_path / "physionet" / "ct-ich")
    with pytest.raises(DataError, match=r"its folder ct-ich is a set \(ct-ich\); give that one"):
        detect_layout(tmp_path / "physionet")
