"""The predictions of one part of an archive, which a later run may go on with."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from anomalib_medical.callbacks.predictions_file import STEM, PartialFile
from anomalib_medical.data.archive import ArchiveDataset
from anomalib_medical.data.visualizer import HEATMAPS
from anomalib_medical.edge.results import FAILED, Failure, Table
from anomalib_medical.io import ArchiveError, Progress, begin_part, counted

logger = logging.getLogger(__name__)


@dataclass
class PartOfArchive:
    """What `PredictionsCSV` writes of a part: `predictions_part-2-of-8.csv`, and beside it what could not be read.

    All parts share a folder, and with it the salt of their patients' hashes.
    """

    dataset: ArchiveDataset
    folder: Path
    model: str  # digest of what scores depend on
    resume: bool
    _stack: ExitStack = field(default_factory=ExitStack)
    _done: int = 0  # files, by earlier runs
    _progress: Progress | None = None

    @property
    def final(self) -> Path:
        """The file of predictions, once it is complete."""
        return self.folder / f"{STEM}_{self.dataset.archive.part}.csv"

    @property
    def heatmaps(self) -> Path:
        """The folder of heatmaps."""
        return self.folder / f"{HEATMAPS}_{self.dataset.archive.part}"

    @property
    def failed(self) -> Table:
        """The table of what could not be read."""
        return Table(self.folder, f"{FAILED}_{self.dataset.archive.part}", Failure)

    def open(self) -> PartialFile | None:
        """Begin the part, or go on with it; None if it is complete, and the dataset is then empty.

        Raises:
            ArchiveError: See `begin_part`.
        """
        archive, partial = self.dataset.archive, self.final.with_name(f"{self.final.stem}_partial.csv")
        if self.final.exists() and not self.resume:
            msg = f"{self.final} is there, and complete. Choose another --default_root_dir to score it again."
            raise ArchiveError(msg)
        tables = [] if self.final.exists() else [(partial,), self.failed.files]
        begun = begin_part(archive, self.folder, tables, self.model, resume=self.resume)
        self._done, self.dataset.files = self._stack.enter_context(begun)
        if self.final.exists():
            logger.info("%s is complete: nothing is left to do.", self.final)
            self.dataset.files = ()
            return None
        if self._done:
            logger.info("Going on with %s: %s were done before.", archive.part, counted(self._done, "file"))
        self._progress = Progress(len(archive), self._done)
        return PartialFile(partial, go_on=True)

    def note(self, pictures: int) -> None:
        """Write what could not be read before so many pictures were scored, and say now and then how far it is."""
        unreadable = self.dataset.unreadable
        while unreadable and unreadable[0].pictures <= pictures:
            _, path, reason = unreadable.popleft()
            self.failed.append([Failure(str(path), "", reason)])
        if self._progress and (line := self._progress.line(self._done + self.dataset.read)):
            logger.info("%s", line)

    def close(self) -> None:
        """Let others at the part."""
        self._stack.close()
