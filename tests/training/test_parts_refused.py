"""Sets that do not go with the recipe, or with each other."""

from pathlib import Path

import numpy as np
import pytest
from published import ct_ich_100, ct_ich_131, rsna, save_nifti, scan, spot
from tiny_runs import tiny

from ichfast.errors import DataError
from ichfast.training.parts import Parts, load_parts


def load(labelled: Path, unlabelled: Path | None, *settings: str) -> Parts:
    folders = [f"data.labelled={str(labelled)!r}"]
    if unlabelled is not None:
        folders.append(f"data.unlabelled={str(unlabelled)!r}")
    fixed = (
        "data.size=32",
        "training.select=last",
        "data.validation=0",
        "data.train=0.67",
        "data.test=0.33",
    )
    window = "data.window=[40, 120]"
    return load_parts(tiny(*folders, *fixed, window, *settings), labelled)


def remove_table(root: Path) -> Path:
    (table,) = root.glob("*.csv")
    table.unlink()
    return root


def rename_patients(root: Path) -> Path:
    """To a hundred more, in folders and table."""
    for folder in (root / "Patients_CT").iterdir():
        folder.rename(folder.with_name(f"{int(folder.name) + 100}"))
    (table,) = root.glob("*.csv")
    header, *rows = table.read_text(encoding="utf-8-sig").splitlines()
    table.write_text("\n".join([header, *(f"1{int(row[:2]):02}{row[2:]}" for row in rows)]))
    return root


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["training.strategy=pretrained"], "strategy pretrained learns.*another training.strategy"),
        (["training.strategy=paste_negatives"], "strategy paste_negatives learns"),
        (
            ["training.strategy=mean_teacher", "together.slice_labels=use"],
            "together.slice_labels = use learns .*slice_labels = ignore",
        ),
    ],
)
def test_a_table_that_is_needed_and_missing(tmp_path, settings, reason) -> None:
    labelled = ct_ich_100(tmp_path / "labelled", patients=3)
    bare = remove_table(rename_patients(ct_ich_100(tmp_path / "bare", patients=3)))
    settings = [*settings, "supervised.optimizer=adam", "data.unlabelled_slices=all"]
    with pytest.raises(DataError, match=f"bare: no table says which .*{reason}"):
        load(labelled, bare, *settings)
    without = [one for one in settings if "slice_labels" not in one and "strategy" not in one]
    assert len(load(labelled, bare, *without, "training.strategy=mean_teacher").train) == 2
    with pytest.raises(DataError, match=f"labelled: no table says which .*{reason}"):
        load(remove_table(labelled), None, *settings, "data.labelled_share=0.5")


def test_positive_unlabelled_slices_without_a_table_to_choose_by(tmp_path) -> None:
    labelled = ct_ich_100(tmp_path / "labelled", patients=3)
    bare = remove_table(rename_patients(ct_ich_100(tmp_path / "bare", patients=3)))
    with pytest.raises(DataError, match=r"bare: no slice is labelled .*unlabelled_slices = 'all'"):
        load(labelled, bare, "training.strategy=curriculum")


@pytest.mark.parametrize("pictures", ["labelled", "unlabelled"])
def test_a_window_that_the_pictures_of_either_set_do_not_have(tmp_path, pictures) -> None:
    roots = {
        name: ct_ich_100(tmp_path / name, patients=3)
        if name == pictures
        else (ct_ich_131 if name == "labelled" else rsna)(tmp_path / name)
        for name in ("labelled", "unlabelled")
    }
    if pictures == "unlabelled":
        rename_patients(roots[pictures])
    sets = roots["labelled"], roots["unlabelled"]
    reason = rf"{pictures}: these pictures hold HU from -20 to 100 only.*for every set of the run"
    with pytest.raises(DataError, match=reason):
        load(*sets, "data.window=[40, 400]", "training.strategy=curriculum")
    load(*sets, "data.window=[40, 80]", "training.strategy=curriculum")


def test_a_patient_in_both_sets(tmp_path, capsys) -> None:
    """Refused where it would be tested on; where it is trained on, it flatters nothing."""
    labelled = ct_ich_100(tmp_path / "labelled", patients=6)
    pool = ct_ich_100(tmp_path / "pool", patients=6)
    curriculum = "training.strategy=curriculum"
    with pytest.raises(DataError, match="patients or studies in both 'unlabelled' and 'test'"):
        load(labelled, pool, curriculum)
    parts = load(labelled, rename_patients(pool), curriculum)
    assert "trained on with their masks" not in capsys.readouterr().err
    for folder in (pool / "Patients_CT").iterdir():
        name = folder.name[1:]
        if f"0{name}" in parts.train.patients:
            folder.rename(folder.with_name(f"0{name}"))
    parts = load(labelled, pool, curriculum, "data.unlabelled_slices=all")
    assert parts.unlabelled is not None
    assert "4 patients of the unlabelled set are trained on with their masks, too" in (
        capsys.readouterr().err
    )


def test_masks_that_are_missing_are_said(tmp_path, capsys) -> None:
    root = ct_ich_100(tmp_path / "set", patients=6)
    (root / "Patients_CT" / "050" / "brain" / "3_HGE_Seg.jpg").unlink()
    parts = load(root, None, "training.strategy=supervised")
    assert len(parts.whole) == 5
    assert parts.problems == 0
    assert "1 slices have no mask and are left out, 1 of them" in capsys.readouterr().err


def test_a_patient_whose_id_is_a_part_of_a_file_name(tmp_path) -> None:
    """As in BHSD, whose scans are RSNA's."""
    pool = rsna(tmp_path / "pool")
    labelled = tmp_path / "labelled"
    for k in range(6):
        name = f"ID_{k:08x}_ID_{k:010x}"
        save_nifti(labelled / "images" / f"{name}.nii.gz", scan())
        save_nifti(labelled / "labels" / f"{name}.nii.gz", spot().astype(np.uint8))
    with pytest.raises(
        DataError, match="in both 'unlabelled' and 'test': ID_0000000001, ID_00000001"
    ):
        load(labelled, pool, "training.strategy=curriculum", "data.train=0.17", "data.test=0.83")
