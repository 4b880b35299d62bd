"""From files to pictures, read and decoded as in the model's training, ahead of what is done with them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..io import (
    ImageAddress,
    ImageReadError,
    NoImageError,
    dicom_facts,
    holds_volume,
    list_pictures,
    read_pixels,
    require_file,
    sha256,
    three_planes,
)
from .manifest import Reading
from .predictor import Prediction
from .results import Failure, Row, image_name

_T = TypeVar("_T")


@dataclass
class FileResult:
    """What becomes of a file."""

    path: Path
    image: str = ""  # name made of its content; empty if it cannot be read
    rows: list[Row] = field(default_factory=list)  # one a picture; none if the file failed
    reason: str = ""  # why it failed; empty if it did not
    no_image: str = ""  # the kind of a DICOM object that holds no image to score, such as a report
    is_dicom: bool = False  # with a preamble
    is_volume: bool = False
    # What the model says of each picture, kept where objects or volumes are made of it.
    predictions: list[Prediction] = field(default_factory=list)
    note: str = ""  # what to know of its scores
    sha256: str = ""  # of its content; empty if it could not be read

    @property
    def failure(self) -> Failure:
        """The row of the table of failures."""
        return Failure(str(self.path), self.image, self.reason)


@dataclass(frozen=True)
class Picture:
    """A picture of a file."""

    address: ImageAddress
    pixels: NDArray[np.float32]  # (3, H, W) in [0, 1]
    read_ms: float


def read_file(path: Path, reading: Reading) -> Iterator[FileResult | Picture | None]:
    """Read a file: what becomes of it, to be filled in, its pictures, and None at its end.

    Whatever is wrong with it is said before the end, without its name.
    """
    result, started = FileResult(path), False
    try:
        require_file(path)
        result.sha256 = sha256(path)
        result.image = image_name(result.sha256)
        addresses = list_pictures(path, reading.slicing)
        _look_at_header(result, reading.modality)
        result.is_volume = not result.is_dicom and holds_volume(path)
        yield result
        started = True
        for address in addresses:
            start = time.perf_counter()
            pixels = three_planes(read_pixels(address, reading.window))
            yield Picture(address, pixels, 1000 * (time.perf_counter() - start))
    except (ImageReadError, OSError, MemoryError) as error:
        if not started:
            yield result
        result.reason = _reason(error)
        result.no_image = error.kind if isinstance(error, NoImageError) else ""
    yield None


def _look_at_header(result: FileResult, trained_on: str | None) -> None:
    with result.path.open("rb") as file:
        result.is_dicom = file.read(132).endswith(b"DICM")
    if result.is_dicom and trained_on:
        modality = dicom_facts(result.path).metadata.get("modality", trained_on)
        if modality != trained_on:
            result.note = f"modality {modality}, the model was trained on {trained_on}"


def _reason(error: ImageReadError | OSError | MemoryError) -> str:
    if isinstance(error, ImageReadError):
        return error.reason or "it cannot be read"
    if isinstance(error, MemoryError):
        return "not enough memory for this image"
    return f"{error.strerror or type(error).__name__} while reading it"


def ahead(items: Iterable[_T]) -> Iterator[_T]:
    """Go through items, each made by a thread while the one before is in use."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(next, iterator, end)
        while (item := future.result()) is not end:
            future = executor.submit(next, iterator, end)
            yield item  # type: ignore[misc]  # not the end
