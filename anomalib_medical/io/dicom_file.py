"""A DICOM file's elements up to its pixels: read to their end, or refused."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from .errors import ImageReadError

_PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class PixelElement:
    """The element that holds the pixels.

    Attributes:
        keyword: Its keyword.
        vr: Its VR, None in implicit VR.
        length: Its length in bytes, None where it is undefined: the pixels are compressed.
        start: Where in the stream its value starts.
    """

    keyword: str
    vr: str | None
    length: int | None
    start: int


@dataclass(frozen=True)
class DicomFile:
    """A header that was read to its end.

    Attributes:
        header: The elements asked for; ``file_meta`` always holds a transfer syntax, a likely one where none is given.
        stream: The file, inflated where it is deflated.
        size: The stream's length in bytes.
        pixels: Where the pixels are, None if there are none.
    """

    header: Dataset
    stream: BinaryIO
    size: int
    pixels: PixelElement | None


class _Walk:
    """Follows pydicom from element to element and stops it at the pixels.

    pydicom takes an element whose VR is none for one in implicit VR: the length that it then reads leads elsewhere, and
    what it finds there, or nothing, passes for the rest of the header.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.pixels: PixelElement | None = None
        self.tags: list[int] = []
        self._stream = stream
        self._size = size
        self._end: int | None = None

    def __call__(self, tag: int, vr: str | None, length: int) -> bool:
        """Take note of the element that pydicom is about to read."""
        start, defined = self._stream.tell(), length != _UNDEFINED
        if tag in _PIXELS:
            self.pixels = PixelElement(_PIXELS[tag], vr, length if defined else None, start)
            return True
        self._end = start + length if defined else None
        # No data set has elements of group 0, but black pixels that are read as elements are such.
        if tag < 0x00010000 or (self._end is not None and self._end > self._size):
            msg = "An element that cannot be here, or that leads beyond the end of the file."
            raise ValueError(msg)
        self.tags.append(tag)
        return False

    def is_whole(self, header: Dataset, wanted: set[int]) -> bool:
        """Tell whether the header was read to its end, and without losing what it holds."""
        if not wanted.intersection(self.tags) <= set(header.keys()):
            return False
        if self.pixels is not None:
            return True
        return bool(self.tags) and self._stream.tell() == self._size and self._end in {None, self._size}


def damaged(path: Path) -> ImageReadError:
    """Return the error for what pydicom cannot read: its own message may quote values of the header."""
    return ImageReadError.of(
        path,
        found=f"a DICOM file whose header or pixel data is damaged or cut off ({path.stat().st_size} bytes)",
        expected="a complete DICOM image",
        remedy="Copy or export the file again, or remove it from the data folder.",
    )


def read_header(path: Path, file: BinaryIO, keywords: list[str]) -> DicomFile:
    """Read some elements of a header, SOPClassUID always."""
    start = read_partial(file, stop_when=lambda *_: True, force=True)  # behind the file meta group
    stream = file
    if start.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        stream = cast("BinaryIO", start.buffer)  # pydicom has inflated it
    position = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(position)
    walk, wanted = _Walk(stream, size), [Tag(keyword) for keyword in ("SOPClassUID", *keywords)]
    implicit, little_endian = map(bool, start.original_encoding)
    header = read_dataset(stream, implicit, little_endian, stop_when=walk, specific_tags=list(wanted))
    if not walk.is_whole(header, set(wanted)):
        raise damaged(path)
    header.file_meta = start.file_meta
    if not header.file_meta.get("TransferSyntaxUID"):
        implicit, little_endian = map(bool, header.original_encoding)  # as found
        explicit = ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return DicomFile(header, stream, size, walk.pixels)
