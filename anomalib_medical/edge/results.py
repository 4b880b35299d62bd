"""The rows of results, the tables they are written to, and the journal of what `watch` has done."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..io import finite_or_none, readable
from . import EdgeError

PREDICTIONS, FAILED = "predictions", "failed"
SERIES, PATIENTS = "series", "patients"
JOURNAL = "journal.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    number INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    reason TEXT NOT NULL,
    content TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS series (number INTEGER PRIMARY KEY, content TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Row:
    """One picture; the fields are the columns, the first ones those of the training's ``predictions.csv``."""

    path: str  # the file as it was given, with the frame or slice behind #
    raw_score: float
    score: float | None  # normalised to [0, 1]; None without a threshold
    label: str  # normal or abnormal; empty without a threshold
    threshold: float | None  # raw score above which an image is abnormal
    image: str  # name of the picture in all but the tables' paths and the journal, see `image_name`
    read_ms: float  # reading and decoding
    score_ms: float  # the model
    note: str = ""  # what to know of this row
    series: str = ""  # its series; empty where it is of none, or a copy that does not count
    slice: int | None = None  # its place in the series, from 0


@dataclass(frozen=True)
class Failure:
    """A file that could not be read."""

    path: str  # as it was given
    image: str  # name made of its content; empty if that could not be read
    reason: str  # what is wrong with it, without its path


@dataclass(frozen=True)
class SeriesRow:
    """One series: a stack of slices, a volume, or the frames of a file."""

    series: str  # name made of content, see `series_name`
    patient: str  # the name of the patient's first series; on the side of the training, the patient's salted hash
    raw_score: float  # see `series_score`
    score: float | None  # normalised as an image's is; None without a threshold for series
    label: str  # normal or abnormal; empty without a threshold
    threshold: float | None  # raw, from held-out normal series
    slices: int  # that were scored and counted
    worst: str  # the slice with the highest score, as in the column path of the predictions
    note: str = ""


@dataclass(frozen=True)
class PatientRow:
    """One patient, whose score is the highest of the series; the columns are those of `SeriesRow`."""

    patient: str
    raw_score: float
    score: float | None
    label: str
    threshold: float | None  # raw, from held-out normal patients
    series: int
    slices: int
    worst: str
    note: str = ""


AnyRow = Row | Failure | SeriesRow | PatientRow


def image_name(digest: str) -> str:
    """Name an image by the SHA-256 of its file: the file's own name, and its header, may say who it is of."""
    return digest[:16]


def series_name(images: Sequence[str]) -> str:
    """Name a series by the names of its files, in their order; of one file, as the file."""
    return images[0] if len(images) == 1 else image_name(hashlib.sha256("\0".join(images).encode()).hexdigest())


class Table:
    """A CSV file, and, unless `suffixes` say otherwise, a file of the same rows as JSON lines; both grow row by row."""

    def __init__(
        self, folder: Path, stem: str, kind: type[AnyRow], suffixes: Sequence[str] = (".csv", ".jsonl")
    ) -> None:
        self._paths = {suffix: folder / f"{stem}{suffix}" for suffix in suffixes}
        self._columns = [field.name for field in fields(kind)]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, in the order in which they are written."""
        return tuple(self._paths.values())

    @property
    def exists(self) -> bool:
        """Whether it was begun."""
        return self.files[0].exists()

    def append(self, rows: Iterable[AnyRow]) -> None:
        """Add rows and hand them to the system, so that they outlive this process."""
        rows = list(rows)
        for suffix, path in self._paths.items():
            new = not path.exists()
            with path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._text(suffix, rows, header=new))

    def replace(self, rows: Iterable[AnyRow]) -> None:
        """Write the files anew, each in one step."""
        rows = list(rows)
        for suffix, path in self._paths.items():
            write_atomically(path, self._text(suffix, rows, header=True).encode())

    def _text(self, suffix: str, rows: list[AnyRow], *, header: bool) -> str:
        if suffix == ".jsonl":
            return "".join(json.dumps(_finite(_plain(row)), allow_nan=False) + "\n" for row in rows)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if header:
            writer.writerow(self._columns)
        writer.writerows([_cell(value) for value in _plain(row).values()] for row in rows)
        return text.getvalue()


def _plain(row: AnyRow) -> dict[str, object]:
    """The fields; names of files that are no text become text that every reader takes."""
    return {name: readable(value) if isinstance(value, str) else value for name, value in asdict(row).items()}


def _finite(fields_of_row: dict[str, object]) -> dict[str, object]:
    return {name: finite_or_none(value) if isinstance(value, float) else value for name, value in fields_of_row.items()}


def _cell(value: object) -> str:
    if value is None:
        return ""
    # Nine digits tell every float32 apart.
    return f"{value:.9g}" if isinstance(value, float) else str(value)


@contextmanager
def written_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a file so that a reader, or whoever looks after a power cut, finds all of it or what was there before."""
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file, see `written_atomically`."""
    with written_atomically(path) as file:
        file.write(content)


class Entry(NamedTuple):
    """What is entered of a file."""

    sha256: str
    rows: Sequence[AnyRow]
    reason: str = ""  # why it failed; the same content may come again, and succeed


class Journal:
    """One entry a file, by its content, that survives kills and power cuts: its rows, or why it could not be read.

    The entries of a series, their rows and its own come to be in one transaction. The tables of predictions, series and
    failures are copies of it, made anew at every start: whatever a kill left of them.
    """

    def __init__(self, folder: Path) -> None:
        self._predictions, self._failed = Table(folder, PREDICTIONS, Row), Table(folder, FAILED, Failure)
        self._series = Table(folder, SERIES, SeriesRow)
        with explained():
            self._database = sqlite3.connect(folder / JOURNAL)
            # A committed entry is on the disk, whatever the system's default.
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_SCHEMA)
            self._database.commit()
        self._write_tables()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def __len__(self) -> int:
        """Count the files that were scored."""
        with explained():
            (count,) = self._database.execute("SELECT COUNT(*) FROM files WHERE reason = ''").fetchone()
        return int(count)

    def has_scored(self, sha256: str) -> bool:
        """Whether this content was scored."""
        with explained():
            found = self._database.execute("SELECT 1 FROM files WHERE sha256 = ? AND reason = ''", (sha256,))
            return found.fetchone() is not None

    def add(self, entries: Sequence[Entry], series: Sequence[SeriesRow] = ()) -> None:
        """Enter the files of a series, and what is said of it as one."""
        with explained(), self._database:
            known = self._enter(entries, series)
        self._copy(entries, series, again=known)

    def _enter(self, entries: Sequence[Entry], series: Sequence[SeriesRow]) -> bool:
        """Enter files and series within a transaction; says whether something was known of one of the files."""
        known = 0
        for entry in entries:
            content = json.dumps([asdict(row) for row in entry.rows])
            known += self._database.execute("DELETE FROM files WHERE sha256 = ?", entry[:1]).rowcount
            self._database.execute(
                "INSERT INTO files (sha256, reason, content) VALUES (?, ?, ?)", (entry.sha256, entry.reason, content)
            )
        rows = [(json.dumps(asdict(row)),) for row in series]
        self._database.executemany("INSERT INTO series (content) VALUES (?)", rows)
        return known > 0

    def _copy(self, entries: Sequence[Entry], series: Sequence[SeriesRow], *, again: bool) -> None:
        """Bring the tables up to what was entered; `again` if rows that are in them do not count any more."""
        if again:
            self._write_tables()
            return
        for table, of_failures in ((self._predictions, False), (self._failed, True)):
            new = [row for entry in entries if bool(entry.reason) == of_failures for row in entry.rows]
            if new:
                table.append(new)
        if series:
            self._series.append(series)

    def _write_tables(self) -> None:
        with explained():
            entries = self._database.execute("SELECT reason, content FROM files ORDER BY number").fetchall()
            series = self._database.execute("SELECT content FROM series ORDER BY number").fetchall()
        self._predictions.replace(Row(**row) for reason, rows in entries if not reason for row in json.loads(rows))
        self._failed.replace(Failure(**row) for reason, rows in entries if reason for row in json.loads(rows))
        self._series.replace(SeriesRow(**json.loads(row)) for (row,) in series)


@contextmanager
def explained() -> Iterator[None]:
    """Say what to do where the database of the journal cannot be used."""
    try:
        yield
    except sqlite3.Error as error:
        msg = (
            f"The journal {JOURNAL} in the output folder cannot be used ({error}). Free space, or make the folder "
            "writable; if it is damaged, move it away: the files that wait are still where they were."
        )
        raise EdgeError(msg) from error
