"""From stored DICOM values to [0, 1]."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_windowing

from .dicom_module import PixelModule, first_number
from .dicom_tables import Table, read_table
from .errors import ImageReadError
from .options import Window

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
    "DoubleFloatPixelPaddingRangeLimit",
    "DoubleFloatPixelPaddingValue",
    "FloatPixelPaddingRangeLimit",
    "FloatPixelPaddingValue",
    "Modality",
    "ModalityLUTSequence",
    "PerFrameFunctionalGroupsSequence",
    "PixelPaddingRangeLimit",
    "PixelPaddingValue",
    "SharedFunctionalGroupsSequence",
    "VOILUTSequence",
]


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


def to_colour(path: Path, stored: NDArray[Any], header: Dataset, module: PixelModule) -> NDArray[np.float32]:
    """Return RGB in [0, 1] of shape (H, W, 3), from colours or from a palette's indices."""
    if stored.ndim == 3:
        return np.asarray(stored.astype(np.float32) / np.float32(2**module.stored - 1))
    colours = np.empty((*stored.shape, 3), dtype=np.float32)
    for plane, colour in enumerate(_PALETTE_COLOURS):
        name = f"{colour}PaletteColorLookupTable"
        data = next((data for data in (f"{name}Data", f"Segmented{name}Data") if data in header), f"{name}Data")
        table = read_table(path, header, f"{name}Descriptor", data, signed=module.signed)
        colours[..., plane] = table.scaled(stored)
    return colours


def to_grey(
    path: Path, stored: NDArray[Any], header: Dataset, module: PixelModule, window: Window | None
) -> NDArray[np.float32]:
    """Return grey values in [0, 1] of shape (H, W)."""
    low, high = stored.min(), stored.max()
    if stored.dtype.kind == "f" or int(high) - int(low) >= stored.size:
        return _map_values(path, stored, header, module, window)
    # Each value that occurs is mapped once, which is faster than mapping each pixel.
    offsets = stored.astype(np.intp) - int(low)
    present = np.flatnonzero(np.bincount(offsets.ravel()))
    table = np.zeros(int(high) - int(low) + 1, dtype=np.float32)
    table[present] = _map_values(path, (present + int(low)).astype(stored.dtype), header, module, window)
    return np.asarray(table.take(offsets))


def _map_values(
    path: Path, stored: NDArray[Any], header: Dataset, module: PixelModule, window: Window | None
) -> NDArray[np.float32]:
    padding = _padding(stored, header, module)
    values = _rescale(path, stored, header, module)
    counted = values if padding is None else values[~padding]
    if not counted.size:
        return np.zeros(values.shape, dtype=np.float32)
    low, high = float(counted.min()), float(counted.max())
    if not math.isfinite(high - low):
        found = "a DICOM file with values that are NaN, infinite or too large to calculate with"
        remedy = "Replace them, for instance by the padding value, and save again."
        raise ImageReadError.of(path, found, "finite values", remedy)
    grey = _window_values(path, values, header, module, window)
    if grey is None:
        grey = _stretch(values, *(_stored_range(header, module) or (low, high)))
    if module.photometric == "MONOCHROME1":
        grey = 1 - grey
    if padding is not None:
        grey = np.where(padding, 0, grey)
    return np.clip(grey, 0, 1).astype(np.float32)


def _padding(stored: NDArray[Any], header: Dataset, module: PixelModule) -> NDArray[np.bool_] | None:
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
        if module.signed:
            low, high = module.value_range
            ends = [end if low <= end <= high else (end - low) % 2**module.stored + low for end in ends]
    mask = (stored >= min(ends)) & (stored <= max(ends))
    return mask if mask.any() else None


def _rescale(path: Path, stored: NDArray[Any], header: Dataset, module: PixelModule) -> NDArray[Any]:
    """Apply the modality LUT, or slope and intercept, where the file has them."""
    if header.get("ModalityLUTSequence"):
        return _table(path, header.ModalityLUTSequence[0], signed=module.signed)(stored)
    slope, intercept = first_number(header, "RescaleSlope"), first_number(header, "RescaleIntercept")
    if slope is None and intercept is None:
        return stored
    slope, intercept = 1 if slope is None else slope, 0 if intercept is None else intercept
    if not (math.isfinite(slope) and math.isfinite(intercept) and slope):
        found = f"a DICOM file with rescale slope {slope:g} and intercept {intercept:g}"
        expected = "two finite numbers, the slope not being 0"
        raise ImageReadError.of(path, found, expected, "Correct them, or export the file again.")
    header.RescaleSlope, header.RescaleIntercept = slope, intercept
    return np.asarray(apply_modality_lut(stored, header))


def _table(path: Path, item: Dataset, *, signed: bool) -> Table:
    return read_table(path, item, "LUTDescriptor", "LUTData", signed=signed)


def _window_values(
    path: Path, values: NDArray[Any], header: Dataset, module: PixelModule, window: Window | None
) -> NDArray[np.floating] | None:
    """Apply the user's window, or else the file's; None where there is neither."""
    if window is not None:
        return _linear(values, window.center, window.width)
    if header.get("VOILUTSequence") and "LUTData" in header.VOILUTSequence[0]:
        return _table(path, header.VOILUTSequence[0], signed=_may_be_negative(header, module)).scaled(values)
    center, width = first_number(header, "WindowCenter"), first_number(header, "WindowWidth")
    if center is None or width is None or not (math.isfinite(center) and math.isfinite(width) and width > 0):
        return None
    return _linear(values, center, width, header.get("VOILUTFunction"))


def _may_be_negative(header: Dataset, module: PixelModule) -> bool:
    """Tell whether a VOI LUT's inputs may be negative by what the header says, not by this frame's (C.11.2.1.1)."""
    if header.get("ModalityLUTSequence"):
        return False
    return header.get("Modality") == "CT" or min(_rescaled_range(header, module)) < 0


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


def _stored_range(header: Dataset, module: PixelModule) -> tuple[float, float] | None:
    """Return what the smallest and largest value of up to 8 bits are rescaled to; None for more bits."""
    if module.stored > 8 or header.get("ModalityLUTSequence"):
        return None
    return _rescaled_range(header, module)


def _rescaled_range(header: Dataset, module: PixelModule) -> tuple[float, float]:
    rescaled = apply_modality_lut(np.array(module.value_range), header)
    return float(rescaled.min()), float(rescaled.max())


def _stretch(values: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    if not low < high:
        return np.zeros(values.shape)
    return (values.astype(np.float64) - low) / (high - low)
