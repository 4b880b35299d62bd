"""Tables that are not as they should be: the error names file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomalib_medical.data.checks import check_values, parse_numbers, read_table, refuse_duplicates, require_images
from anomalib_medical.errors import MedicalError


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "t.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_cells_are_text_and_lines_count_as_in_an_editor(tmp_path: Path) -> None:
    file = write(tmp_path, '\ufeffid, x\n a ,1\n\n"b\nc",02\nd,\n')
    table = read_table(file, ("id", "x"))
    assert table.to_dict("list") == {"id": ["a", "b\nc", "d"], "x": ["1", "02", ""]}
    assert list(table.index) == [2, 5, 6]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"t\.csv has the columns none; expected id, x and, optionally, y\. Missing: id, x\."),
        ("id\n1\n", r"has the columns id; expected id, x and, optionally, y\. Missing: x\."),
        ("id,x,z\n1,2,3\n", r"Unknown: z\."),
        ("id,x,x\n1,2,3\n", r"Twice: x\."),
        ("id,x\n", r"t\.csv has a header and no rows"),
        ("id,x\n1,2\n1,2,3\n", r"t\.csv, line 3: this row has 3 cells; expected 2"),
        ("id,x\n1\n", r"t\.csv, line 2: this row has 1 cells; expected 2"),
    ],
)
def test_shapes_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(MedicalError, match=message):
        read_table(write(tmp_path, text), ("id", "x"), optional=("y",))


def test_any_other_column(tmp_path: Path) -> None:
    assert list(read_table(write(tmp_path, "z,id\n1,2\n"), ("id",), optional=None)) == ["z", "id"]
    with pytest.raises(MedicalError, match=r"expected id, z\. Missing: id\."):
        read_table(write(tmp_path, "z\n1\n"), ("id", "z"), optional=None)


def test_other_encodings_and_no_file(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes("id\ngröße\n".encode("latin-1"))
    with pytest.raises(MedicalError, match=r"t\.csv is not UTF-8 text"):
        read_table(file, ("id",))
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "absent.csv", ("id",))


def test_values(tmp_path: Path) -> None:
    file = write(tmp_path, "id,x\na,1\nb,nan\na,inf\n")
    table = read_table(file, ("id", "x"))
    with pytest.raises(MedicalError, match=r"line 4: this row is a second row for id 'a' \(see line 2\)"):
        refuse_duplicates(file, table, "id")
    with pytest.raises(MedicalError, match=r"line 3: this row has the id 'b'; expected one of a, c"):
        check_values(file, table, "id", ("c", "a"))
    for rows in ([3], [4]):
        with pytest.raises(MedicalError, match=rf"line {rows[0]}: this row has the x '(nan|inf)'; expected a number"):
            parse_numbers(file, table.loc[rows], ["x"])
    assert parse_numbers(file, table.loc[[2]], ["x"]).x.tolist() == [1.0]


def test_missing_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    with pytest.raises(FileNotFoundError, match=r"t\.csv: 2 of 3 images that it lists are not in .*, such as b\.png"):
        require_images(tmp_path / "t.csv", tmp_path, paths)
    require_images(tmp_path / "t.csv", tmp_path, paths[:1])


def test_a_table_that_is_missing_is_named_with_what_it_should_hold(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        read_table(tmp_path / "none.csv", ("id", "x"))
    assert str(caught.value) == f"There is no file {tmp_path / 'none.csv'}: expected a CSV file with the columns id, x."
