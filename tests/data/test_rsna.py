import numpy as np
import pytest

from ichfast.data import SUBTYPES, Problems, read_series
from ichfast.data.layouts.base import Selection
from ichfast.data.layouts.rsna import Rsna, read_labels
from ichfast.errors import DataError


def read(root, **options):
    problems = Problems()
    return list(Rsna().read(root, problems, Selection(**options))), problems


def test_set_as_published(tmp_path, write_rsna, head):
    problems = Problems()
    all_series = list(read_series(write_rsna(tmp_path), problems))
    assert problems.items == []
    assert sorted(s.patient for s in all_series) == ["ID_00000000", "ID_00000001"]
    for series in all_series:
        assert series.series.startswith("ID_")  # not a UID, kept as it is
        np.testing.assert_array_equal(series.hu(), [head() + k for k in range(3)])
        np.testing.assert_allclose(series.positions, [0, 5, 10])
        assert series.quirks == ("several windows",)
        np.testing.assert_array_equal(series.subtypes.any(1), [False, False, True])
        assert series.subtypes[2, SUBTYPES.index("subdural")]


def test_stage_1_names(tmp_path, write_rsna):
    root = write_rsna(tmp_path)
    (root / "stage_2_train.csv").rename(root / "stage_1_train.csv")
    (root / "stage_2_train").rename(root / "stage_1_train_images")
    assert len(read(root)[0]) == 2


def test_positive_images_are_chosen_before_a_file_is_opened(tmp_path, write_rsna):
    root = write_rsna(tmp_path)
    all_series, _ = read(root)
    for series in all_series:
        (root / series.sources[0]).write_bytes(b"")
    chosen, problems = read(root, positive=True)
    assert problems.items == []
    assert sorted(s.sources for s in chosen) == sorted(s.sources[2:] for s in all_series)


def test_limit_is_a_seeded_choice(tmp_path, write_rsna):
    root = write_rsna(tmp_path)

    def sources(**options):
        return sorted(name for series in read(root, **options)[0] for name in series.sources)

    assert len(sources(limit=4)) == 4
    assert sources(limit=4, seed=1) == sources(limit=4, seed=1)
    assert len({tuple(sources(limit=3, seed=seed)) for seed in range(9)}) > 1
    assert len(sources(limit=99)) == 6


def test_truncated_file(tmp_path, write_rsna):
    root = write_rsna(tmp_path)
    path = sorted((root / "stage_2_train").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-500])
    all_series, problems = read(root)
    assert sum(map(len, all_series)) == 5
    assert problems.items[0].source == f"stage_2_train/{path.name}"
    assert "truncated: 1,548 bytes of 2,048" in problems.items[0].reason


ROW = "ID_000012345_{},{}\n"


def test_duplicate_and_malformed_rows(tmp_path):
    table = tmp_path / "stage_2_train.csv"
    rows = "".join(ROW.format(kind, int(kind == "any")) for kind in (*SUBTYPES, "any"))
    table.write_bytes(b"\xef\xbb\xbfID,Label\r\n" + rows.replace("\n", "\r\n").encode())
    problems = Problems()
    assert read_labels(table, problems)["ID_000012345"] & 63 == 32
    table.write_text("ID,Label\n" + rows + rows)
    assert read_labels(table, problems)["ID_000012345"] & 63 == 32
    assert problems.items == []
    table.write_text("ID,Label\n" + rows + ROW.format("any", 0) + "ID_1_nonsense,1\nx\n\n")
    assert read_labels(table, problems)["ID_000012345"] & 63 == 32
    assert [item.reason for item in problems.items] == [
        "2 lines are not ID_<image>_<type>,0 or 1",
        "contradictory rows in the table; taken as positive",
    ]


@pytest.mark.large
def test_a_table_of_the_published_size(tmp_path):
    """4.5 million rows; it took 2.5 s and 110 MiB on one core."""
    table = tmp_path / "stage_2_train.csv"
    with table.open("w") as file:
        file.write("ID,Label\n")
        for i in range(752_803):
            file.writelines(f"ID_{i * 91_283:09x}_{kind},{i % 7 // 6}\n" for kind in KINDS)
    labels = read_labels(table, Problems())
    assert len(labels) == 752_803
    assert sum(bits & 32 > 0 for bits in labels.values()) == 107_543


KINDS = (*SUBTYPES, "any")


def test_images_without_a_row(tmp_path, write_rsna):
    root = write_rsna(tmp_path)
    lines = (root / "stage_2_train.csv").read_text().splitlines()
    (root / "stage_2_train.csv").write_text("\n".join(lines[:-6]))
    all_series, problems = read(root)
    assert sum(map(len, all_series)) == 6
    assert problems.items[0].reason == "1 images of the folder are not in it"


def test_half_a_download(tmp_path, write_rsna):
    root = write_rsna(tmp_path)
    table = root / "stage_2_train.csv"
    text = table.read_text()
    table.write_text(text.replace("_any,1", "_any,0").replace("_subdural,1", "_subdural,0"))
    with pytest.raises(DataError, match="no image of stage_2_train is labelled positive"):
        read(root, positive=True)
    table.write_text("ID,Label\n")
    with pytest.raises(DataError, match="no line of the form"):
        read(root)
    table.write_text("image,label\n")
    with pytest.raises(DataError, match="the first line is not ID,Label"):
        read(root)
    for path in (root / "stage_2_train").iterdir():
        path.unlink()
    table.write_text(text)
    with pytest.raises(DataError, match=r"no \.dcm files"):
        read(root)
    (root / "stage_2_train").rmdir()
    with pytest.raises(DataError, match="folder stage_2_train with its images is missing"):
        read(root)
