"""From files to rows: read, score, draw."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import EdgeError
from .dicom_objects import DicomObjects, DicomPicture
from .manifest import Reading
from .overlay import draw_overlay, png
from .predictor import Prediction, Predictor
from .reading import FileResult, Picture, ahead, read_file
from .results import Row, write_atomically

logger = logging.getLogger("edge")

HEATMAPS = "heatmaps"
# Of pictures that were read and are not yet drawn: so many more than are scored at a time, and so many bytes.
_QUEUED = 4
_QUEUED_BYTES = 2**30


@dataclass(frozen=True)
class _Scored:
    """A picture that was scored; its drawing, if one is wanted, may be under way."""

    row: Row
    prediction: Prediction | None  # if it is kept
    drawing: Future[DicomPicture | None] | None


@dataclass
class _Unfinished:
    """A file of which pictures may be under way."""

    result: FileResult
    pictures: list[Future[_Scored]] = field(default_factory=list)
    is_read: bool = False

    @property
    def is_done(self) -> bool:
        """Whether nothing is under way."""
        return self.is_read and all(map(_is_done, self.pictures))


class Processor:
    """Scores files, and writes heatmaps, and captures of DICOM files, to the folder `output`, each if wanted.

    What series are made of, maps of volumes and with `dicom` those of DICOM files, is kept in the results.
    """

    def __init__(
        self, predictor: Predictor, reading: Reading, output: Path, *, heatmaps: bool, dicom: DicomObjects | None
    ) -> None:
        self._predictor = predictor
        self._reading = reading
        self._heatmaps = output / HEATMAPS if heatmaps else None
        self._dicom = dicom
        if self._heatmaps is not None:
            self._heatmaps.mkdir(parents=True, exist_ok=True)

    def __call__(self, files: Iterable[Path]) -> Iterator[FileResult]:
        """Process files: pictures are read by a thread, scored by others, and drawn by one more.

        Results come in the order of the files, each when all that belongs to it is written.
        """
        under_way: deque[_Unfinished] = deque()
        pictures: deque[tuple[Future[_Scored], int]] = deque()
        with ThreadPoolExecutor(1) as writer, ThreadPoolExecutor(self._predictor.workers) as scorers:
            for event in ahead(event for path in files for event in read_file(path, self._reading)):
                match event:
                    case FileResult():
                        under_way.append(_Unfinished(event))
                        if event.note:
                            logger.warning("%s: %s; its score means little.", event.image, event.note)
                    case Picture():
                        future = scorers.submit(self._score, event, under_way[-1].result, writer)
                        under_way[-1].pictures.append(future)
                        pictures.append((future, event.pixels.nbytes))
                        self._wait_for_room(pictures)
                    case None:
                        under_way[-1].is_read = True
                while under_way and under_way[0].is_done:
                    yield self._finish(under_way.popleft())
            while under_way:
                yield self._finish(under_way.popleft())

    def _wait_for_room(self, pictures: deque[tuple[Future[_Scored], int]]) -> None:
        """Pictures that wait to be scored or drawn take memory."""
        while pictures and (
            _is_done(pictures[0][0])
            or len(pictures) > self._predictor.workers + _QUEUED
            or sum(size for _, size in pictures) > _QUEUED_BYTES
        ):
            picture = pictures.popleft()[0]
            wait([picture])
            if picture.exception() is None and (drawing := picture.result().drawing) is not None:
                # A full disk ends it here, not at the end of a file of a thousand frames.
                drawing.result()

    def _score(self, picture: Picture, file: FileResult, writer: ThreadPoolExecutor) -> _Scored:
        start = time.perf_counter()
        prediction = self._predictor(picture.pixels)
        elapsed = 1000 * (time.perf_counter() - start)
        selection = "".join(f"_{name}-{index}" for name, index in picture.address.selection)
        row = Row(
            path=str(picture.address),
            raw_score=prediction.raw_score,
            score=prediction.score,
            label=prediction.label,
            threshold=prediction.threshold,
            image=f"{file.image}{selection}",
            read_ms=round(picture.read_ms, 3),
            score_ms=round(elapsed, 3),
            note=file.note,
        )
        of_volume, of_series = self._heatmaps is not None and file.is_volume, self._dicom is not None and file.is_dicom
        kept = prediction if of_volume or of_series else None
        captures = file.is_dicom and self._dicom is not None and self._dicom.captures
        if self._heatmaps is None and not captures:
            return _Scored(row, kept, None)
        return _Scored(row, kept, writer.submit(self._draw, picture, row, prediction, keep=captures))

    def _draw(self, picture: Picture, row: Row, prediction: Prediction, *, keep: bool) -> DicomPicture | None:
        overlay = draw_overlay(picture.pixels, prediction)
        if self._heatmaps is not None:
            write_atomically(self._heatmaps / f"{row.image}.png", png(overlay))
        return DicomPicture(row.image, overlay, prediction) if keep else None

    def _finish(self, file: _Unfinished) -> FileResult:
        """Wait for the pictures of a file, make its DICOM objects, or take back what was made of a file that failed."""
        result = file.result
        drawn: list[DicomPicture] = []
        for picture in file.pictures:
            try:
                scored = picture.result()
            except EdgeError as error:
                result.reason = result.reason or str(error)
                continue
            result.rows.append(scored.row)
            if scored.prediction is not None:
                result.predictions.append(scored.prediction)
            drawing = None if scored.drawing is None else scored.drawing.result()
            if drawing is not None:
                drawn.append(drawing)
        if result.reason:
            # What failed at a later frame leaves no pictures of the earlier ones.
            for row in result.rows:
                if self._heatmaps is not None:
                    (self._heatmaps / f"{row.image}.png").unlink(missing_ok=True)
            result.rows, result.predictions = [], []
            if not result.no_image:  # those are counted, or said where they are put away
                logger.warning("%s: %s", result.image or "a file", result.reason)
        elif self._dicom is not None and self._dicom.captures and result.is_dicom:
            add_note(result, self._dicom.write_captures(result.path, drawn))
        return result


def add_note(result: FileResult, note: str) -> None:
    """Say something of all pictures of a file, in the log and in their rows; nothing if it is empty."""
    if note:
        logger.warning("%s: %s", result.image, note)
        result.rows = [replace(row, note="; ".join(filter(None, (row.note, note)))) for row in result.rows]


def _is_done(picture: Future[_Scored]) -> bool:
    if not picture.done() or picture.exception() is not None:
        return picture.done()
    drawing = picture.result().drawing
    return drawing is None or drawing.done()
