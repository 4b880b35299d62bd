"""`watch`: score files as they arrive in a folder, each exactly once, whatever happens to this process."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..io import counted, group_series, irregular, sha256
from ..io import locked as locked_file
from . import EdgeError
from .series import SeriesScorer
from .results import Journal, image_name, write_atomically, written_atomically

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


class Watcher:
    """Takes files from a drop folder: scored ones to ``processed/``, unreadable ones to ``failed/``.

    Every step can be the last: a file leaves the drop folder only when its rows, or the reason, are in the journal,
    and a file whose content is in the journal is not scored again.
    """

    def __init__(self, output: Path, journal: Journal, scorer: SeriesScorer) -> None:
        self._output = output
        self._journal = journal
        self._scorer = scorer
        self._closed: set[tuple[Path, _State]] = set()
        for name in (PROCESSED, FAILED):
            (output / name).mkdir(parents=True, exist_ok=True)

    def take(self, path: Path) -> None:
        """Process one file of the drop folder."""
        state = state_of(path)
        if state is None or (path, state) in self._closed:
            return
        try:
            digest = sha256(path)
        except FileNotFoundError:
            return
        except OSError as error:
            # Without its content there is no name for it: it stays, and is tried again when it changes.
            self._closed.add((path, state))
            logger.warning("a file in the drop folder cannot be opened (%s): it stays there.", error.strerror)
            return
        name = image_name(digest)
        if self._journal.has_scored(digest):
            logger.info("%s: scored before, not again.", name)
            self._move(path, PROCESSED, digest)
            return
        (series,) = self._scorer(group_series([path]))
        (result,) = series.files
        if state_of(path) != state or result.image != name:
            logger.info("%s: changed while it was read; it is read again.", name)
            return
        if result.reason:
            self._journal.add(digest, [result.failure], result.reason)
            target = self._move(path, FAILED, digest)
            write_atomically(target.with_name(f"{target.name}.reason.txt"), f"{result.reason}\n".encode())
            if result.no_image:
                logger.info("%s: %s, not scored.", name, result.no_image)
        else:
            self._journal.add(digest, result.rows)
            self._move(path, PROCESSED, digest)
            logger.info("%s: %s.", name, counted(len(result.rows), "image"))

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


def watch(drop: Path, watcher: Watcher, *, settle: float, interval: float) -> None:
    """Process what arrives, for ever, looking at the folder every `interval` seconds."""
    folder = DropFolder(drop, settle)
    while True:
        for path in folder.settled():
            watcher.take(path)
        time.sleep(interval)
