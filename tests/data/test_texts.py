"""Texts as users' programs save them."""

from pathlib import Path

import pytest

from ichfast.data.audit.lists import read_list
from ichfast.data.texts import open_text, parse_whole, read_json, read_text
from ichfast.errors import DataError, RecipeError
from ichfast.training import Recipe, recipe

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_of_an_editor(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes('{"labels":\r\n "Müller"}\r\n'.encode(encoding))
    assert read_text(path) == '{"labels":\n "Müller"}\n'
    assert read_json(path) == {"labels": "Müller"}
    with open_text(path) as file:
        assert file.read() == '{"labels":\r\n "Müller"}\r\n'
    path.write_bytes("049\n050\n".encode(encoding))
    assert set(read_list(path)) == {"049", "050"}


def test_what_an_old_editor_and_what_no_editor_saves(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("Müller".encode("cp1252"))
    assert read_text(path) == "Müller"
    path.write_bytes(bytes(range(256)) * 4)
    for read in (read_text, open_text):
        with pytest.raises(DataError, match="not a text file"):
            read(path)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_text(tmp_path / "nowhere")
    path.write_bytes(b"[" * 200_000)
    with pytest.raises(ValueError, match="nested"):
        read_json(path)


def test_recipes_come_in_by_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("[training]\nepochs = 3\n", encoding="utf-16")
    assert recipe.read(path, Recipe()).training.epochs == 3
    path.write_bytes(b"\x00\x01\x02" * 100)
    with pytest.raises(RecipeError, match=r"recipe\.toml cannot be read: not a text"):
        recipe.read(path, Recipe())


@pytest.mark.parametrize(
    ("text", "number"), [("49", 49), (" 49.0 ", 49), ("049", 49), ("-1.00", -1), ("7.", 7)]
)
def test_whole_numbers(text: str, number: int) -> None:
    assert parse_whole(text) == number


@pytest.mark.parametrize("text", ["", "4.5", "x", ".0", "1e3", "nan"])
def test_no_whole_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        parse_whole(text)


@pytest.mark.parametrize(
    "text",
    [
        "a1\nb2\n",
        "# of BHSD\n\na1\nb2",
        '"a1"\n"b2"\n',
        "PatientID\na1\nb2\n",
        "a1.dcm\nb2.nii.gz\n",
        "patient_id,age\na1,49\nb2,50\n",
        "age;Series UID\n49;a1\n50;b2\n",
        "file name\tage\na1.dcm\t49\nb2.nii\t3\n",
        "a1,\nb2,\n",
    ],
)
def test_lists_of_ids(text: str, tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text(text)
    found = read_list(path)
    assert {"a1", "b2"} <= found.keys()
    assert len(set(found.values())) == 2
    assert "49" not in found


def test_numbers_of_a_table_are_ids(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("patient\n49.0\n50.0\n")
    assert {"49", "50"} <= read_list(path).keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no id"),
        ("# nothing\n", "holds no id"),
        ("a1,b2\nc3,d4\n", "several columns"),
        ("age,sex\n49,F\n", "several columns"),
    ],
)
def test_lists_that_would_find_nothing_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_list(path)


def test_tables_of_the_published_sets(tmp_path: Path, write_ct_ich, write_rsna) -> None:
    """As pandas and spreadsheets save them: UTF-16, quoted, 1.0 for 1."""
    from ichfast.data import Problems, read_series

    for root, name in (
        (write_ct_ich(tmp_path / "ct"), "hemorrhage_diagnosis_raw_ct.csv"),
        (write_rsna(tmp_path / "rsna"), "stage_2_train.csv"),
    ):
        expected = [scan.subtypes.tolist() for scan in read_series(root, Problems())]
        header, *lines = (root / name).read_text(encoding="utf-8-sig").splitlines()
        rows = [line.split(",") for line in lines]
        rows = [[cell + ".0" if cell.isdigit() else f'"{cell}"' for cell in row] for row in rows]
        text = "\n".join([header, *(",".join(row) for row in rows)])
        (root / name).write_text(text, encoding="utf-16")
        assert [scan.subtypes.tolist() for scan in read_series(root, Problems())] == expected
