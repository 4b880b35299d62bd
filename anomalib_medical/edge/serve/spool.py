"""Files on their way to be scored: what still arrives, and whole series in a queue, with a bound on the disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..dicom_objects import FOLDER as OBJECTS
from ..results import write_atomically

INCOMING, QUEUE = "incoming", "queue"
# Seconds for which the size of the spool is not measured again.
_MEASURED = 1.0


def name_of(uid: str) -> str:
    """Name a study, series or instance by its UID, which itself may lead to a patient."""
    return hashlib.sha256(uid.strip().encode()).hexdigest()[:32]


class Spool:
    """Two folders: ``incoming/STUDY/SERIES/INSTANCE.dcm`` and ``queue/SERIES/INSTANCE.dcm``, by `name_of`.

    Whatever is in the queue is whole, and stays there until what becomes of it is in the book. Of what is being fetched
    when this process ends, nothing is kept; of what was received, everything.

    Args:
        output: Folder of results.
        limit: Bytes that these two folders and the results that wait to be sent may hold before no more is taken in.
        free: Bytes that must be free on the disk.
    """

    def __init__(self, output: Path, limit: float, free: float) -> None:
        self._folders = [output / name for name in (INCOMING, QUEUE, OBJECTS)]
        self._incoming, self._queue = self._folders[:2]
        self._limit, self._free = limit, free
        self._lock = threading.Lock()
        self._measured = (-float("inf"), True)
        for folder in self._folders:
            folder.mkdir(parents=True, exist_ok=True)
        for unfinished in self._incoming.glob(".*"):
            shutil.rmtree(unfinished)
        # When something last came of each study; of those that were here before nobody knows.
        self._last = dict.fromkeys((path.name for path in _folders(self._incoming)), time.monotonic())

    def has_room(self) -> bool:
        """Whether more may be taken in."""
        measured, room = self._measured
        now = time.monotonic()
        if now - measured >= _MEASURED:
            used = sum(map(_size, self._folders))
            room = used < self._limit and shutil.disk_usage(self._queue).free > self._free
            self._measured = (now, room)
        return room

    def put(self, study: str, series: str, instance: str, content: bytes) -> None:
        """Keep an instance that was received; it is on the disk when this returns. Of two the last counts."""
        name = name_of(study)
        folder = self._incoming / name / name_of(series)
        with self._lock:
            self._last[name] = time.monotonic()
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / f"{name_of(instance)}.dcm", content)

    def settle(self, quiet: float) -> None:
        """Put the series of studies of which nothing came for `quiet` seconds into the queue."""
        now = time.monotonic()
        with self._lock:
            for study in [name for name, last in self._last.items() if now - last >= quiet]:
                folder = self._incoming / study
                for series in sorted(_folders(folder)):
                    self._enqueue(series)
                folder.rmdir()
                del self._last[study]

    @contextmanager
    def fetched(self, series: str) -> Iterator[Path]:
        """Give a new folder for the instances of a series, and queue it if nothing is raised."""
        folder = self._incoming / f".{name_of(series)}" / name_of(series)
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
            for file in folder.iterdir():
                with file.open("rb") as content:
                    os.fsync(content.fileno())  # what is said to be taken outlives a power cut
            with self._lock:
                self._enqueue(folder)
        finally:
            shutil.rmtree(folder.parent, ignore_errors=True)

    def _enqueue(self, folder: Path) -> None:
        target = self._queue / folder.name
        try:
            # Replaces an empty folder, which no file is in between.
            folder.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            # More of a series that waits.
            for file in folder.iterdir():
                file.replace(target / file.name)
            folder.rmdir()

    def count(self) -> int:
        """Count the series in the queue, from any thread."""
        return sum(1 for _ in self._queue.iterdir())

    def queue(self) -> list[Path]:
        """List the folders of whole series, the first that came first."""
        return sorted(_folders(self._queue), key=lambda folder: (folder.stat().st_mtime_ns, folder.name))


def _folders(folder: Path) -> list[Path]:
    """What is in a folder but for the files that systems and people leave there."""
    return [path for path in folder.iterdir() if path.is_dir()]


def _size(folder: Path) -> int:
    """Bytes of all files below a folder; those that are moved meanwhile may count or not."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += (Path(parent) / name).lstat().st_size
    return size
