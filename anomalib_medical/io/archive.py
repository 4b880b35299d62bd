"""Many files to score: in one order, in parts for several processes, and gone on with after a stop."""

from __future__ import annotations

import csv
import errno
import hashlib
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from .errors import ArchiveError
from .files import on_disk
from .listing import has_image_name, is_companion, walk_folder
from .text import counted

LISTS = frozenset({".csv", ".txt"})
STANDARD_INPUT = "-"
_PROGRESS_SECONDS = 30.0


@dataclass(frozen=True)
class Part:
    """One of the parts, counted from 1, that an archive is divided into; the whole of it by default.

    A part is a run of neighbours in the archive's order, as long as every other but for one file: what is in a file
    decides nothing, and the results of all parts, one after another, are those of the whole.
    """

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        """Refuse parts that are not there."""
        if self.of < 1 or not 1 <= self.number <= self.of:
            msg = f"Got part {self.number} of {self.of}, expected a part from 1 to the number of parts."
            raise ArchiveError(msg)

    def __str__(self) -> str:
        """Return its name in those of files: ``part-2-of-8``."""
        return f"part-{self.number}-of-{self.of}"

    def block(self, count: int) -> range:
        """Which of so many files are its own."""
        return range(count * (self.number - 1) // self.of, count * self.number // self.of)


class Archive:
    """The files of folders and lists, as they are now, in an order that no content decides.

    Going through it yields the files of its part. The list is kept and sorted on the disk, in the folder for temporary
    files: memory does not grow with it.

    Args:
        sources: Folders, searched at any depth as `list_folder` does; files; lists of files and folders: ``.txt``, one
            a line, and ``.csv``, in the column ``path``, below the list's own folder; or ``-`` for lines on standard
            input, below the working directory. Folders and files are brought into the order of their paths; lists
            have their own.
        part: Which part.

    Attributes:
        count: Number of files of the whole, as far as their names tell: objects without an image are among them.
        digest: SHA-256 of their paths, the same for all parts of the same archive.

    Raises:
        ArchiveError: If there is no such file or folder, a list has no column ``path``, or folders lie in each other.
        OSError: If there is no room for the list.
    """

    def __init__(self, sources: Sequence[str | Path], part: Part = Part()) -> None:
        self.part = part
        paths = _in_order(sources)
        # Without a name it is a file that goes with this process; threads may go through it.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        digest = hashlib.sha256()
        try:
            self._database.execute("PRAGMA journal_mode=OFF")
            self._database.execute("CREATE TABLE found (place INTEGER, path BLOB, searched INTEGER)")
            self._database.execute("BEGIN")
            self._database.executemany("INSERT INTO found VALUES (?, ?, ?)", _found(paths))
            order = "SELECT path, searched FROM found ORDER BY place, path, rowid"
            self._database.execute(f"CREATE TABLE files AS {order}")
            self._database.execute("DROP TABLE found")
            self._database.execute("COMMIT")
            (self.count,) = self._database.execute("SELECT COUNT(*) FROM files").fetchone()
            for (path,) in self._database.execute("SELECT path FROM files ORDER BY rowid"):
                digest.update(path + b"\n")
        except sqlite3.Error as error:
            reason = f"The list of files cannot be kept ({error}): make room in the folder for temporary files"
            raise OSError(errno.ENOSPC, reason) from error
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        """Count the files of the part."""
        return len(self.part.block(self.count))

    def __iter__(self) -> Iterator[Path]:
        """Go through the files of the part; texts of searched folders are passed over."""
        block = self.part.block(self.count)
        query = "SELECT path, searched FROM files WHERE rowid > ? AND rowid <= ? ORDER BY rowid"
        for key, searched in self._database.execute(query, (block.start, block.stop)):
            path = Path(*os.fsdecode(key).split("\0"))
            if not (searched and is_companion(path)):
                yield path


def _in_order(sources: Sequence[str | Path]) -> list[Path]:
    paths = sorted((on_disk(Path(source)) for source in sources), key=lambda path: (path.suffix.lower() in LISTS, path))
    folders = [(path.resolve(), path) for path in paths if path.is_dir()]
    for path in paths:
        if str(path) != STANDARD_INPUT and not os.path.lexists(path):
            msg = f"There is no file or folder {path}."
            raise ArchiveError(msg)
        for real, folder in folders:
            if path is not folder and path.resolve().is_relative_to(real):
                msg = f"{path} lies in {folder}, or is the same: its files would be scored twice. Give one of them."
                raise ArchiveError(msg)
    return paths


def _found(sources: Sequence[Path]) -> Iterator[tuple[int, bytes, bool]]:
    """Every file: its place in the lists, what sorts as its path does, and whether a folder was searched for it."""
    place = 0
    for source in sources:
        for path in _lines_of(source):
            place += path is not source
            # The name of an image spares a look at the disk for each line of a long list.
            is_folder = (path is source or not has_image_name(path)) and path.is_dir()
            for file in walk_folder(path) if is_folder else [path]:
                yield place, os.fsencode("\0".join(file.parts)), is_folder


def _lines_of(source: Path) -> Iterator[Path]:
    """What a list names; a source that is no list, as it is."""
    if str(source) == STANDARD_INPUT:
        yield from (Path(line.rstrip("\r\n")) for line in sys.stdin if line.strip())
    elif source.suffix.lower() in LISTS and source.is_file():
        with source.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            names = _column(source, lines) if source.suffix.lower() == ".csv" else lines
            yield from (on_disk(source.parent / name.rstrip("\r\n")) for name in names if name.strip())
    else:
        yield source


def _column(file: Path, lines: TextIO) -> Iterator[str]:
    table = csv.DictReader(lines)
    if "path" not in (table.fieldnames or ()):
        found = ", ".join(table.fieldnames or ()) or "nothing"
        msg = f"{file} has the columns {found}, expected a column path with the files to score."
        raise ArchiveError(msg)
    for row in table:
        yield row["path"] or ""


class Progress:
    """Says now and then, in one line, how far it is: for logs, where no bar can be drawn."""

    def __init__(
        self, total: int, done: int = 0, clock: Callable[[], float] = time.monotonic, unit: str = "file"
    ) -> None:
        self._total, self._first, self._clock, self._unit = total, done, clock, unit
        self._start = self._said = clock()

    def line(self, done: int) -> str:
        """What to say with so many done: their rate, of this run, and the time left; empty if it is too early."""
        now = self._clock()
        if now - self._said < _PROGRESS_SECONDS or done <= self._first:
            return ""
        self._said = now
        rate = (done - self._first) / (now - self._start)
        left = _duration((self._total - done) / rate)
        return f"{done} of {counted(self._total, self._unit)}, {rate:.1f} a second, {left} left."


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
