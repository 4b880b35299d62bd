"""How long results are kept."""

from __future__ import annotations

import argparse
import logging
import re
import time
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from pathlib import Path

from ..io import counted

logger = logging.getLogger("edge")

# Folders of results, in the folder of results. The tables, the journal and the verdicts are kept.
RESULTS = ("dicom", "failed", "heatmaps", "processed", "volumes")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
_HOUR, _DAY = 3600.0, 86400.0


def period(text: str) -> timedelta:
    """Read ``12h``, ``30d`` or ``8w``."""
    match = re.fullmatch(r"(\d{1,5})([hdw])", text.strip().lower())
    if match is None or not int(match[1]):
        msg = f"got {text!r}, expected a number of hours, days or weeks, such as 12h, 30d or 8w"
        raise argparse.ArgumentTypeError(msg)
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


class Retention:
    """Removes files that have lain in folders for longer than a period; looks every hour.

    A file lies there since it was written or moved there. Where the clock was set by more than an hour, nothing is
    removed for a day: somebody, or the network's time, may set it right.

    Args:
        folders: The folders, and all below them.
        keep: The period; None keeps all.
        spared: Names the files that are still needed, whatever their age.
        clock: Seconds since 1970.
        steady: Seconds on a clock that nobody sets.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        keep: timedelta | None,
        spared: Callable[[], Collection[Path]] = tuple,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folders, self._keep, self._spared = folders, keep, spared
        self._clock, self._steady = clock, steady
        self._next = steady()
        self._offset = clock() - steady()

    def sweep(self) -> int:
        """Remove what is too old, if it is time to look; returns the number of files."""
        if self._keep is None or self._steady() < self._next:
            return 0
        self._next = self._steady() + _HOUR
        offset = self._clock() - self._steady()
        if abs(offset - self._offset) > _HOUR:
            self._offset, self._next = offset, self._steady() + _DAY
            logger.warning("The clock was set by more than an hour: no old results are removed for a day.")
            return 0
        spared, oldest, removed = set(self._spared()), self._clock() - self._keep.total_seconds(), 0
        for folder in self._folders:
            # Files before the folders that they are in.
            for path in sorted(folder.rglob("*"), reverse=True):
                removed += path not in spared and _removed(path, oldest)
        if removed:
            logger.info("Removed %s older than %s.", counted(removed, "result"), self._keep)
        return removed


def _removed(path: Path, oldest: float) -> bool:
    """Remove a file from before this time, or an empty folder; says whether it was a file."""
    try:
        # Of the inode: moving a file changes it, and whoever sent the file does not set it.
        if path.lstat().st_ctime >= oldest:
            return False
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
            return False
        path.unlink()
    except OSError:  # a folder that is not empty, or gone meanwhile
        return False
    return True
