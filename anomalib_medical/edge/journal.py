"""What `watch` has done, in a database that survives kills and power cuts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from .errors import EdgeError
from .results import FAILED, PREDICTIONS, Failure, Row, Table

FILE = "journal.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    number INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    reason TEXT NOT NULL,
    content TEXT NOT NULL
)
"""


class Journal:
    """One entry a file, by its content: what was found in it, or why it could not be read.

    An entry and its rows come to be in one transaction. The tables of predictions and failures are copies of it, made
    anew at every start: whatever a kill left of them.

    Args:
        folder: Folder of the results.
    """

    def __init__(self, folder: Path) -> None:
        self._tables = Table(folder, PREDICTIONS, Row), Table(folder, FAILED, Failure)
        with _explained():
            self._database = sqlite3.connect(folder / FILE)
            # A committed entry is on the disk, whatever the system's default.
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute(_SCHEMA)
            self._database.commit()
        self._write_tables()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def __len__(self) -> int:
        """Count the files that were scored."""
        with _explained():
            (count,) = self._database.execute("SELECT COUNT(*) FROM files WHERE reason = ''").fetchone()
        return int(count)

    def has_scored(self, sha256: str) -> bool:
        """Whether this content was scored."""
        with _explained():
            found = self._database.execute("SELECT 1 FROM files WHERE sha256 = ? AND reason = ''", (sha256,))
            return found.fetchone() is not None

    def add_rows(self, sha256: str, rows: list[Row]) -> None:
        """Enter a file that was scored."""
        failed_before = self._enter(sha256, "", [asdict(row) for row in rows])
        if failed_before:
            self._write_tables()
        else:
            self._tables[0].append(rows)

    def add_failure(self, sha256: str, failure: Failure) -> None:
        """Enter a file that could not be read; the same content may come again and succeed."""
        if not self._enter(sha256, failure.reason, [asdict(failure)]):
            self._tables[1].append([failure])

    def _enter(self, sha256: str, reason: str, content: list[dict[str, object]]) -> bool:
        with _explained(), self._database:
            failed_before = bool(self._database.execute("DELETE FROM files WHERE sha256 = ?", (sha256,)).rowcount)
            self._database.execute(
                "INSERT INTO files (sha256, reason, content) VALUES (?, ?, ?)", (sha256, reason, json.dumps(content))
            )
        return failed_before

    def _write_tables(self) -> None:
        with _explained():
            entries = self._database.execute("SELECT reason, content FROM files ORDER BY number").fetchall()
        rows = [Row(**row) for reason, content in entries if not reason for row in json.loads(content)]
        failures = [Failure(**row) for reason, content in entries if reason for row in json.loads(content)]
        self._tables[0].replace(rows)
        self._tables[1].replace(failures)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        msg = (
            f"The journal {FILE} in the output folder cannot be used ({error}). Free space, or make the folder "
            "writable; if it is damaged, move it away: the files that wait are still in the drop folder."
        )
        raise EdgeError(msg) from error
