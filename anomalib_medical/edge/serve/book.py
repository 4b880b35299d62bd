"""What `serve` has done and has yet to do, in the journal's database."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..results import JOURNAL, Entry, Journal, SeriesRow, explained

# Series and instances by `spool.name_of`. `told` alone has UIDs, until the study was looked up.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS taken (series TEXT PRIMARY KEY, instances INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS scored (
    number INTEGER PRIMARY KEY, series TEXT NOT NULL, state TEXT NOT NULL, objects TEXT NOT NULL, time REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS instances (instance TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attempts (series TEXT PRIMARY KEY, count INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS told (study TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS studies (study TEXT PRIMARY KEY) WITHOUT ROWID;
"""
# States of what was taken: its results wait to be sent; all was done; it was none of ours to score; it could not be
# scored; its results were refused, and are tried again at the next start.
WAITING, DONE, PASSED, FAILED, REFUSED = "waiting", "done", "passed", "failed", "refused"
# Instances of a series that is never fetched, however many it has.
_ALL = 2**62


@dataclass(frozen=True)
class Waiting:
    """Results that wait to be sent."""

    number: int
    series: str
    objects: Sequence[str]  # names of files
    since: float  # when the series was whole, in seconds since 1970


class Book(Journal):
    """The journal, and the state of each series: whatever is committed here outlives kills and power cuts."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with explained():
            self._database.executescript(_SCHEMA)
            self._database.execute("UPDATE scored SET state = ? WHERE state = ?", (WAITING, REFUSED))
            self._database.commit()

    def taken(self, series: str) -> int:
        """How many instances the archive had of a series when it was last fetched; 0 if it was not."""
        with explained():
            row = self._database.execute("SELECT instances FROM taken WHERE series = ?", (series,)).fetchone()
        return int(row[0]) if row else 0

    def take(self, series: str, instances: int) -> None:
        """Enter that so many instances of a series are in the queue."""
        with explained(), self._database:
            self._take(series, instances)

    def _take(self, series: str, instances: int) -> None:
        self._database.execute("INSERT OR REPLACE INTO taken VALUES (?, ?)", (series, instances))

    def has_instance(self, instance: str) -> bool:
        """Whether an instance was scored, or passed over."""
        with explained():
            found = self._database.execute("SELECT 1 FROM instances WHERE instance = ?", (instance,))
            return found.fetchone() is not None

    def reason(self, digest: str) -> str | None:
        """Why a file with this SHA-256 could not be read, empty if it was scored; None if nothing is known of it."""
        with explained():
            row = self._database.execute("SELECT reason FROM files WHERE sha256 = ?", (digest,)).fetchone()
        return None if row is None else str(row[0])

    def attempt(self, series: str) -> int:
        """Enter an attempt to score a series; returns how many there were before, of which none came to an end."""
        with explained(), self._database:
            row = self._database.execute("SELECT count FROM attempts WHERE series = ?", (series,)).fetchone()
            before = int(row[0]) if row else 0
            self._database.execute("INSERT OR REPLACE INTO attempts VALUES (?, ?)", (series, before + 1))
        return before

    def give_back(self, series: str) -> None:
        """Enter that an attempt does not count: it was ended for another reason than the series."""
        with explained(), self._database:
            self._database.execute("UPDATE attempts SET count = count - 1 WHERE series = ?", (series,))

    def attempts(self) -> dict[str, int]:
        """How often scoring was begun, of each series of which it came to no end."""
        with explained():
            return dict(self._database.execute("SELECT series, count FROM attempts").fetchall())

    def finish(
        self,
        series: str,
        state: str,
        instances: Iterable[str],
        entries: Sequence[Entry] = (),
        rows: Sequence[SeriesRow] = (),
        objects: Sequence[str] = (),
        own: Iterable[str] = (),
        study: str = "",
        since: float | None = None,
    ) -> None:
        """Enter what became of a series, in one transaction: rows of its files and its own, objects to be sent.

        Args:
            series: The series.
            state: Its state from now on.
            instances: What of it is never looked at again.
            entries: As in `Journal.add`.
            rows: As in `Journal.add`.
            objects: Names of the files to be sent.
            own: Series that these are of: never to be fetched.
            study: Its study, if that is known.
            since: When it was whole, in seconds since 1970; None for now.
        """
        with explained(), self._database:
            failed_before = self._enter(entries, rows)
            cursor = self._database.execute(
                "INSERT INTO scored (series, state, objects, time) VALUES (?, ?, ?, ?)",
                (series, state, json.dumps(list(objects)), time.time() if since is None else since),
            )
            self._database.executemany("INSERT OR IGNORE INTO studies VALUES (?)", [(study,)] if study else [])
            self._database.executemany(
                "INSERT OR IGNORE INTO instances VALUES (?, ?)", [(each, cursor.lastrowid) for each in instances]
            )
            self._database.execute("DELETE FROM attempts WHERE series = ?", (series,))
            for each in own:
                self._take(each, _ALL)
        self._copy(entries, rows, again=failed_before)

    def waiting(self) -> list[Waiting]:
        """List the results that wait to be sent, in the order in which they were made."""
        with explained():
            found = self._database.execute(
                "SELECT number, series, objects, time FROM scored WHERE state = ? ORDER BY number", (WAITING,)
            ).fetchall()
        return [Waiting(number, series, json.loads(objects), since) for number, series, objects, since in found]

    def set_state(self, number: int, state: str) -> None:
        """Enter what became of results that waited."""
        with explained(), self._database:
            self._database.execute("UPDATE scored SET state = ? WHERE number = ?", (state, number))

    def counts(self) -> dict[str, int]:
        """Count the series of each state."""
        with explained():
            return dict(self._database.execute("SELECT state, COUNT(*) FROM scored GROUP BY state").fetchall())

    def told(self) -> list[str]:
        """List the studies that were told of, by their UIDs, until each is forgotten."""
        with explained():
            return [study for (study,) in self._database.execute("SELECT study FROM told").fetchall()]

    def forget(self, study: str) -> None:
        """Enter that all of a study that was told of is taken."""
        with explained(), self._database:
            self._database.execute("DELETE FROM told WHERE study = ?", (study,))


def tell(folder: Path, study: str) -> None:
    """Enter a study to look up, from any thread; it is on the disk when this returns."""
    with explained(), closing(sqlite3.connect(folder / JOURNAL, timeout=30)) as database, database:
        database.execute("PRAGMA synchronous=FULL")
        database.execute("INSERT OR IGNORE INTO told VALUES (?)", (study,))
