"""From files to pictures: read and decode, ahead of what is done with them."""

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
    Slicing,
    Window,
    dicom_facts,
    list_pictures,
    read_pixels,
    require_file,
    sha256,
    three_planes,
)
from .manifest import Reading

_DIGITS = 16
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
        modality: Its DICOM modality, where it says so and the model's is known.
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
        no_image: The kind of a DICOM object that holds no image to score, such as a report; else empty.
    """

    reason: str = ""
    no_image: str = ""


class FileReader:
    """Reads files as the model's training did.

    Args:
        reading: How.
    """

    def __init__(self, reading: Reading) -> None:
        self._window = Window.of(reading.window)
        self._slicing = Slicing(reading.axis, reading.slice_range)
        self._asks_modality = reading.modality is not None

    def __call__(self, path: Path) -> Iterator[FileStart | Picture | FileEnd]:
        """Read a file: its start, its pictures, its end; whatever is wrong with it is said there."""
        started = False
        image = ""
        try:
            require_file(path)
            image = sha256(path)[:_DIGITS]
            addresses = list_pictures(path, self._slicing)
            yield self._start(path, image)
            started = True
            for address in addresses:
                start = time.perf_counter()
                pixels = read_pixels(address, self._window)
                planes = three_planes(pixels)
                yield Picture(address, planes, 1000 * (time.perf_counter() - start))
            yield FileEnd()
        except (ImageReadError, OSError, MemoryError) as error:
            if not started:
                yield FileStart(path, image)
            yield FileEnd(_reason(error, path, image), error.kind if isinstance(error, NoImageError) else "")

    def _start(self, path: Path, image: str) -> FileStart:
        """Look whether a file is DICOM with a preamble, and, where it matters, of which modality."""
        with path.open("rb") as file:
            is_dicom = file.read(132).endswith(b"DICM")
        modality = dicom_facts(path).metadata.get("modality", "") if is_dicom and self._asks_modality else ""
        return FileStart(path, image, is_dicom, modality)


def _reason(error: Exception, path: Path, image: str) -> str:
    """Say what is wrong with a file without saying its name."""
    if isinstance(error, ImageReadError):
        text = error.reason or str(error)
        return text.replace(str(path), image or "the file").replace("from the data folder", "from the folder")
    if isinstance(error, MemoryError):
        return "not enough memory for this image"
    return f"{error.strerror or type(error).__name__} while reading it" if isinstance(error, OSError) else str(error)


def ahead(items: Iterable[_T]) -> Iterator[_T]:
    """Go through items, each made by a thread while the one before is in use."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(next, iterator, end)
        while (item := future.result()) is not end:
            future = executor.submit(next, iterator, end)
            yield item  # type: ignore[misc]  # not the end
