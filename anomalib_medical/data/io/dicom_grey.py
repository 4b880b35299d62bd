"""From stored DICOM values to [0, 1], by pydicom's functions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi, apply_windowing

from .dicom_header import first_number
from .errors import ImageReadError
from .windows import Window

_RESCALE_TAGS = ("RescaleIntercept", "RescaleSlope")
_WINDOW_TAGS = ("VOILUTFunction", "WindowCenter", "WindowWidth")
_PALETTE_COLOURS = ("Red", "Green", "Blue")
_PALETTE_TAGS = tuple(
    f"{kind}{colour}PaletteColorLookupTable{part}"
    for colour in _PALETTE_COLOURS
    for kind, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
)
GREY_TAGS = [
    *_RESCALE_TAGS,
    *_WINDOW_TAGS,
    *_PALETTE_TAGS,
    "BitsAllocated",
    "BitsStored",
    "DoubleFloatPixelPaddingRangeLimit",
    "DoubleFloatPixelPaddingValue",
    "FloatPixelPaddingRangeLimit",
    "FloatPixelPaddingValue",
    "ModalityLUTSequence",
    "PerFrameFunctionalGroupsSequence",
    "PhotometricInterpretation",
    "PixelPaddingRangeLimit",
    "PixelPaddingValue",
    "PixelRepresentation",
    "SharedFunctionalGroupsSequence",
    "VOILUTSequence",
]
_COLOURS = frozenset({"PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})


def use_functional_groups(header: Dataset, index: int) -> None:
    """Put rescale and window of an enhanced file's frame where a plain file has them."""
    for name, item in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", index)):
        items = header.get(name)
        if not items:
            continue
        group = items[item]
        for sequence, keywords in (
            ("PixelValueTransformationSequence", _RESCALE_TAGS),
            ("FrameVOILUTSequence", _WINDOW_TAGS),
        ):
            for values in group.get(sequence, ()):
                for keyword in keywords:
                    if keyword in values:
                        header[keyword] = values[keyword]


def to_colour(path: Path, stored: NDArray[Any], header: Dataset) -> NDArray[np.float32]:
    """Return RGB in [0, 1] of shape (H, W, 3), from colours or from a palette's indices."""
    if header.PhotometricInterpretation not in _COLOURS:
        raise ImageReadError.of(
            path,
            found="a DICOM file in a colour space that is none of the supported",
            expected=f"one of {', '.join(sorted(_COLOURS))}",
            remedy="Convert the file to RGB.",
        )
    bits = header.BitsStored
    if stored.ndim == 2:
        entries, first, bits = header.RedPaletteColorLookupTableDescriptor
        if not header.original_encoding[1]:
            _swap_palette(header)
        # pydicom's indices have the type of the colours, which need not hold those beyond the table.
        stored = np.clip(stored.astype(np.int64), first, first + (entries or 2**16) - 1)
        stored = apply_color_lut(stored, header)[..., :3]
    scaled = stored.astype(np.float32) / np.float32(2**bits - 1)
    return np.asarray(np.minimum(scaled, np.float32(1)))


def _swap_palette(header: Dataset) -> None:
    """Turn a big-endian file's tables round, which pydicom reads as little-endian; segmented ones it turns itself."""
    for colour in _PALETTE_COLOURS:
        keyword = f"{colour}PaletteColorLookupTableData"
        if keyword in header:
            header[keyword].value = np.frombuffer(header[keyword].value, ">u2").astype("<u2").tobytes()


def to_grey(path: Path, stored: NDArray[Any], header: Dataset, window: Window | None) -> NDArray[np.float32]:
    """Return grey values in [0, 1] of shape (H, W)."""
    low, high = stored.min(), stored.max()
    if stored.dtype.kind == "f" or int(high) - int(low) >= stored.size:
        return _map_values(path, stored, header, window)
    # Each value that occurs is mapped once, which is faster than mapping each pixel.
    offsets = stored.astype(np.intp) - int(low)
    present = np.flatnonzero(np.bincount(offsets.ravel()))
    table = np.zeros(int(high) - int(low) + 1, dtype=np.float32)
    table[present] = _map_values(path, (present + int(low)).astype(stored.dtype), header, window)
    return np.asarray(table[offsets])


def _map_values(path: Path, stored: NDArray[Any], header: Dataset, window: Window | None) -> NDArray[np.float32]:
    padding = _padding(stored, header)
    values = _rescale(path, stored, header)
    counted = values if padding is None else values[~padding]
    if not counted.size:
        return np.zeros(values.shape, dtype=np.float32)
    low, high = float(counted.min()), float(counted.max())
    if not math.isfinite(high - low):
        raise ImageReadError.of(
            path,
            found="a DICOM file with values that are NaN, infinite or too large to calculate with",
            expected="finite values",
            remedy="Replace them, for instance by the padding value, and save again.",
        )
    grey = _window_values(values, header, window)
    if grey is None:
        grey = _stretch(values, *(_stored_range(header) or (low, high)))
    if header.PhotometricInterpretation == "MONOCHROME1":
        grey = 1 - grey
    if padding is not None:
        grey = np.where(padding, 0, grey)
    return np.clip(grey, 0, 1).astype(np.float32)


def _padding(stored: NDArray[Any], header: Dataset) -> NDArray[np.bool_] | None:
    """Return where the values stand for nothing, None if the file names no such value."""
    prefix = {"f4": "Float", "f8": "DoubleFloat"}.get(stored.dtype.str[1:], "")
    value = first_number(header, f"{prefix}PixelPaddingValue")
    if value is None or not math.isfinite(value):
        return None
    limit = first_number(header, f"{prefix}PixelPaddingRangeLimit")
    ends = [value, value if limit is None or not math.isfinite(limit) else limit]
    if not prefix:
        # Files may state a signed value as unsigned and the reverse: its bits are those of the pixels.
        ends = [int(np.array(int(end)).astype(stored.dtype)) for end in ends]
    mask = (stored >= min(ends)) & (stored <= max(ends))
    return mask if mask.any() else None


def _rescale(path: Path, stored: NDArray[Any], header: Dataset) -> NDArray[Any]:
    """Apply the modality LUT, or slope and intercept, where the file has them."""
    if header.get("ModalityLUTSequence"):
        _widen(header.ModalityLUTSequence[0])
        # Wide enough for pydicom's indices into the table.
        return np.asarray(apply_modality_lut(stored.astype(np.int64), header))
    slope, intercept = first_number(header, "RescaleSlope"), first_number(header, "RescaleIntercept")
    if slope is None and intercept is None:
        return stored
    slope, intercept = 1 if slope is None else slope, 0 if intercept is None else intercept
    if not (math.isfinite(slope) and math.isfinite(intercept) and slope):
        raise ImageReadError.of(
            path,
            found=f"a DICOM file with rescale slope {slope:g} and intercept {intercept:g}",
            expected="two finite numbers, the slope not being 0",
            remedy="Correct them, or export the file again.",
        )
    header.RescaleSlope, header.RescaleIntercept = slope, intercept
    return np.asarray(apply_modality_lut(stored, header))


def _widen(item: Dataset) -> int:
    """Let pydicom read a table's entries as 16 bits, as they are stored; return the bits that they use."""
    entries, first, bits = item.LUTDescriptor
    if not 1 <= bits <= 16:
        msg = "A table whose entries have no 1 to 16 bits."
        raise ValueError(msg)
    item["LUTDescriptor"].value = [entries, first, 16]
    return int(bits)


def _window_values(values: NDArray[Any], header: Dataset, window: Window | None) -> NDArray[np.float64] | None:
    """Apply the user's window, or else the file's; None where there is neither."""
    if window is not None:
        return _linear(values, window.center, window.width)
    if header.get("VOILUTSequence") and "LUTData" in header.VOILUTSequence[0]:
        return _voi_lut(values, header)
    center, width = first_number(header, "WindowCenter"), first_number(header, "WindowWidth")
    if center is None or width is None or not (math.isfinite(center) and math.isfinite(width) and width > 0):
        return None
    return _linear(values, center, width, header.get("VOILUTFunction"))


def _voi_lut(values: NDArray[Any], header: Dataset) -> NDArray[np.float64]:
    item = header.VOILUTSequence[0]
    bits = _widen(item)
    entries, first, _ = item.LUTDescriptor
    # Whole numbers within the table, since pydicom's indices into it have 16 bits.
    indices = np.clip(np.rint(values), first, first + (entries or 2**16) - 1).astype(np.int64)
    return apply_voi(indices, header) / np.float64(2**bits - 1)


def _linear(values: NDArray[Any], center: float, width: float, function: str | None = None) -> NDArray[np.float64]:
    """Apply a window; as pydicom maps it to the range of the stored values, that of one bit makes it [0, 1]."""
    module = Dataset()
    module.PhotometricInterpretation = "MONOCHROME2"
    module.BitsStored, module.PixelRepresentation = 1, 0
    module.WindowCenter, module.WindowWidth = center, width
    if function not in {"LINEAR_EXACT", "SIGMOID"}:
        function = "LINEAR" if width >= 1 else "LINEAR_EXACT"
    module.VOILUTFunction = function
    return np.asarray(apply_windowing(values, module))


def _stored_range(header: Dataset) -> tuple[float, float] | None:
    """Return what the smallest and largest value of up to 8 bits are rescaled to; None for more bits."""
    bits = header.get("BitsStored") or 64
    if bits > 8 or header.get("ModalityLUTSequence"):
        return None
    ends = [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if header.PixelRepresentation == 1 else [0, 2**bits - 1]
    rescaled = apply_modality_lut(np.array(ends), header)
    return float(rescaled.min()), float(rescaled.max())


def _stretch(values: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    if not low < high:
        return np.zeros(values.shape)
    return (values.astype(np.float64) - low) / (high - low)
