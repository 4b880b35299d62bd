"""Checks on the CSV and JSON files that come with published datasets or that users write."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pandas import DataFrame, Series

from anomalib_medical.errors import MedicalError
from anomalib_medical.io import agree, counted, irregular


def read_table(
    file: Path,
    columns: Sequence[str],
    optional: Collection[str] | None = (),
    prefix: str | None = None,
) -> DataFrame:
    """Read a CSV file in UTF-8 that has these columns, any of the optional ones (None: of all) or of that prefix.

    Returns:
        Its cells as text without surrounding space; the index is the line in the file, as an editor counts.

    Raises:
        FileNotFoundError: If there is no such file.
        MedicalError: If it is another one.
    """
    if (kind := irregular(file)) is not None:
        msg = f"{file} is {kind}: expected a CSV file."
        raise MedicalError(msg)
    if not file.exists():
        msg = f"There is no file {file}: expected a CSV file with the columns {', '.join(columns)}."
        raise FileNotFoundError(msg)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            header = [name.strip() for name in next(reader, [])]
            _check_header(file, header, columns, optional, prefix)
            numbered = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except UnicodeDecodeError as error:
        msg = f"{file} is not UTF-8 text (byte {error.start}). Save it as CSV in UTF-8, or get it again."
        raise MedicalError(msg) from None
    except csv.Error as error:
        msg = f"{file} is not a CSV file: {error}."
        raise MedicalError(msg) from error
    for line, row in numbered:
        if len(row) != len(header):
            raise row_error(file, line, f"has {len(row)} cells", f"{len(header)}, as the header has")
    if not numbered:
        msg = f"{file} has a header and no rows. Get it again."
        raise MedicalError(msg)
    return DataFrame([row for _, row in numbered], index=[line for line, _ in numbered], columns=header)


def _check_header(
    file: Path, header: Sequence[str], columns: Sequence[str], optional: Collection[str] | None, prefix: str | None
) -> None:
    if header and not set(columns) & set(header):
        # Without a header the first row may hold anything, such as a patient.
        separator = " It seems to be separated by semicolons." if ";" in "".join(header) else ""
        msg = (
            f"The first line of {file} is no header: it names none of the columns {', '.join(columns)}. Add one, and "
            f"separate columns by commas.{separator}"
        )
        raise MedicalError(msg)
    known = {*columns, *(header if optional is None else optional)}
    unknown = {name for name in header if name not in known and not (prefix and name.startswith(prefix))}
    twice = {name for name in header if header.count(name) > 1}
    problems = {"Missing": set(columns) - set(header), "Unknown": unknown, "Twice": twice}
    if any(problems.values()):
        extra = [*sorted(optional or ()), *([f"{prefix}*"] if prefix else [])]
        also = f" and, optionally, {', '.join(extra)}" if extra else ""
        found = " ".join(f"{word}: {', '.join(sorted(names))}." for word, names in problems.items() if names)
        msg = f"{file} has the columns {', '.join(header) or 'none'}; expected {', '.join(columns)}{also}. {found}"
        raise MedicalError(msg)


def read_json(
    file: Path,
    expected: str,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:  # noqa: ANN401 # JSON may hold anything
    """Read a JSON file; a `MedicalError` says what was expected if it is none."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=object_pairs_hook)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise json_error(file, f"it is not JSON text ({error})", expected) from None


def json_error(file: Path, found: str, expected: str) -> MedicalError:
    """Build the error for a JSON file."""
    return MedicalError(f"{file}: {found}; expected {expected}.")


def row_error(file: Path, line: object, found: str, expected: str) -> MedicalError:
    """Build the error for a row; the line is as an editor counts."""
    return MedicalError(f"{file}, line {line}: this row {found}; expected {expected}.")


def refuse_rows(file: Path, table: DataFrame, wrong: Series[bool], found: str, expected: str) -> None:
    """Refuse a table for its first wrong row, if there is one; ``found`` may name columns: ``has the id {id!r}``."""
    if wrong.any():
        row = table[wrong].iloc[0]
        raise row_error(file, row.name, found.format_map(row), expected)


def refuse_duplicates(file: Path, table: DataFrame, column: str) -> None:
    """Refuse a second row of the same image; its line and the first one's are named."""
    first_line = table.index.to_series().groupby(table[column]).transform("first")
    found = f"is a second row for {column} {{{column}!r}} (see line {{first_line}})"
    refuse_rows(file, table.assign(first_line=first_line), table[column].duplicated(), found, "one row each")


def refuse_changes(file: Path, table: DataFrame, key: str, column: str) -> None:
    """Refuse two rows of the same key that say different things."""
    first = table.groupby(key)[column].transform("first")
    found = f"gives {{{key}}} the {column} {{{column}!r}} after {{first!r}}"
    refuse_rows(file, table.assign(first=first), table[column] != first, found, f"one {column} each")


def check_values(file: Path, table: DataFrame, column: str, allowed: Collection[str]) -> None:
    """Refuse values that are not among the known ones."""
    wrong = ~table[column].isin(list(allowed))
    refuse_rows(file, table, wrong, f"has the {column} {{{column}!r}}", f"one of {', '.join(sorted(allowed))}")


def parse_numbers(file: Path, table: DataFrame, columns: Sequence[str]) -> DataFrame:
    """Return columns as floats, all of which must be finite numbers."""
    numbers = table[list(columns)].map(_number).astype(float)
    for column in columns:
        refuse_rows(file, table, ~np.isfinite(numbers[column]), f"has the {column} {{{column}!r}}", "a number")
    return numbers


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def require_images(file: Path, folder: Path, paths: Iterable[Path]) -> None:
    """Refuse a list of images in a folder of which some are not there: a `FileNotFoundError` counts them."""
    paths = list(paths)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        are = agree(len(missing), "is", "are")
        msg = (
            f"{file}: {len(missing)} of {counted(len(paths), 'image')} that it lists {are} not in {folder}, such as "
            f"{missing[0].name}. Complete the folder."
        )
        raise FileNotFoundError(msg)
