"""DICOM files: what is one, and its elements up to the pixels, read to their end or refused.

No value of a header gets into warnings, logs or error messages.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast

from pydicom.datadict import dictionary_has_tag
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from .errors import COPY_AGAIN, DECODING_ERRORS, Errors, ImageReadError, quiet
from .signatures import head_of

_PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_UNDEFINED = 0xFFFFFFFF

# What pydicom and its decoders raise on broken content.
_ERRORS: Errors = (*DECODING_ERRORS, AssertionError, AttributeError, BytesLengthException, InvalidDicomError)
# pydicom's loggers quote values of the header; logging sends what they take straight to the root's handlers.
_LOGGERS = ("pydicom", "pydicom.pixels.decoders.base", "pydicom.pixels.utils")

# The first elements of a data set without preamble: its identifying group, or the file meta group before it.
_FIRST_GROUPS = (0x0002, 0x0008)
_ELEMENTS_TO_BE_SURE = 3
_VRS = frozenset(vr.value.encode() for vr in VR if len(vr.value) == 2)
_LONG_VRS = frozenset(vr.value.encode() for vr in EXPLICIT_VR_LENGTH_32)


@dataclass(frozen=True)
class PixelElement:
    """The element that holds the pixels."""

    keyword: str
    vr: str | None  # None in implicit VR
    length: int | None  # in bytes, None where it is undefined: the pixels are compressed
    start: int  # of its value in the stream


@dataclass(frozen=True)
class DicomFile:
    """A header that was read to its end."""

    header: Dataset  # the elements asked for; `file_meta` always holds a transfer syntax, else a likely one
    stream: BinaryIO  # the file, inflated where it is deflated
    size: int  # the stream's length in bytes
    pixels: PixelElement | None  # None if there are none


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

    def is_whole(self, header: Dataset, wanted: Collection[int]) -> bool:
        """Tell whether the header was read to its end, and without losing what it holds."""
        if not set(wanted).intersection(self.tags) <= set(header.keys()):
            return False
        if self.pixels is not None:
            return True
        return bool(self.tags) and self._stream.tell() == self._size and self._end in {None, self._size}


def damaged(path: Path) -> ImageReadError:
    """Return the error for what pydicom cannot read: its own message may quote values of the header."""
    found = f"a DICOM file whose header or pixel data is damaged or cut off ({path.stat().st_size} bytes)"
    return ImageReadError.of(path, found, "a complete DICOM image", COPY_AGAIN)


@contextmanager
def sanitised(path: Path) -> Generator[None, None, None]:
    """Silence pydicom, and turn what it raises into an error that quotes nothing of the header."""
    try:
        with quiet(*_LOGGERS):
            yield
    except (ImageReadError, FileNotFoundError, PermissionError):
        raise
    except _ERRORS:
        raise damaged(path) from None


def looks_like_dicom(head: bytes) -> bool:
    """Tell from a file's first bytes whether it is DICOM, with preamble or, as older software wrote it, without.

    Without preamble, the bytes must parse as known elements in ascending order, three at least.
    """
    if head[128:132] == b"DICM":
        return True
    if len(head) < 8:
        return False
    order = next((o for o in "<>" if struct.unpack_from(f"{o}H", head)[0] in _FIRST_GROUPS), None)
    return order is not None and _leading_elements(head, order) >= _ELEMENTS_TO_BE_SURE


def is_dicom_file(path: Path) -> bool:
    """Tell from its content whether a file is DICOM."""
    return looks_like_dicom(head_of(path))


def _leading_elements(head: bytes, order: str) -> int:
    """Count the plausible elements at the start; 0 if something there is none."""
    offset, count, last = 0, 0, 0
    while offset + 12 <= len(head):
        group, element = struct.unpack_from(f"{order}HH", head, offset)
        if count and head.startswith(b"\x02\x00") and group != 0x0002:
            return count  # behind the file meta group, the encoding may be another
        tag, vr = group << 16 | element, head[offset + 4 : offset + 6]
        if tag <= last or (group % 2 == 0 and element != 0 and not dictionary_has_tag(tag)):
            return 0
        last, count = tag, count + 1
        if vr in _LONG_VRS:
            length, start = struct.unpack_from(f"{order}L", head, offset + 8)[0], 12
        elif vr in _VRS:
            length, start = struct.unpack_from(f"{order}H", head, offset + 6)[0], 8
        elif order == ">":  # big-endian is always written with VRs
            return 0
        else:
            length, start = struct.unpack_from(f"{order}L", head, offset + 4)[0], 8
        offset += start + length  # an undefined length, 0xFFFFFFFF, ends the loop as well
    return count


@lru_cache
def _tags(*keywords: str) -> tuple[BaseTag, ...]:
    return tuple(map(Tag, keywords))


def read_header(path: Path, file: BinaryIO, keywords: list[str]) -> DicomFile:
    """Read some elements of a header, SOPClassUID always."""
    start = read_partial(file, stop_when=lambda *_: True, force=True)  # behind the file meta group
    stream = file
    if start.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        stream = cast("BinaryIO", start.buffer)  # pydicom has inflated it
    position = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(position)
    walk, wanted = _Walk(stream, size), _tags("SOPClassUID", *keywords)
    implicit, little_endian = map(bool, start.original_encoding)
    header = read_dataset(stream, implicit, little_endian, stop_when=walk, specific_tags=list(wanted))
    if not walk.is_whole(header, wanted):
        raise damaged(path)
    header.file_meta = start.file_meta
    if not header.file_meta.get("TransferSyntaxUID"):
        implicit, little_endian = map(bool, header.original_encoding)  # as found
        explicit = ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return DicomFile(header, stream, size, walk.pixels)
