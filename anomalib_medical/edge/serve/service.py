"""The loop of `serve`: fetch a series, score one, send the results of one, and again."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from pydicom import dcmread

from ...io import counted, group_series, kind_of_file, sha256
from ..dicom_objects import FOLDER as OBJECTS
from ..results import image_name
from ..retention import Retention
from ..series import SeriesScorer
from ..stopping import Stop
from ..watch import FAILED as FAILED_FOLDER
from ..watch import PROCESSED, entry_of
from . import RefusedError, UnavailableError
from .book import DONE, FAILED, PASSED, REFUSED, WAITING, Book, Waiting
from .patience import Patience
from .settings import Settings
from .spool import Spool, name_of

logger = logging.getLogger("edge")

# A series at which this process ended so often is given up: others wait.
_ATTEMPTS = 10
# Results that were refused so often are kept until the next start.
_REFUSALS = 8
_IDLE = 0.5  # seconds between looks when there is nothing to do


class Source(Protocol):
    """Brings series into the spool.

    Attributes:
        failures: Counts by kind, of this process.
    """

    failures: Counter[str]

    @property
    def trouble(self) -> str:
        """What keeps series from coming, if anything does."""

    def step(self) -> bool:
        """Do a little; returns whether there may be more to do at once."""


class Destination(Protocol):
    """Takes results."""

    def send(self, files: Sequence[Path]) -> None:
        """Send files; see `UnavailableError` and `RefusedError`."""


class Settling:
    """The source of files that are sent to us: a study of which no more comes is whole."""

    def __init__(self, spool: Spool, quiet: float) -> None:
        self.failures: Counter[str] = Counter()
        self._spool, self._quiet = spool, quiet

    @property
    def trouble(self) -> str:
        """Say whether nothing more is taken in."""
        return "" if self._spool.has_room() else "there is no room for more series"

    def step(self) -> bool:
        """Queue what is whole."""
        self._spool.settle(self._quiet)
        return False


class Service:
    """Takes series through their states; each of its steps can be the last of this process.

    Args:
        output: Folder of results.
        book: What was done.
        spool: Where series are before they are scored.
        scorer: Scores them.
        written: The list of its `DicomObjects`.
        settings: What is wanted.
        source: Brings series.
        destination: Takes their results; None to keep them.
        retention: How long results are kept.

    Attributes:
        stop: Whether to end; enter it to listen to the signal.
        failures: Counts by kind, of this process.
        beat: Called before each step.
        observe: Called with the seconds that a series took to be scored ("score"), and from when it was whole to when
            its results were stored, or kept if they go nowhere ("store").
        wake: Ends a wait for something to do.
    """

    def __init__(
        self,
        output: Path,
        book: Book,
        spool: Spool,
        scorer: SeriesScorer,
        written: list[Path],
        settings: Settings,
        source: Source,
        destination: Destination | None,
        retention: Retention | None = None,
    ) -> None:
        self._output, self._book, self._spool, self._settings = output, book, spool, settings
        self._scorer, self._written = scorer, written
        self._source, self._destination, self._retention = source, destination, retention
        self.stop = Stop()
        self.failures: Counter[str] = Counter()
        self.beat: Callable[[], None] = lambda: None
        self.observe: Callable[[str, float], None] = lambda *_: None
        self._patience = Patience()
        self._troubles: dict[str, Patience] = {}
        self._refusals: dict[int, Patience] = {}
        self._disk = Patience(60.0)
        self.wake = threading.Event()
        for name in (PROCESSED, FAILED_FOLDER):
            (output / name).mkdir(exist_ok=True)

    def run(self) -> None:
        """Work until it is to stop; what is under way then is finished."""
        while not self.stop.requested:
            self.beat()
            if self._retention is not None:
                self._retention.sweep()
            if not self.step():
                self.wake.wait(_IDLE)
                self.wake.clear()

    def step(self) -> bool:
        """Do the next of each; returns whether anything was done."""
        if not self._disk.is_over:
            return False
        try:
            steps = (self._source.step, self._score_next, self._send_next)
            done = [step() for step in steps if not self.stop.requested]
        except OSError as error:
            # Everything is where it was.
            self.failures["disk"] += 1
            what = error.strerror or type(error).__name__
            logger.warning("%s; again in %.0f s. Nothing is lost.", what, self._disk.failed())
            return False
        self._disk.succeeded()
        return any(done)

    def troubles(self) -> list[str]:
        """Say what keeps it from working now, from any thread."""
        found = [
            "it is about to stop" if self.stop.requested else "",
            "the disk cannot be written to" if self._disk.failures else "",
            self._source.trouble,
            "results cannot be stored" if self._patience.failures else "",
        ]
        return list(filter(None, found))

    def _score_next(self) -> bool:
        # What did not go well waits behind the others.
        ready = [
            each for each in self._spool.queue() if each.name not in self._troubles or self._troubles[each.name].is_over
        ]
        if not ready:
            return False
        attempts = self._book.attempts()
        self._score(min(ready, key=lambda folder: attempts.get(folder.name, 0)))
        return True

    def _score(self, folder: Path) -> None:
        files = sorted(folder.glob("*.dcm"))
        new = [file for file in files if not self._book.has_instance(file.stem)]
        series, name = folder.name, folder.name[:16]
        since, begin = folder.stat().st_mtime, time.monotonic()
        if not new:
            # Scored before; if this process ended then, files are where they were.
            self._clear(folder, {file: sha256(file) for file in files})
            return
        instances = [file.stem for file in new]
        if why := self._why_not(new):
            self._book.finish(series, PASSED, instances, study=_study_of(new[0]), since=since)
            logger.info("series %s: not scored: %s.", name, why)
            self._clear(folder)
            return
        if self._book.attempt(series) >= _ATTEMPTS:
            self._give_up(folder, instances)
            return
        self._written.clear()
        try:
            done = list(self._scorer(group_series(new)))
        except (OSError, KeyboardInterrupt):
            # A full disk, or the end of this process: not the series' fault, which is in the queue as it was.
            self._book.give_back(series)
            raise
        except Exception as error:  # noqa: BLE001 - one series does not stop the others, and a traceback may quote it
            self.failures["scoring"] += 1
            wait = self._troubles.setdefault(series, Patience()).failed()
            logger.warning("series %s: %s in scoring it; again in %.0f s.", name, type(error).__name__, wait)
            return
        self._troubles.pop(series, None)
        results = [file for each in done for file in each.files if not file.no_image]
        digests = {file.path: file.sha256 or sha256(file.path) for each in done for file in each.files}
        rows = [row for each in done for row in each.rows]
        objects = [file.name for file in self._written]
        own = {str(dcmread(file, specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID) for file in self._written}
        self._book.finish(
            series,
            WAITING if objects and self._destination else DONE,
            instances,
            [entry_of(each, digests[each.path]) for each in results],
            rows,
            objects,
            map(name_of, own),
            study=_study_of(new[0]),
            since=since,
        )
        self.observe("score", time.monotonic() - begin)
        if not (objects and self._destination):
            self.observe("store", time.time() - since)
        for each in results:
            if each.reason:
                self.failures["unreadable"] += 1
        said = ", ".join(f"score {row.raw_score:.6g} {row.label}".rstrip() for row in rows)
        logger.info("series %s: %s scored%s.", name, counted(len(new), "instance"), f": {said}" if said else "")
        self._clear(folder, digests)

    def _why_not(self, files: Sequence[Path]) -> str:
        """Why a series is none to score; empty if it is one."""
        kinds: set[str] = set()
        for file in files:
            if (kind := kind_of_file(file)) is None:
                break
            kinds.add(kind)
        else:
            return ", ".join(sorted(kinds))
        if not self._settings.series:
            return ""
        try:
            header = dcmread(files[0], stop_before_pixels=True, specific_tags=self._settings.keywords)
            values = {keyword: _value(header.get(keyword)) for keyword in self._settings.keywords}
        except (ArithmeticError, AttributeError, EOFError, LookupError, TypeError, ValueError) as error:
            return f"its header cannot be read ({type(error).__name__})"
        return "" if self._settings.fits(values) else "it does not fit the conditions of the settings"

    def _give_up(self, folder: Path, instances: Sequence[str]) -> None:
        self.failures["given up"] += 1
        target = self._output / FAILED_FOLDER / folder.name
        shutil.copytree(folder, target, dirs_exist_ok=True)
        self._book.finish(folder.name, FAILED, instances)
        logger.error(
            "series %s: scoring it came to no end %d times; it is given up, and its files are in %s/.",
            *(folder.name[:16], _ATTEMPTS, FAILED_FOLDER),
        )
        self._clear(folder)

    def _clear(self, folder: Path, digests: dict[Path, str] | None = None) -> None:
        """Take a series off the queue; keep what could not be read, and the other originals if they are wanted."""
        for file in folder.iterdir():
            digest = (digests or {}).get(file, "")
            reason = self._book.reason(digest)
            if reason or (reason is not None and self._settings.keep_originals):
                where = FAILED_FOLDER if reason else PROCESSED
                file.replace(self._output / where / f"{image_name(digest)}.dcm")
            else:
                file.unlink()
        folder.rmdir()

    def _send_next(self) -> bool:
        if self._destination is None or not self._patience.is_over:
            return False
        for waiting in self._book.waiting():
            refusals = self._refusals.get(waiting.number)
            if refusals is None or refusals.is_over:
                return self._send(waiting, self._destination)
        return False

    def _send(self, waiting: Waiting, destination: Destination) -> bool:
        name = waiting.series[:16]
        files = [self._output / OBJECTS / each for each in waiting.objects]
        try:
            destination.send([file for file in files if file.exists()])
        except UnavailableError as error:
            self.failures["store"] += 1
            logger.warning("%s; results are sent again in %.0f s. Nothing is lost.", error, self._patience.failed())
            return False
        except RefusedError as error:
            self.failures["refused"] += 1
            self._patience.succeeded()
            refusals = self._refusals.setdefault(waiting.number, Patience())
            wait = refusals.failed()
            if refusals.failures < _REFUSALS:
                logger.warning("series %s: %s; again in %.0f s.", name, error, wait)
            else:
                self._book.set_state(waiting.number, REFUSED)
                message = "series %s: %s; kept in %s/, and tried again at the next start."
                logger.error(message, name, error, OBJECTS)  # noqa: TRY400 - a traceback would quote more
            return True
        self._patience.succeeded()
        # First these: who finds them gone has nothing to send again.
        for file in files:
            file.unlink(missing_ok=True)
        self._book.set_state(waiting.number, DONE)
        self.observe("store", time.time() - waiting.since)
        logger.info("series %s: results stored, %s.", name, counted(len(files), "object"))
        return True


def _study_of(file: Path) -> str:
    """The name of a file's study; empty if it tells none."""
    try:
        return name_of(str(dcmread(file, specific_tags=["StudyInstanceUID"]).StudyInstanceUID))
    except (ArithmeticError, AttributeError, EOFError, LookupError, TypeError, ValueError):
        return ""


def _value(value: object) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, str) or not hasattr(value, "__iter__") else "\\".join(map(str, value))
