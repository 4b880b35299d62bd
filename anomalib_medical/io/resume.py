"""Tables of results that grow row by row, gone on with after a kill: no row lost, none twice, one process at a time."""

from __future__ import annotations

import csv
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from .archive import Archive
from .errors import ArchiveError
from .text import readable

# In the folder of the results: what is scored, and in how many parts.
PARTS = "parts.json"
_SELECTION = re.compile(r"#[a-z]+=\d+(?:,[a-z]+=\d+)*")


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock, until the end of the block or of this process; a BlockingIOError if another process has it.

    The system takes it back from a process that was killed.
    """
    from filelock import FileLock, Timeout  # not needed to read images

    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError from error
    try:
        yield
    finally:
        lock.release()


def write_once(file: Path, text: str) -> None:
    """Write a small file, for its owner alone, if it is not there: of two processes at once, both find the first's."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # Written under another name and linked into place.
    draft = file.with_name(f"{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        draft.touch(mode=0o600, exist_ok=False)
        draft.write_text(text, encoding="utf-8")
        try:
            os.link(draft, file)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            if not file.exists():
                draft.rename(file)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def begin_part(
    archive: Archive, folder: Path, tables: Sequence[tuple[Path, ...]], model: str, *, resume: bool
) -> Iterator[tuple[int, Iterator[Path]]]:
    """Keep other processes off a part, and give the number of its files that are done, and the others.

    Args:
        archive: The files.
        folder: Of the results of all parts; made if missing.
        tables: What is written of the part, see `Rows`: files with their twins.
        model: What scores depend on, such as a digest: it must be the same for all parts, as the files must.
        resume: Go on where the tables end, if there are any. Without, there may be none.

    Raises:
        ArchiveError: If another process works on the part, its tables are there, or parts differ in what they score.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part, lock = archive.part, folder / f".{archive.part}.lock"
    facts = {"parts": part.of, "files": archive.count, "paths": archive.digest, "model": model}
    if differ := _differing(folder / PARTS, facts):
        changes = ", ".join(f"{name}: {before} before, now {now}" for name, (before, now) in differ.items())
        msg = (
            f"This is no part of what was begun in {folder} ({changes}). Give the same files, number of parts and "
            "model, or another folder for the results."
        )
        raise ArchiveError(msg)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(lock))
        except BlockingIOError as error:
            msg = f"Another process is at part {part.number} of {part.of} in {folder}: wait for its end, or stop it."
            raise ArchiveError(msg) from error
        there = [file for files in tables for file in files if file.exists()]
        if there and not resume:
            msg = f"{there[0]} is there: go on with this part with --resume, or choose another folder for the results."
            raise ArchiveError(msg)
        yield _go_on(archive, [Rows(*files) for files in tables])


def _differing(file: Path, facts: Mapping[str, Any]) -> dict[str, tuple[object, object]]:
    """Keep what all parts must share, if nothing was kept; what was kept and differs, before and now."""
    write_once(file, json.dumps(facts, indent=2) + "\n")
    try:
        kept = dict(json.loads(file.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        msg = f"{file} is damaged, and does not say what was begun here: choose another folder for the results."
        raise ArchiveError(msg) from error
    return {name: (kept.get(name), now) for name, now in facts.items() if kept.get(name) != now}


@dataclass(frozen=True)
class _Record:
    """A whole row: its cell `path`, and where it ends in each of the table's files."""

    path: str
    ends: tuple[int, ...]


class Rows:
    """The rows that a kill left of a table, in the order of the files that they are of.

    Args:
        table: A CSV file whose first column is ``path``; there may be none.
        twin: A file with a line for each row, written after it, if there is one.
    """

    def __init__(self, table: Path, twin: Path | None = None) -> None:
        self._files = [table] if twin is None else [table, twin]
        self._records = self._read() if all(file.exists() for file in self._files) else iter(())
        # Where the rows end that are kept.
        self._ends: tuple[int, ...] | None = None
        self._next: _Record | None = None
        header = next(self._records, None)
        if header is not None:
            self._ends = header.ends
            self._next = next(self._records, None)
        self._before = self._ends

    @property
    def exhausted(self) -> bool:
        """Whether no row is left."""
        return self._next is None

    @property
    def torn(self) -> bool:
        """Whether no row is left, but something that is none, or that its twin does not have."""
        ends = self._ends or (0,) * len(self._files)
        sizes = (file.stat().st_size if file.exists() else 0 for file in self._files)
        return self.exhausted and any(size > end for size, end in zip(sizes, ends, strict=True))

    @property
    def next_path(self) -> str:
        """The cell `path` of the next row."""
        return "" if self._next is None else self._next.path

    def take(self, file: Path) -> bool:
        """Go past the rows of a file; whether there are any."""
        name = readable(str(file))
        before, first = self._ends, ""
        # Its first picture once more: the same file was listed twice.
        while self._next is not None and _is_of(self._next.path, name) and self._next.path != first:
            first = first or self._next.path
            self._ends = self._next.ends
            self._next = next(self._records, None)
        if first:
            self._before = before
        return bool(first)

    def cut(self, *, last: bool) -> None:
        """Cut off what is torn, and, if so wished, the rows of the file that was taken last."""
        ends = self._before if last else self._ends
        for number, file in enumerate(self._files):
            if ends is None:
                file.unlink(missing_ok=True)
            elif file.stat().st_size > ends[number]:
                os.truncate(file, ends[number])

    def _read(self) -> Iterator[_Record]:
        streams = [_records(self._files[0]), *((("", end) for end in _line_ends(file)) for file in self._files[1:])]
        header = next(streams[0], None)
        if header is not None:
            yield _Record("", (header[1], *(0 for _ in streams[1:])))
            for rows in zip(*streams, strict=False):
                yield _Record(rows[0][0], tuple(end for _, end in rows))


def _is_of(row: str, name: str) -> bool:
    return row == name or (row.startswith(name) and _SELECTION.fullmatch(row, len(name)) is not None)


def _records(table: Path) -> Iterator[tuple[str, int]]:
    """First cell and end, in bytes, of each whole row, the header first."""
    position = 0

    def lines() -> Iterator[str]:
        nonlocal position
        with table.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return
                position += len(line)
                yield line.decode("utf-8", errors="replace")

    columns = 0
    try:
        # Strict: a row whose quotes are not closed is torn, not the last one.
        for cells in csv.reader(lines(), strict=True):
            columns = columns or len(cells)
            if len(cells) != columns:
                return
            yield cells[0], position
    except csv.Error:
        return


def _line_ends(file: Path) -> Iterator[int]:
    position = 0
    with file.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                return
            position += len(line)
            yield position


def _go_on(archive: Archive, tables: Sequence[Rows]) -> tuple[int, Iterator[Path]]:
    """Find the first file that the tables, written in the order of the files, do not show to be done.

    The last file that has rows comes again, since a kill may have left some of them, and its rows are cut off. So are
    those behind the end of a torn table.
    """
    files = iter(archive)
    begun: list[Path] = []
    took = [False] * len(tables)
    done = 0
    while not all(table.exhausted for table in tables) and not any(table.torn for table in tables):
        path = next(files, None)
        if path is None:
            left = next(table.next_path for table in tables if not table.exhausted)
            msg = (
                f"There is a row of {left}, which is none of the files of part {archive.part.number}, or not in their "
                "order. Give the files that the part was begun with, or choose another folder for the results."
            )
            raise ArchiveError(msg)
        found = [table.take(path) for table in tables]
        done += 1
        if any(found):
            begun, took = [path], found
    for table, last in zip(tables, took, strict=True):
        table.cut(last=last)
    return done - len(begun), chain(begun, files)
