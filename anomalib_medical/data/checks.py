"""Checks on the CSV files that come with published datasets or that users write."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from pandas import DataFrame

from anomalib_medical.errors import MedicalError
from anomalib_medical.io import agree, counted, irregular


class TableError(MedicalError, ValueError):
    """A table that cannot be used as it is."""


def read_table(
    file: Path,
    columns: Sequence[str],
    optional: Collection[str] | None = (),
    prefix: str | None = None,
) -> DataFrame:
    """Read a CSV file whose columns are known.

    Args:
        file: The file, UTF-8, with a header.
        columns: Columns that it must have.
        optional: Columns that it may have; None if it may have any.
        prefix: It may have any columns that start so.

    Returns:
        Its cells as text without surrounding space; the index is the line in the file, as an editor counts.

    Raises:
        FileNotFoundError: If there is no such file.
        TableError: If it is not such a table, or has no rows.
    """
    if (kind := irregular(file)) is not None:
        msg = f"{file} is {kind}: expected a CSV file."
        raise TableError(msg)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            header = [name.strip() for name in next(reader, [])]
            _check_header(file, header, columns, optional, prefix)
            numbered = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except UnicodeDecodeError as error:
        msg = f"{file} is not UTF-8 text (byte {error.start}). Save it as CSV in UTF-8, or get it again."
        raise TableError(msg) from None
    except csv.Error as error:
        msg = f"{file} is not a CSV file: {error}."
        raise TableError(msg) from error
    for line, row in numbered:
        if len(row) != len(header):
            raise row_error(file, line, f"has {len(row)} cells", f"{len(header)}, as the header has")
    if not numbered:
        msg = f"{file} has a header and no rows. Get it again."
        raise TableError(msg)
    return DataFrame([row for _, row in numbered], index=[line for line, _ in numbered], columns=header)


def _check_header(
    file: Path,
    header: Sequence[str],
    columns: Sequence[str],
    optional: Collection[str] | None,
    prefix: str | None,
) -> None:
    allowed = {name for name in header if optional is None or (prefix is not None and name.startswith(prefix))}
    problems = [
        f"{word}: {', '.join(sorted(names))}."
        for word, names in (
            ("Missing", set(columns) - set(header)),
            ("Unknown", set(header) - set(columns) - set(optional or ()) - allowed),
            ("Twice", {name for name in header if header.count(name) > 1}),
        )
        if names
    ]
    if header and not set(columns) & set(header):
        # Without a header the first row may hold anything, such as a patient.
        separator = " It seems to be separated by semicolons." if ";" in "".join(header) else ""
        msg = (
            f"The first line of {file} is no header: it names none of the columns {', '.join(columns)}. Add one, and "
            f"separate columns by commas.{separator}"
        )
        raise TableError(msg)
    if problems:
        extra = [*sorted(optional or ()), *([f"{prefix}*"] if prefix else [])]
        also = f" and, optionally, {', '.join(extra)}" if extra else ""
        msg = f"{file} has the columns {', '.join(header) or 'none'}; expected {', '.join(columns)}{also}. " + " ".join(
            problems
        )
        raise TableError(msg)


def refuse_duplicates(file: Path, table: DataFrame, column: str) -> None:
    """Refuse a second row of the same image.

    Args:
        file: Where the table is from, for the error.
        table: The table.
        column: Column of the image.

    Raises:
        TableError: If there is one; its line and the first one's are named.
    """
    again = table[table[column].duplicated()]
    if len(again):
        value = again[column].iloc[0]
        first = table.index[table[column] == value][0]
        raise row_error(
            file, again.index[0], f"is a second row for {column} {value!r} (see line {first})", "one row each"
        )


def check_values(file: Path, table: DataFrame, column: str, allowed: Collection[str]) -> None:
    """Refuse values that are not among the known ones.

    Raises:
        TableError: Naming the first line with another value.
    """
    wrong = table[~table[column].isin(list(allowed))]
    if len(wrong):
        raise row_error(
            file, wrong.index[0], f"has the {column} {wrong[column].iloc[0]!r}", f"one of {', '.join(sorted(allowed))}"
        )


def parse_numbers(file: Path, table: DataFrame, columns: Sequence[str]) -> DataFrame:
    """Turn columns into finite numbers.

    Returns:
        The columns as floats.

    Raises:
        TableError: Naming the first line with anything else.
    """
    numbers = {}
    for column in columns:
        numbers[column] = [_number(file, line, column, text) for line, text in table[column].items()]
    return DataFrame(numbers, index=table.index)


def _number(file: Path, line: object, column: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        raise row_error(file, line, f"has the {column} {text!r}", "a number")
    return number


def require_images(file: Path, folder: Path, paths: Iterable[Path]) -> None:
    """Refuse a table that names images which are not there.

    Args:
        file: The table, for the error.
        folder: The images' folder, for the error.
        paths: The images.

    Raises:
        FileNotFoundError: With the number of missing images and the first of them.
    """
    paths = list(paths)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        msg = (
            f"{file}: {len(missing)} of {counted(len(paths), 'image')} that it lists "
            f"{agree(len(missing), 'is', 'are')} not in {folder}, such as "
            f"{missing[0].name}. Complete the folder."
        )
        raise FileNotFoundError(msg)


def row_error(file: Path, line: object, found: str, expected: str) -> TableError:
    """Build the error for a row; the line is as an editor counts."""
    return TableError(f"{file}, line {line}: this row {found}; expected {expected}.")
