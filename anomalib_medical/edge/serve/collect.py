"""What an archive has that is to be scored: found by searching again and again, or told of."""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict

from ...io import counted
from . import RefusedError, UnavailableError
from .book import Book
from .dicomweb import Archive, Found
from .patience import Patience
from .settings import Settings
from .spool import Spool

logger = logging.getLogger("edge")

# No images to score, and what is made of images.
_NO_IMAGES = frozenset(
    {"AU", "DOC", "FID", "KO", "PLAN", "PR", "REG", "RTDOSE", "RTPLAN", "RTSTRUCT", "RWV", "SEG", "SR"}
)
# After so many transfers with the same number of instances, fewer than the archive says it has, they are all there is.
_TRANSFERS = 5


class Collector:
    """Fetches series from an archive into the spool, one a step.

    Args:
        archive: The archive.
        book: Says what was taken before, and which studies were told of.
        spool: Takes the files.
        settings: What is wanted, and when.

    Attributes:
        failures: Counts of failures: of the archive, and of a series' transfer.
    """

    def __init__(self, archive: Archive, book: Book, spool: Spool, settings: Settings) -> None:
        self._archive, self._book, self._spool, self._settings = archive, book, spool, settings
        self.failures: Counter[str] = Counter()
        self._patience = Patience()
        self._next_search = -float("inf")
        # By the names of series: how many instances the archive had, and since when it has not had more.
        self._growing: dict[str, tuple[int | None, float]] = {}
        self._wanted: OrderedDict[str, Found] = OrderedDict()
        # Transfers that came to nothing: how many instances came, and when to try again.
        self._broken: dict[str, tuple[int, Patience]] = {}
        self._told: dict[str, Patience] = {}
        self._was_full = False

    @property
    def trouble(self) -> str:
        """What keeps series from coming."""
        if self._patience.failures:
            return "the archive cannot be searched or fetched from"
        return "there is no room for more series" if self._was_full else ""

    def step(self) -> bool:
        """Fetch a series, or look for some; returns whether anything was done."""
        if not self._patience.is_over or not self._has_room():
            return False
        try:
            if not self._wanted:
                self._look()
            if not self._wanted:
                done = False
            else:
                self._fetch(next(iter(self._wanted.values())))
                done = True
        except UnavailableError as error:
            self.failures["archive"] += 1
            logger.warning("%s; again in %.0f s. Nothing is lost.", error, self._patience.failed())
            return False
        self._patience.succeeded()
        return done

    def _has_room(self) -> bool:
        full = not self._spool.has_room()
        if full != self._was_full:
            self._was_full = full
            logger.warning("There is %s in the output folder.", "no room for more series" if full else "room again")
        return not full

    def _look(self) -> None:
        """Find out what is wanted, and may be fetched now."""
        try:
            for study in self._book.told():
                self._look_up(study)
            if self._settings.dicomweb.poll and time.monotonic() >= self._next_search:
                self._search()
        except RefusedError as error:  # a page to log in, for instance
            raise UnavailableError(str(error)) from error

    def _look_up(self, study: str) -> None:
        patience = self._told.setdefault(study, Patience())
        if not patience.is_over:
            return
        wanted = list(filter(self._wants, self._archive.find(study, self._settings.keywords)))
        self._wanted |= {found.name: found for found in wanted if self._may_try(found)}
        patience.failed()  # until all of it was taken
        if not wanted:
            self._book.forget(study)
            del self._told[study]

    def _search(self) -> None:
        web, now = self._settings.dicomweb, time.monotonic()
        growing = {}
        for found in filter(self._wants, self._archive.find(None, self._settings.keywords)):
            before = self._growing.get(found.name)
            is_same = before is not None and before[0] == found.instances
            growing[found.name] = before if before is not None and is_same else (found.instances, now)
            if now - growing[found.name][1] >= web.quiet and self._may_try(found):
                self._wanted[found.name] = found
        self._growing = growing
        self._next_search = now + web.poll

    def _wants(self, found: Found) -> bool:
        if found.header.get("Modality") in _NO_IMAGES or not self._settings.fits(found.header):
            return False
        taken = self._book.taken(found.name)
        return not taken or (found.instances is not None and found.instances > taken)

    def _may_try(self, found: Found) -> bool:
        return found.name not in self._broken or self._broken[found.name][1].is_over

    def _fetch(self, found: Found) -> None:
        came = -1
        try:
            with self._spool.fetched(found.series) as folder:
                came = self._archive.fetch(found, folder)
                self._check(found, came)
        except RefusedError as error:
            self.failures["transfer"] += 1
            del self._wanted[found.name]
            patience = self._broken[found.name][1] if found.name in self._broken else Patience()
            self._broken[found.name] = (came, patience)
            wait = patience.failed()
            logger.warning("series %s: %s; fetched again in %.0f s at the earliest.", found.name[:16], error, wait)
            return
        # After the queue has it: what is fetched twice is scored once.
        self._book.take(found.name, max(came, found.instances or 0))
        del self._wanted[found.name]
        self._broken.pop(found.name, None)
        logger.info("series %s: fetched, %s.", found.name[:16], counted(came, "instance"))

    def _check(self, found: Found, came: int) -> None:
        """Refuse a series of which something lacks, unless so few came so often that there are no more."""
        before = self._broken.get(found.name)
        is_all = before is not None and before[0] == came and before[1].failures >= _TRANSFERS - 1
        if came == 0 or (came < (found.instances or 0) and not is_all):
            msg = f"{came} of {counted(found.instances or 0, 'instance')} came"
            raise RefusedError(msg)
