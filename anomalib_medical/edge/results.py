"""The rows of results, and the files they are written to."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ..io import readable

PREDICTIONS, FAILED = "predictions", "failed"


@dataclass(frozen=True)
class Row:
    """One picture; the fields are the columns, the first ones those of the training's ``predictions.csv``.

    Attributes:
        path: The file as it was given, with the frame or slice behind ``#``.
        raw_score: Score of the model.
        score: Normalised to [0, 1]; None without a threshold.
        label: ``normal`` or ``abnormal``; empty without a threshold.
        threshold: Raw score above which an image is abnormal; None without one.
        image: Name of the picture in everything that is written beside this table and the journal: from the file's
            content, never from its name or header.
        read_ms: Reading and decoding, in milliseconds.
        score_ms: The model.
        note: What to know of this row.
    """

    path: str
    raw_score: float
    score: float | None
    label: str
    threshold: float | None
    image: str
    read_ms: float
    score_ms: float
    note: str = ""


@dataclass(frozen=True)
class Failure:
    """A file that could not be read.

    Attributes:
        path: As it was given.
        image: Name made of its content, empty if that could not be read.
        reason: What is wrong with it, without its path.
    """

    path: str
    image: str
    reason: str


class Table:
    """A CSV file, and with it a file of the same rows as JSON lines; both grow row by row.

    Args:
        folder: Where they are.
        stem: Their name.
        kind: Class of the rows.
    """

    def __init__(self, folder: Path, stem: str, kind: type[Row] | type[Failure]) -> None:
        self._paths = {".csv": folder / f"{stem}.csv", ".jsonl": folder / f"{stem}.jsonl"}
        self._columns = [field.name for field in fields(kind)]

    def append(self, rows: Iterable[Row | Failure]) -> None:
        """Add rows and hand them to the system, so that they outlive this process."""
        rows = list(rows)
        for suffix, path in self._paths.items():
            new = not path.exists()
            with path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._text(suffix, rows, header=new))

    def replace(self, rows: Iterable[Row | Failure]) -> None:
        """Write the files anew, each in one step."""
        rows = list(rows)
        for suffix, path in self._paths.items():
            content = self._text(suffix, rows, header=True)
            write_atomically(path, content.encode())

    def _text(self, suffix: str, rows: list[Row | Failure], *, header: bool) -> str:
        if suffix == ".jsonl":
            return "".join(json.dumps(_plain(row)) + "\n" for row in rows)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if header:
            writer.writerow(self._columns)
        writer.writerows([_cell(value) for value in _plain(row).values()] for row in rows)
        return text.getvalue()


def _plain(row: Row | Failure) -> dict[str, object]:
    """Return the fields; names of files that are no text become text that every reader takes."""
    return {name: readable(value) if isinstance(value, str) else value for name, value in asdict(row).items()}


def _cell(value: object) -> str:
    if value is None:
        return ""
    # Nine digits tell every float32 apart.
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or whoever looks after a power cut, finds all of it or what was there before."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
