"""The image pixel module: how a DICOM file says what its pixels are, element by element."""

from __future__ import annotations

import math
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException

from .dicom_file import DicomFile
from .errors import CORRECT_ELEMENT, ImageReadError

SIZE_TAGS = ["Columns", "NumberOfFrames", "Rows"]
MODULE_TAGS = [
    *SIZE_TAGS,
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PhotometricInterpretation",
    "PixelRepresentation",
    "PlanarConfiguration",
    "SamplesPerPixel",
]
_SAMPLES = {
    **dict.fromkeys(("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"), 1),
    **dict.fromkeys(("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"), 3),
}
# Named by DICOM, and so no secret.
_UNSUPPORTED = frozenset({"ARGB", "CMYK", "HSV", "XYB", "YBR_PARTIAL_420", "YBR_PARTIAL_422"})
_FLOAT_BITS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}


@dataclass(frozen=True)
class PixelModule:
    """What the pixels are; floating-point values have all their bits stored."""

    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    planar: int
    allocated: int
    stored: int
    signed: bool

    @property
    def value_range(self) -> tuple[int, int]:
        """The smallest and the largest value that the stored bits can hold."""
        low = -(2 ** (self.stored - 1)) if self.signed else 0
        return low, low + 2**self.stored - 1


def first_number(data: Dataset, keyword: str) -> float | None:
    """Return an element's first value, None if it is absent or empty, NaN if it is no number."""
    try:
        value = data.get(keyword)
        if isinstance(value, MutableSequence):
            value = value[0] if value else None
        return None if value is None or value == "" else float(value)
    except (ArithmeticError, BytesLengthException, TypeError, ValueError):
        return math.nan


def _named(keyword: str) -> str:
    """Name an element by keyword and tag."""
    tag = tag_for_keyword(keyword) or 0
    return f"{keyword} ({tag >> 16:04x},{tag & 0xFFFF:04x})"


def element_error(path: Path, keyword: str, problem: str, expected: str) -> ImageReadError:
    """Return the error for an element that cannot be used."""
    return ImageReadError.of(path, f"a DICOM file {problem} {_named(keyword)}", expected, CORRECT_ELEMENT)


def count_frames(path: Path, header: Dataset) -> int:
    """Return the number of frames; absent, empty and 0 mean 1, as in every reader."""
    return _number(path, header, "NumberOfFrames", range(2**31), default=1) or 1


def read_module(path: Path, file: DicomFile) -> PixelModule:
    """Read the module. What is absent and can have one value only is taken as that.

    - SamplesPerPixel: as the photometric interpretation says.
    - PlanarConfiguration: 0, which it must be in YBR_FULL_422; of compressed pixels it is not asked.
    - BitsStored: HighBit + 1; without that one, all bits of pixels of 1 or 8 bits.
    - PixelRepresentation: unsigned, which it must be, where the pixels are colours or of one bit; of floating-point
      pixels it is not asked.

    HighBit must be BitsStored - 1 unless all bits are stored: readers differ in what they make of anything else.
    """
    header = file.header
    rows, columns = (_number(path, header, keyword, range(1, 2**16)) for keyword in ("Rows", "Columns"))
    photometric = _photometric(path, header)
    samples = _number(path, header, "SamplesPerPixel", (_SAMPLES[photometric],), default=_SAMPLES[photometric])
    compressed = file.pixels is not None and file.pixels.length is None
    planar = 0
    if samples == 3 and not compressed:
        planes = (0,) if photometric == "YBR_FULL_422" else range(2)
        planar = _number(path, header, "PlanarConfiguration", planes, default=0)
    bits = _FLOAT_BITS.get(file.pixels.keyword if file.pixels else "")
    if bits and not photometric.startswith("MONOCHROME"):
        problem = f"of floating-point values with {photometric} as its"
        raise element_error(path, "PhotometricInterpretation", problem, "MONOCHROME1 or MONOCHROME2")
    if bits:
        allocated = stored = _number(path, header, "BitsAllocated", (bits,), default=bits)
    else:
        allocated = _number(path, header, "BitsAllocated", (1, 8, 16, 32, 64))
        stored = _stored_bits(path, header, allocated)
    signed = 0
    if samples == 3 or allocated == 1:  # readers differ in what a negative colour or bit is
        _number(path, header, "PixelRepresentation", (0,), default=0)
    elif not bits:
        signed = _number(path, header, "PixelRepresentation", range(2))
    return PixelModule(
        rows, columns, count_frames(path, header), samples, photometric, planar, allocated, stored, signed=bool(signed)
    )


def _stored_bits(path: Path, header: Dataset, allocated: int) -> int:
    default = None
    if header.get("BitsStored") in (None, ""):
        high = first_number(header, "HighBit")
        default = allocated if allocated in {1, 8} else None
        if high is not None and high in range(allocated):
            default = int(high) + 1
    stored = _number(path, header, "BitsStored", range(1, allocated + 1), default=default)
    if stored < allocated:
        _number(path, header, "HighBit", (stored - 1,), default=stored - 1)
    return stored


def _photometric(path: Path, header: Dataset) -> str:
    value = header.get("PhotometricInterpretation")
    text = value.strip(" \0") if isinstance(value, str) else ""
    if text in _SAMPLES:
        return text
    expected = f"one of {', '.join(sorted(_SAMPLES))}"
    if value is None or value == "":
        raise element_error(path, "PhotometricInterpretation", "without", expected)
    if text.upper() in _SAMPLES:
        raise element_error(path, "PhotometricInterpretation", "with small letters in its", text.upper())
    name = f" ({text})" if text in _UNSUPPORTED else ""
    problem = f"in a colour space that is none of the supported{name}, by its"
    raise element_error(path, "PhotometricInterpretation", problem, expected)


def _number(path: Path, header: Dataset, keyword: str, allowed: Sequence[int], *, default: int | None = None) -> int:
    """Return an element's value, of several the one that all are."""
    expected = f"{allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) else ", ".join(map(str, allowed))
    try:
        value = header.get(keyword)
        values = value if isinstance(value, MutableSequence) else [value]
        numbers = {float(value) for value in values if value is not None and value != ""}
    except (ArithmeticError, BytesLengthException, TypeError, ValueError):
        numbers = {math.nan}
    if not numbers:
        if default is None:
            raise element_error(path, keyword, "without", expected)
        return default
    number = numbers.pop()
    if numbers or not number.is_integer() or int(number) not in allowed:
        shown = f"{number:g}" if math.isfinite(number) and not numbers else "no single number"
        raise element_error(path, keyword, f"with {shown} as its", expected)
    return int(number)
