"""A missing mask is not an empty one; and of an unlabelled set no mask is looked at."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from preparing import make
from published import bhsd, ct_ich_100, ct_ich_131, rsna

from ichfast.data import Problems, SliceSet, load_slices, read_series
from ichfast.errors import DataError

WINDOW = (40.0, 120.0)
SIZE = 32
Place = Callable[[Path], Path]


def load(root: Path, **options) -> tuple[SliceSet, Problems]:
    return load_slices(root, **{"size": SIZE, "window": WINDOW, "progress": False} | options)


@pytest.fixture(params=["set", "pool"])
def place(request, tmp_path_factory) -> Place:
    """The set as it is, or a pool made of it."""
    if request.param == "set":
        return lambda root: root
    pool = tmp_path_factory.mktemp("pools") / "pool"
    return lambda root: make(root, pool, size=SIZE).path


def brain(root: Path, patient: int) -> Path:
    return root / "Patients_CT" / f"{patient:03d}" / "brain"


def edit_table(root: Path, keep: Callable[[list[str]], bool]) -> None:
    (path,) = root.glob("*.csv")
    header, *rows = path.read_text(encoding="utf-8-sig").splitlines()
    kept = [row for row in rows if keep(next(csv.reader([row])))]
    path.write_text("\n".join([header, *kept]) + "\n")


def remove_masks(root: Path) -> Path:
    for path in root.rglob("*_HGE_Seg.jpg"):
        path.unlink()
    shutil.rmtree(root / "masks", ignore_errors=True)
    return root


@pytest.mark.parametrize("write", [ct_ich_100, ct_ich_131])
def test_an_unlabelled_set_whose_table_marks_positives_needs_no_masks(
    tmp_path, place, write
) -> None:
    root = place(remove_masks(write(tmp_path / "set")))
    every, problems = load(root, labelled=False)
    assert problems.items == []
    assert every.masks is None
    patients = len(set(every.patients))
    assert every.subtypes == ((), (), ("epidural",), ()) * patients
    positive, problems = load(root, labelled=False, slices="positive")
    assert problems.items == []
    assert positive.subtypes == (("epidural",),) * patients


@pytest.mark.parametrize("write", [ct_ich_100, ct_ich_131, bhsd])
def test_unlabelled_masks_are_not_opened(tmp_path, write) -> None:
    root = write(tmp_path)
    whole, _ = load(root, labelled=False)
    masks = [path for path in root.rglob("*") if {"masks", "ground truths"} & {path.parent.name}]
    masks += root.rglob("*_HGE_Seg.jpg")
    assert masks
    for path in masks:
        path.write_bytes(b"")
    again, problems = load(root, labelled=False)
    assert problems.failed == 0
    assert again.fingerprint() == whole.fingerprint()
    with pytest.raises(DataError):
        load(root, labelled=True)


@pytest.mark.parametrize("slices", ["all", "positive"])
def test_positive_pictures_without_a_mask_are_left_out(tmp_path, place, slices) -> None:
    root = ct_ich_100(tmp_path / "set", patients=3)
    whole, _ = load(root, labelled=True, slices=slices)
    (brain(root, 50) / "3_HGE_Seg.jpg").unlink()
    some, problems = load(place(root), labelled=True, slices=slices)
    missing = "Patients_CT/050/brain/3.jpg"
    assert some.sources == tuple(source for source in whole.sources if source != missing)
    assert problems.failed == 0
    assert "set: 1 slices have no mask and are left out, 1 of them" in problems.summary().replace(
        "pool:", "set:"
    )
    kept = [i for i, source in enumerate(whole.sources) if source != missing]
    assert some.batch(range(len(some)))[1].equal(whole.batch(kept)[1])
    unlabelled, _ = load(place(root), labelled=False)
    assert missing in unlabelled.sources


def test_which_ones_is_said_too(tmp_path) -> None:
    root = ct_ich_100(tmp_path / "set", patients=3)
    (brain(root, 50) / "3_HGE_Seg.jpg").unlink()
    _, problems = load(root, labelled=True)
    reason = "Patients_CT/050/brain/3.jpg: labelled as haemorrhage, without a mask"
    assert reason in problems.summary()
    pool = make(root, tmp_path / "pool", size=SIZE)
    assert reason in pool.problems.summary()
    assert pool.problems.failed == 0


def test_however_many_masks_are_missing_the_others_are_learnt_from(tmp_path) -> None:
    """Over the number and the share of bad files that stop the reading of a set."""
    root = ct_ich_100(tmp_path, patients=25)
    for patient in range(50, 74):
        (brain(root, patient) / "3_HGE_Seg.jpg").unlink()
    slices, problems = load(root, labelled=True, slices="positive")
    assert slices.patients == ("049",)
    assert "24 slices have no mask and are left out, 24 of them labelled" in problems.summary()


def test_only_a_negative_label_makes_a_missing_mask_an_empty_one(tmp_path, place) -> None:
    """Not a row that is missing, nor all of a patient's."""
    root = ct_ich_100(tmp_path / "set", patients=3)
    edit_table(root, lambda row: row[0] != "51" and row[:2] != ["50", "1"])
    root = place(root)
    slices, problems = load(root, labelled=True)
    numbers = [(source[12:15], source[-5]) for source in slices.sources]
    assert numbers == [("049", n) for n in "1234"] + [("050", n) for n in "234"] + [("051", "3")]
    assert "4 slices have no mask and are left out, 0 of them labelled" in problems.summary()
    unlabelled, _ = load(root, labelled=False)
    unknown = [i for i, kinds in enumerate(unlabelled.subtypes) if kinds is None]
    assert unknown == [4, 8, 9, 10, 11]


def test_without_a_table_pictures_without_masks_count_as_healthy_and_it_is_said(tmp_path) -> None:
    root = ct_ich_100(tmp_path)
    next(root.glob("*.csv")).unlink()
    slices, problems = load(root, labelled=True)
    assert len(slices) == 8
    assert slices.positive.sum() == 2
    assert "slices without a mask are taken for healthy" in problems.summary()
    _, problems = load(root, labelled=False)
    assert "healthy" not in problems.summary()


@pytest.mark.parametrize("table", [True, False])
def test_a_volume_without_a_mask(tmp_path, place, table) -> None:
    root = ct_ich_131(tmp_path / "set")
    (root / "masks" / "058.nii").unlink()
    if not table:
        (root / "hemorrhage_diagnosis_raw_ct.csv").unlink()
    slices, problems = load(place(root), labelled=True)
    own = [source for source in slices.sources if "058" in source]
    assert own == ([f"ct_scans/058.nii#{n}" for n in (1, 2, 4)] if table else [])
    number, positive = (1, 1) if table else (4, 0)
    expected = f"{number} slices have no mask and are left out, {positive} of them labelled"
    assert expected in problems.summary()
    assert slices.positive.sum() == 2
    assert len(load(place(root), labelled=False)[0]) == 12


def test_an_image_without_a_mask(tmp_path, place) -> None:
    root = bhsd(tmp_path / "set")
    (root / "ground truths" / "case_a.nii.gz").unlink()
    slices, problems = load(place(root), labelled=True)
    assert set(slices.patients) == {"case_b"}
    assert "4 slices have no mask and are left out, 0 of them" in problems.summary()
    assert problems.failed == 0
    assert len(load(place(root), labelled=False)[0]) == 8


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (ct_ich_100, r"no masks <n>_HGE_Seg\.jpg to learn from; put them beside the pictures"),
        (ct_ich_131, r"no \.nii files in the folder masks to learn from; put"),
    ],
)
def test_a_set_without_a_single_mask_is_no_labelled_one(tmp_path, write, reason) -> None:
    root = remove_masks(write(tmp_path / "set"))
    with pytest.raises(DataError, match=reason):
        load(root, labelled=True)
    pool = make(root, tmp_path / "pool", size=SIZE)
    assert pool.masks is None
    with pytest.raises(DataError, match="this pool has no masks to learn from"):
        load(pool.path, labelled=True)


def test_a_pool_of_positive_slices_has_those_without_masks(tmp_path) -> None:
    root = ct_ich_100(tmp_path / "set", patients=3)
    (brain(root, 50) / "3_HGE_Seg.jpg").unlink()
    pool = make(root, tmp_path / "pool", size=SIZE, positive=True)
    pool.verify()
    assert [row.source[-13:] for row in pool.index] == [
        f"{n:03d}/brain/3.jpg"[-13:] for n in (49, 50, 51)
    ]
    assert [row.has_mask for row in pool.index] == [True, False, True]
    assert pool.masks is not None
    assert pool.masks.any((1, 2)).tolist() == [True, False, True]
    assert len(load(pool.path, labelled=True, slices="positive")[0]) == 2
    assert len(load(pool.path, labelled=False, slices="positive")[0]) == 3


def test_images_that_are_not_in_rsna_s_table_have_no_known_label(tmp_path, place) -> None:
    root = rsna(tmp_path / "set")
    whole, _ = load(root, labelled=False)
    name = Path(whole.sources[0]).stem
    (table,) = root.glob("*.csv")
    lines = table.read_text().splitlines()
    table.write_text("\n".join(line for line in lines if name not in line) + "\n")
    some, _ = load(place(root), labelled=False)
    expected = dict(zip(whole.sources, whole.subtypes, strict=True)) | {whole.sources[0]: None}
    assert dict(zip(some.sources, some.subtypes, strict=True)) == expected


def test_what_is_known_of_each_slice(tmp_path) -> None:
    root = ct_ich_100(tmp_path)
    (brain(root, 50) / "3_HGE_Seg.jpg").unlink()
    edit_table(root, lambda row: row[:2] != ["50", "1"])
    first, second = read_series(root, Problems())
    assert first.has_mask().all()
    assert first.has_subtypes().all()
    np.testing.assert_array_equal(second.has_mask(), [False, True, False, True])
    np.testing.assert_array_equal(second.has_subtypes(), [False, True, True, True])
    assert not second.mask[2].any()
    assert [second.name_subtypes(i) for i in range(4)] == [None, (), ("epidural",), ()]


def find_real(name: str) -> Path:
    root = Path(__file__).resolve().parents[2].parent / "shared" / "data" / name
    if not root.is_dir():
        pytest.skip(f"the real set {name} is not beside the project")
    return root


@pytest.mark.parametrize(("slices", "count"), [("all", 3478), ("positive", 712)])
def test_a_real_foreign_pool(slices, count) -> None:
    root = find_real("phe-sich")
    found, problems = load(root, size=96, labelled=False, slices=slices)
    assert problems.items == []
    assert len(found) == count
    assert sum(bool(kinds) for kinds in found.subtypes) == 712
    assert None not in found.subtypes
    assert found.masks is None


def test_real_ct_ich() -> None:
    found, problems = load(find_real("ct-ich"), size=96, labelled=True)
    assert problems.items == []
    assert len(found) == 2501
    assert [bool(kinds) for kinds in found.subtypes] == found.positive.tolist()
    assert found.positive.sum() == 318
