"""DICOM's lookup tables: modality LUT, VOI LUT and palette (PS3.3, C.11.1.1, C.11.2.1.1 and C.7.6.3.1.5)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from .dicom_module import element_error


@dataclass(frozen=True)
class Table:
    """A lookup table."""

    entries: NDArray[np.uint16]
    first: int  # the input that the first entry stands for
    bits: int  # of an entry, 8 to 16 by DICOM

    def __call__(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """Look values up, rounded to whole numbers; those before and behind the table become its ends."""
        return self.entries[self._places(values)]

    def scaled(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Look values up, from 0 to the largest value that an entry can hold as [0, 1]."""
        return np.asarray((self.entries / (2**self.bits - 1)).astype(np.float32)[self._places(values)])

    def _places(self, values: NDArray[Any]) -> NDArray[np.intp]:
        whole = np.rint(values) if values.dtype.kind == "f" else values
        return np.clip(whole.astype(np.intp) - self.first, 0, len(self.entries) - 1)


def read_table(path: Path, item: Dataset, descriptor: str, data: str, *, signed: bool) -> Table:
    """Read a table from the elements of these two keywords.

    The descriptor is the number of entries (0 is 65536), the first input and the bits of an entry. The first input is a
    signed number if inputs may be, whatever its VR is, and where the file, not pydicom's guess, has written it as SS.
    """
    for keyword in (descriptor, data):
        if item.get(keyword) in (None, "", b""):
            raise element_error(path, keyword, "without", "a lookup table")
    numbers = item[descriptor].value
    if isinstance(numbers, bytes):  # written as UN
        numbers = np.frombuffer(numbers, _byte_order(item) + "u2").tolist()
    if len(numbers) != 3 or not 1 <= int(numbers[2]) <= 16:
        raise element_error(path, descriptor, "with an unusable", "a number of entries, a first input and 8 to 16 bits")
    count, first, bits = (int(number) % 2**16 for number in numbers)
    if first >= 2**15 and (signed or (item[descriptor].VR == "SS" and not item.original_encoding[0])):
        first -= 2**16
    count = count or 2**16
    content = _content(item, data)
    if data.startswith("Segmented"):
        entries = _expand(content, bits)[:count]
    elif len(content) == 2 * count:
        entries = np.frombuffer(content, "<u2")
    elif len(content) in {count, count + 1} and bits <= 8:
        entries = np.frombuffer(content, np.uint8)[:count].astype(np.uint16)
    else:
        entries = np.zeros(0, np.uint16)
    if len(entries) != count or int(entries.max()) >= 2**bits:
        expected = f"{count} entries of {bits} bits, as the descriptor says"
        raise element_error(path, data, "with another table than its descriptor says in its", expected)
    return Table(entries, first, bits)


def _byte_order(item: Dataset) -> str:
    return ">" if item.original_encoding[1] is False else "<"


def _content(item: Dataset, keyword: str) -> bytes:
    """Return a table's bytes in little-endian order, in which entries of 8 bits follow each other."""
    element = item[keyword]
    if not isinstance(element.value, bytes):  # US or SS
        return (np.atleast_1d(np.asarray(element.value, np.int64)) % 2**16).astype("<u2").tobytes()
    content: bytes = element.value
    if _byte_order(item) == ">" and element.VR != "OB" and len(content) % 2 == 0:
        content = np.frombuffer(content, ">u2").astype("<u2").tobytes()
    return content


def _expand(content: bytes, bits: int) -> NDArray[np.uint16]:
    """Expand a segmented palette (PS3.3, C.7.9.2)."""
    size = 1 if bits <= 8 else 2
    words = np.frombuffer(content, f"<u{size}").tolist()

    def segments(place: int, most: int | None) -> None:
        while place + 1 < len(words) and (most is None or most > 0):
            kind, length = words[place : place + 2]
            place += 2
            if kind == 0:
                entries.extend(words[place : place + length])
                place += length
            elif kind == 1:
                entries.extend(np.rint(np.linspace(entries[-1], words[place], length + 1)[1:]).astype(int).tolist())
                place += 1
            elif kind == 2 and most is None:
                offset = sum(word << 8 * size * step for step, word in enumerate(words[place : place + 4 // size]))
                segments(offset // size, length)
                place += 4 // size
            else:
                msg = "A segment of an unknown kind, or one that points to others where it may not."
                raise ValueError(msg)
            most = None if most is None else most - 1

    entries: list[int] = []
    segments(0, None)
    return np.asarray(entries, np.uint16)
