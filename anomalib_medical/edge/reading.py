"""From files to pictures, read and decoded as in the model's training, ahead of what is done with them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..io import (
    ImageAddress,
    ImageReadError,
    NoImageError,
    dicom_facts,
    list_pictures,
    read_pixels,
    require_file,
    sha256,
    three_planes,
)
from .manifest import Reading
from .results import image_name

_T = TypeVar("_T")


@dataclass(frozen=True)
class FileStart:
    """A file that is going to be read."""

    path: Path
    image: str = ""  # name made of its content; empty if it cannot be read
    is_dicom: bool = False  # with a preamble
    note: str = ""  # what to know of its scores


@dataclass(frozen=True)
class Picture:
    """A picture of the file that was started last."""

    address: ImageAddress
    pixels: NDArray[np.float32]  # (3, H, W) in [0, 1]
    read_ms: float


@dataclass(frozen=True)
class FileEnd:
    """The file has been read, or could not be."""

    reason: str = ""  # why not
    no_image: str = ""  # the kind of a DICOM object that holds no image to score, such as a report


def read_file(path: Path, reading: Reading) -> Iterator[FileStart | Picture | FileEnd]:
    """Read a file: its start, its pictures, its end; whatever is wrong with it is said there, without its name."""
    started = False
    image = ""
    try:
        require_file(path)
        image = image_name(sha256(path))
        addresses = list_pictures(path, reading.slicing)
        yield _start(path, image, reading.modality)
        started = True
        for address in addresses:
            start = time.perf_counter()
            pixels = three_planes(read_pixels(address, reading.window))
            yield Picture(address, pixels, 1000 * (time.perf_counter() - start))
        yield FileEnd()
    except (ImageReadError, OSError, MemoryError) as error:
        if not started:
            yield FileStart(path, image)
        yield FileEnd(_reason(error), error.kind if isinstance(error, NoImageError) else "")


def _start(path: Path, image: str, trained_on: str | None) -> FileStart:
    with path.open("rb") as file:
        is_dicom = file.read(132).endswith(b"DICM")
    modality = dicom_facts(path).metadata.get("modality") if is_dicom and trained_on else None
    differs = modality is not None and modality != trained_on
    note = f"modality {modality}, the model was trained on {trained_on}" if differs else ""
    return FileStart(path, image, is_dicom, note)


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
