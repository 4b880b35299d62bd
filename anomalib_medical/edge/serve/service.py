"""The loop of `serve`: fetch a series, score one, send the results of one, and again."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydicom import dcmread

from ...io import counted, group_series, kind_of_file, sha256
from ..dicom_objects import FOLDER as OBJECTS
from ..results import image_name
from ..series import SeriesScorer
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
    """Brings series into the spool."""

    def step(self) -> bool:
        """Do a little; returns whether there may be more to do at once."""


class Destination(Protocol):
    """Takes results."""

    def send(self, files: Sequence[Path]) -> None:
        """Send files; see `UnavailableError` and `RefusedError`."""


class Settling:
    """The source of files that are sent to us: a study of which no more comes is whole."""

    def __init__(self, spool: Spool, quiet: float) -> None:
        self._spool, self._quiet = spool, quiet

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
    ) -> None:
        self._output, self._book, self._spool, self._settings = output, book, spool, settings
        self._scorer, self._written = scorer, written
        self._source, self._destination = source, destination
        self._patience = Patience()
        self._troubles: dict[str, Patience] = {}
        self._refusals: dict[int, Patience] = {}
        self._disk = Patience(60.0)
        self.wake = threading.Event()
        for name in (PROCESSED, FAILED_FOLDER):
            (output / name).mkdir(exist_ok=True)

    def run(self) -> None:
        """Work for ever."""
        while True:
            if not self.step():
                self.wake.wait(_IDLE)
                self.wake.clear()

    def step(self) -> bool:
        """Do the next of each; returns whether anything was done."""
        if not self._disk.is_over:
            return False
        try:
            done = [self._source.step(), self._score_next(), self._send_next()]
        except OSError as error:
            # Everything is where it was.
            what = error.strerror or type(error).__name__
            logger.warning("%s; again in %.0f s. Nothing is lost.", what, self._disk.failed())
            return False
        self._disk.succeeded()
        return any(done)

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
        if not new:
            self._clear(folder)
            return
        instances = [file.stem for file in new]
        if why := self._why_not(new):
            self._book.finish(series, PASSED, instances)
            logger.info("series %s: not scored: %s.", name, why)
            self._clear(folder)
            return
        if self._book.attempt(series) >= _ATTEMPTS:
            self._give_up(folder, instances)
            return
        self._written.clear()
        digests = {file: sha256(file) for file in new}
        try:
            done = list(self._scorer(group_series(new)))
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - one series does not stop the others, and a traceback may quote it
            wait = self._troubles.setdefault(series, Patience()).failed()
            logger.warning("series %s: %s in scoring it; again in %.0f s.", name, type(error).__name__, wait)
            return
        self._troubles.pop(series, None)
        results = [file for each in done for file in each.files if not file.no_image]
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
        )
        for each in results:
            if each.reason:
                self._keep(each.path, FAILED_FOLDER, digests[each.path])
        said = ", ".join(f"score {row.raw_score:.6g} {row.label}".rstrip() for row in rows)
        logger.info("series %s: %s scored%s.", name, counted(len(new), "instance"), f": {said}" if said else "")
        self._clear(folder, digests)

    def _why_not(self, files: Sequence[Path]) -> str:
        """Why a series is none to score; empty if it is one."""
        kinds = {kind_of_file(file) for file in files}
        if None not in kinds:
            return ", ".join(sorted(filter(None, kinds)))
        if not self._settings.series:
            return ""
        try:
            header = dcmread(files[0], stop_before_pixels=True, specific_tags=self._settings.keywords)
            values = {keyword: _value(header.get(keyword)) for keyword in self._settings.keywords}
        except (ArithmeticError, AttributeError, EOFError, LookupError, TypeError, ValueError) as error:
            return f"its header cannot be read ({type(error).__name__})"
        return "" if self._settings.fits(values) else "it does not fit the conditions of the settings"

    def _give_up(self, folder: Path, instances: Sequence[str]) -> None:
        target = self._output / FAILED_FOLDER / folder.name
        shutil.copytree(folder, target, dirs_exist_ok=True)
        self._book.finish(folder.name, FAILED, instances)
        logger.error(
            "series %s: scoring it came to no end %d times; it is given up, and its files are in %s/.",
            *(folder.name[:16], _ATTEMPTS, FAILED_FOLDER),
        )
        self._clear(folder)

    def _keep(self, file: Path, where: str, digest: str) -> None:
        file.replace(self._output / where / f"{image_name(digest)}.dcm")

    def _clear(self, folder: Path, digests: dict[Path, str] | None = None) -> None:
        """Take a series off the queue; of what was scored, keep the originals if they are wanted."""
        for file in folder.iterdir():
            if digests and file in digests and self._settings.keep_originals:
                self._keep(file, PROCESSED, digests[file])
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
            logger.warning("%s; results are sent again in %.0f s. Nothing is lost.", error, self._patience.failed())
            return False
        except RefusedError as error:
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
        logger.info("series %s: results stored, %s.", name, counted(len(files), "object"))
        return True


def _value(value: object) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, str) or not hasattr(value, "__iter__") else "\\".join(map(str, value))
