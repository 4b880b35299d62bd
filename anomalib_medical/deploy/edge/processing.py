"""From files to rows: read, score, draw."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .dicom_objects import DicomObjects, DicomPicture
from .errors import EdgeError
from .io import ImageAddress, ImageReadError, NoImageError, Slicing, Window, dicom_facts, list_pictures, read_pixels
from .manifest import Reading, sha256
from .overlay import draw_overlay, png
from .predictor import Prediction, Predictor
from .results import Failure, Row, write_atomically

logger = logging.getLogger("edge")

HEATMAPS = "heatmaps"
_DIGITS = 16
_DRAWINGS_AHEAD = 4
_T = TypeVar("_T")


@dataclass(frozen=True)
class Picture:
    """A picture that was read.

    Attributes:
        address: Where it is.
        pixels: ``(3, H, W)`` in [0, 1].
        read_ms: How long that took.
    """

    address: ImageAddress
    pixels: NDArray[np.float32]
    read_ms: float


@dataclass(frozen=True)
class FileStart:
    """A file that is going to be read.

    Attributes:
        path: The file.
        image: Name made of its content; empty if it cannot be read.
        is_dicom: Whether it is DICOM.
        modality: Its DICOM modality, where it says so.
    """

    path: Path
    image: str = ""
    is_dicom: bool = False
    modality: str = ""


@dataclass(frozen=True)
class FileEnd:
    """A file that has been read, or could not be.

    Attributes:
        reason: Why not.
        holds_no_image: Whether it is a DICOM file of another kind, such as a report.
    """

    reason: str = ""
    holds_no_image: bool = False


@dataclass
class FileResult:
    """What became of a file.

    Attributes:
        path: The file.
        image: Name made of its content.
        rows: One a picture; none if the file failed.
        reason: Why it failed; empty if it did not.
        holds_no_image: Whether it failed because it is a DICOM file of another kind, such as a report.
    """

    path: Path
    image: str = ""
    rows: list[Row] = field(default_factory=list)
    reason: str = ""
    holds_no_image: bool = False

    @property
    def failure(self) -> Failure:
        """The row of the table of failures."""
        return Failure(str(self.path), self.image, self.reason)


@dataclass
class _Unfinished:
    """A file of which drawings may be under way."""

    result: FileResult
    is_dicom: bool = False
    drawings: list[Future[DicomPicture | None]] = field(default_factory=list)


class Processor:
    """Scores files, and writes heatmaps and DICOM objects.

    Args:
        predictor: The model.
        reading: How files are read.
        output: Folder that heatmaps and DICOM objects go to.
        heatmaps: Whether to draw.
        dicom: Makes DICOM objects; None for none.
    """

    def __init__(
        self, predictor: Predictor, reading: Reading, output: Path, *, heatmaps: bool, dicom: DicomObjects | None
    ) -> None:
        self._predictor = predictor
        self._modality = reading.modality
        self._window = Window.of(reading.window)
        self._slicing = Slicing(reading.axis, reading.slice_range)
        self._heatmaps = output / HEATMAPS if heatmaps else None
        self._dicom = dicom
        if self._heatmaps is not None:
            self._heatmaps.mkdir(parents=True, exist_ok=True)

    def __call__(self, files: Iterable[Path]) -> Iterator[FileResult]:
        """Process files one after another: the next picture is read and the last one drawn while one is scored.

        A result comes when all that belongs to it is written.

        Raises:
            OSError: If results cannot be written.
        """
        current, note = _Unfinished(FileResult(Path())), ""
        waiting: deque[_Unfinished] = deque()
        with ThreadPoolExecutor(1) as writer:
            for event in _ahead(event for path in files for event in self._read(path)):
                match event:
                    case FileStart():
                        current = _Unfinished(FileResult(event.path, event.image), event.is_dicom)
                        note = self._check_modality(event)
                    case Picture() if not current.result.reason:
                        try:
                            row, prediction = self._score(event, current.result.image, note)
                        except EdgeError as error:
                            current.result.reason = str(error)
                            continue
                        current.result.rows.append(row)
                        wants_dicom = self._dicom is not None and current.is_dicom
                        if self._heatmaps is not None or wants_dicom:
                            drawing = writer.submit(self._draw, event, row, prediction, keep=wants_dicom)
                            current.drawings.append(drawing)
                            # Pictures that wait to be drawn take memory.
                            if len(current.drawings) > _DRAWINGS_AHEAD:
                                current.drawings[-1 - _DRAWINGS_AHEAD].result()
                    case FileEnd():
                        current.result.reason = current.result.reason or event.reason
                        current.result.holds_no_image = event.holds_no_image
                        waiting.append(current)
                        while len(waiting) > 1:
                            yield self._finish(waiting.popleft())
            while waiting:
                yield self._finish(waiting.popleft())

    def _draw(self, picture: Picture, row: Row, prediction: Prediction, *, keep: bool) -> DicomPicture | None:
        overlay = draw_overlay(picture.pixels, prediction)
        if self._heatmaps is not None:
            write_atomically(self._heatmaps / f"{row.image}.png", png(overlay))
        return DicomPicture(row.image, overlay, prediction) if keep else None

    def _finish(self, unfinished: _Unfinished) -> FileResult:
        """Wait for the drawings of a file, make its DICOM objects, or take back what was made of a file that failed."""
        result = unfinished.result
        drawn = [drawing.result() for drawing in unfinished.drawings]
        if result.reason:
            # What failed at a later frame leaves no pictures of the earlier ones.
            for row in result.rows:
                if self._heatmaps is not None:
                    (self._heatmaps / f"{row.image}.png").unlink(missing_ok=True)
            result.rows = []
            logger.warning("%s: %s", result.image or "a file", result.reason)
        elif self._dicom is not None and unfinished.is_dicom:
            pictures = [picture for picture in drawn if picture is not None]
            failure = self._dicom.write(result.path, pictures)
            if failure:
                logger.warning("%s: %s", result.image, failure)
                result.rows = [replace(row, note="; ".join(filter(None, (row.note, failure)))) for row in result.rows]
        return result

    def _read(self, path: Path) -> Iterator[FileStart | Picture | FileEnd]:
        started = False
        image = ""
        try:
            image = sha256(path)[:_DIGITS]
            addresses = list_pictures(path, self._slicing)
            yield FileStart(path, image, *_dicom_facts(path))
            started = True
            for address in addresses:
                start = time.perf_counter()
                pixels = read_pixels(address, self._window)
                planes = np.stack([pixels] * 3) if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
                yield Picture(address, planes, 1000 * (time.perf_counter() - start))
            yield FileEnd()
        except (ImageReadError, OSError, MemoryError) as error:
            if not started:
                yield FileStart(path, image)
            yield FileEnd(_reason(error, path, image), holds_no_image=isinstance(error, NoImageError))

    def _score(self, picture: Picture, image: str, note: str) -> tuple[Row, Prediction]:
        start = time.perf_counter()
        prediction = self._predictor(picture.pixels)
        elapsed = 1000 * (time.perf_counter() - start)
        selection = "".join(f"_{name}-{index}" for name, index in picture.address.selection)
        label = {None: "", False: "normal", True: "abnormal"}[prediction.abnormal]
        row = Row(
            path=str(picture.address),
            raw_score=prediction.raw_score,
            score=prediction.score,
            label=label,
            threshold=prediction.threshold,
            image=f"{image}{selection}",
            read_ms=round(picture.read_ms, 3),
            score_ms=round(elapsed, 3),
            note=note,
        )
        return row, prediction

    def _check_modality(self, file: FileStart) -> str:
        if not (self._modality and file.modality) or file.modality == self._modality:
            return ""
        note = f"modality {file.modality}, the model was trained on {self._modality}"
        logger.warning("%s: %s; its score means little.", file.image, note)
        return note


def _dicom_facts(path: Path) -> tuple[bool, str]:
    """Tell whether a file is DICOM with a preamble, and its modality."""
    with path.open("rb") as file:
        is_dicom = file.read(132).endswith(b"DICM")
    return is_dicom, dicom_facts(path).metadata.get("modality", "") if is_dicom else ""


def _reason(error: Exception, path: Path, image: str) -> str:
    """Say what is wrong with a file without saying its name."""
    if isinstance(error, ImageReadError):
        text = str(error).removeprefix(f"Cannot read the image {path}: ")
        return text.replace(str(path), image or "the file").replace("from the data folder", "from the folder")
    if isinstance(error, MemoryError):
        return "not enough memory for this image"
    return f"{error.strerror or type(error).__name__} while reading it" if isinstance(error, OSError) else str(error)


def _ahead(items: Iterable[_T]) -> Iterator[_T]:
    """Go through items, each made by a thread while the one before is in use."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(next, iterator, end)
        while (item := future.result()) is not end:
            future = executor.submit(next, iterator, end)
            yield item  # type: ignore[misc]  # not the end
