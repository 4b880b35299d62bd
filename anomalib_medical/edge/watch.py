"""`watch`: score files as they arrive in a folder, each exactly once, whatever happens to this process."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from ..io import Series, SliceFacts, counted, group_slices, irregular, sha256, slice_facts
from ..io import locked as locked_file
from . import EdgeError
from .reading import FileResult
from .results import Entry, Journal, image_name, write_atomically, written_atomically
from .retention import Retention
from .series import SeriesScorer
from .stopping import Stop

logger = logging.getLogger("edge")

LOCK = ".edge.lock"
PROCESSED, FAILED = "processed", "failed"
# Names that senders give to what they have not finished; hidden files are passed over too.
_UNFINISHED = frozenset({".part", ".partial", ".tmp", ".temp", ".crdownload", ".filepart", ".lock"})
# Of a file: inode, size, time of change. Compared for equality only, so that no clock has to be right.
_State = tuple[int, int, int]


class DropFolder:
    """A folder that files arrive in, in its subfolders too.

    They have arrived when they have not changed for `settle` seconds, on a clock that nobody sets.
    """

    def __init__(self, folder: Path, settle: float) -> None:
        self._folder = folder
        self._settle = settle
        self._seen: dict[Path, tuple[_State, float]] = {}
        self._named: set[Path] = set()

    def settled(self) -> list[Path]:
        """List the files that have arrived, in order of their names."""
        if not self._folder.is_dir():
            msg = f"The drop folder {self._folder} is not there (any more). Mount or make it, and start again."
            raise EdgeError(msg)
        now = time.monotonic()
        seen: dict[Path, tuple[_State, float]] = {}
        for path in self._files():
            state = state_of(path)
            if state is not None:
                before = self._seen.get(path)
                seen[path] = before if before is not None and before[0] == state else (state, now)
            elif path not in self._named and (kind := irregular(path)) is not None:
                self._named.add(path)
                logger.warning("there is %s in the drop folder: it is not opened, and stays there.", kind)
        self._seen = seen
        return sorted(path for path, (_, since) in seen.items() if now - since >= self._settle)

    def _files(self) -> Iterator[Path]:
        for parent, folders, names in os.walk(self._folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(parent) / name
                if not name.startswith(".") and path.suffix.lower() not in _UNFINISHED:
                    yield path


def state_of(path: Path) -> _State | None:
    """A file's state; None if it is gone or no file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns) if path.is_file() else None


@contextmanager
def locked(*folders: Path) -> Iterator[None]:
    """Keep other runtimes off folders, until the end of the block or of this process."""
    with ExitStack() as locks:
        for folder in folders:
            try:
                locks.enter_context(locked_file(folder / LOCK))
            except BlockingIOError as error:
                msg = f"Another runtime works on {folder}. Stop that one, or give this one folders of its own."
                raise EdgeError(msg) from error
        yield


def check_folders(drop: Path, output: Path) -> None:
    """Refuse folders that lie in each other: results would be taken for images."""
    if not drop.is_dir():
        msg = f"There is no drop folder {drop}. Make it, and start again."
        raise EdgeError(msg)
    inner, outer = output.resolve(), drop.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        msg = f"The drop folder {drop} and the output {output} lie in each other: choose an --output beside it."
        raise EdgeError(msg)


class Arrivals:
    """Holds the slices of a series back until no other has come for `settle` seconds."""

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._known: dict[Path, tuple[_State | None, SliceFacts]] = {}
        self._last: dict[str, float] = {}  # when the last file of a series had arrived

    def complete(self, arrived: Sequence[Path]) -> list[Series]:
        """Put together the files that have arrived, of series that seem complete."""
        now = time.monotonic()
        known = {}
        for path in arrived:
            state = state_of(path)
            before = self._known.get(path)
            known[path] = before if before is not None and before[0] == state else (state, slice_facts(path))
            if known[path] is not before:
                self._last[known[path][1].series] = now
        self._known = known
        slices = [facts for _, facts in known.values()]
        self._last = {each.series: self._last[each.series] for each in slices}
        return group_slices(
            each for each in slices if not each.has_others or now - self._last[each.series] >= self._settle
        )


class Watcher:
    """Takes series from a drop folder: scored files to ``processed/``, unreadable ones to ``failed/``.

    Every step can be the last: files leave the drop folder only when their rows, or the reasons, and the row of their
    series are in the journal, and a file whose content is in the journal is not scored again.
    """

    def __init__(self, output: Path, journal: Journal, scorer: SeriesScorer) -> None:
        self._output = output
        self._journal = journal
        self._scorer = scorer
        self._closed: set[tuple[Path, _State]] = set()
        for name in (PROCESSED, FAILED):
            (output / name).mkdir(parents=True, exist_ok=True)

    def take(self, series: Series) -> None:
        """Process the files of a series that are in the drop folder."""
        states: dict[Path, _State] = {}
        digests: dict[Path, str] = {}
        twins: list[Path] = []
        for path in (*series.files, *series.copies):
            state, digest = state_of(path), self._digest(path)
            if state is None or not digest:
                continue
            if self._journal.has_scored(digest):
                logger.info("%s: scored before, not again.", image_name(digest))
                self._move(path, PROCESSED, digest)
            elif digest in digests.values():
                twins.append(path)
            else:
                states[path], digests[path] = state, digest
        if not digests:
            return
        files, copies = ([path for path in paths if path in digests] for paths in (series.files, series.copies))
        (done,) = self._scorer([replace(series, files=files, copies=copies)])
        for result in done.files:
            name = image_name(digests[result.path])
            if state_of(result.path) != states[result.path] or result.image != name:
                logger.info("%s: changed while it was read; it is read again.", name)
                return
        self._journal.add([entry_of(result, digests[result.path]) for result in done.files], done.rows)
        for result in done.files:
            self._put_away(result, digests[result.path])
        for path in twins:
            self._move(path, PROCESSED, sha256(path))

    def _digest(self, path: Path) -> str:
        """SHA-256 of a file; empty for one that is gone, or cannot be opened and stays."""
        state = state_of(path)
        if state is None or (path, state) in self._closed:
            return ""
        try:
            return sha256(path)
        except FileNotFoundError:
            return ""
        except OSError as error:
            # Without its content there is no name for it: it stays, and is tried again when it changes.
            self._closed.add((path, state))
            logger.warning("a file in the drop folder cannot be opened (%s): it stays there.", error.strerror)
            return ""

    def _put_away(self, result: FileResult, digest: str) -> None:
        """Move a file that is in the journal."""
        name = image_name(digest)
        if not result.reason:
            self._move(result.path, PROCESSED, digest)
            logger.info("%s: %s.", name, counted(len(result.rows), "image"))
            return
        target = self._move(result.path, FAILED, digest)
        write_atomically(target.with_name(f"{target.name}.reason.txt"), f"{result.reason}\n".encode())
        if result.no_image:
            logger.info("%s: %s, not scored.", name, result.no_image)

    def _move(self, path: Path, folder: str, digest: str) -> Path:
        """Move a file under a name made of its content: its own may say who it is of."""
        suffixes = "".join(path.suffixes[-2:]) if path.name.lower().endswith(".nii.gz") else path.suffix
        suffix = suffixes if suffixes[1:].replace(".", "").isalnum() and len(suffixes) < 10 else ""
        target = self._output / folder / f"{image_name(digest)}{suffix}"
        if target.exists() and sha256(target) == digest:
            # A copy of what was kept before; or a kill came between copying to another disk and removing.
            path.unlink()
            return target
        try:
            path.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # On another file system: the copy is whole and on the disk before the original goes.
            with path.open("rb") as source, written_atomically(target) as copy:
                shutil.copyfileobj(source, copy)
            path.unlink()
        return target


def entry_of(result: FileResult, digest: str) -> Entry:
    """What the journal keeps of a file with this SHA-256."""
    return Entry(digest, [result.failure] if result.reason else result.rows, result.reason)


def watch(drop: Path, watcher: Watcher, *, settle: float, interval: float, stop: Stop, retention: Retention) -> None:
    """Process what arrives until it is to stop, looking at the folder every `interval` seconds."""
    folder, arrivals = DropFolder(drop, settle), Arrivals(settle)
    while not stop.requested:
        retention.sweep()
        for series in arrivals.complete(folder.settled()):
            if stop.requested:
                return
            watcher.take(series)
        time.sleep(interval)
