"""What the page of `review` shows: an original's values, to be windowed there, and parts of heatmaps."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..io import ImageAddress, holds_volume, read_pixels, three_planes
from .heatmap import picture_size, to_picture

_LONGEST = 2048
_THUMBNAIL = 96
# Wide enough for what scanners store; what it is not wide enough for is read with the second.
_WIDTHS = (2.0**18, 2.0**40)
_WHITE = 2**16 - 1


@dataclass(frozen=True)
class Values:
    """An image as numbers: grey ``(H, W)`` of 16 bits from `low` to `high`, or colours ``(H, W, 3)`` of 8 bits."""

    pixels: NDArray[Any]
    low: float  # in the file's units; of formats without units black is 0 and white 255
    high: float
    center: float  # the window that the model saw
    width: float


def read_values(address: ImageAddress, window: str | tuple[float, float] | None) -> Values:
    """Read an image, whose model sees it through this window; reduced to 2048 pixels at most.

    Raises:
        ImageReadError: If it cannot be read.
    """
    shown = _reduced(read_pixels(address, window))
    if shown.ndim == 3:
        return Values(np.rint(shown * 255).astype(np.uint8), 0.0, 255.0, 127.5, 255.0)
    values = _units(address, shown)
    is_known = values > -math.inf  # padding and what is no number is black
    low, high = (float(values[is_known].min()), float(values[is_known].max())) if is_known.any() else (0.0, 1.0)
    span = high - low if high > low else 1.0
    pixels = np.where(is_known, np.rint((np.where(is_known, values, low) - low) / span * _WHITE), 0).astype("<u2")
    return Values(pixels, low, low + span, *_window(values, shown, (low, low + span)))


def _units(address: ImageAddress, shown: NDArray[np.float32]) -> NDArray[np.float64]:
    """Values in the file's units, -inf where it has none."""

    def through(width: float) -> NDArray[np.float32]:
        # A width of `width` around 0, by the formula of the format.
        window = (0.0, width) if holds_volume(address.path) else (0.5, width + 1)
        return _reduced(read_pixels(address, window))

    for width in _WIDTHS:
        rough = through(width)
        if np.array_equal(rough, shown):
            return np.asarray(shown, np.float64) * 255
        if rough.max() < 1:
            break
    # Once more, as narrow as can be: a float32 has 24 bits.
    largest = float(np.abs(rough[rough > 0] - 0.5).max(initial=0.0)) * width
    width = 2.2 * largest if largest > 0 else 1.0
    fine = through(width)
    return np.where(fine > 0, (fine.astype(np.float64) - 0.5) * width, -np.inf)


def _window(values: NDArray[np.float64], shown: NDArray[np.float32], full: tuple[float, float]) -> tuple[float, float]:
    """Center and width that make of the values what is shown; all values where no line does."""
    inner = (shown > 0.02) & (shown < 0.98) & (values > -np.inf)
    if inner.any() and np.ptp(values[inner]) > 0:
        slope, start = np.polyfit(values[inner], shown[inner].astype(np.float64), 1)
        if slope > 0:
            return float((0.5 - start) / slope), float(1 / slope)
    return (full[0] + full[1]) / 2, full[1] - full[0]


def _reduced(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    step = math.ceil(max(pixels.shape[:2]) / _LONGEST)
    return pixels[::step, ::step]


def heatmap_part(path: Path, size: tuple[int, int], *, legend: bool) -> bytes:
    """The image in a heatmap's file, or the legend below it, given the original's height and width."""
    height, width = picture_size(size)
    with Image.open(path) as picture:
        box = (0, height, picture.width, picture.height) if legend else (0, 0, width, height)
        return _png(picture.crop(box))


def heatmap_layer(path: Path, pixels: NDArray[np.float32]) -> bytes:
    """What a heatmap's file has drawn on its image, which `read_pixels` gives, and nothing where that is bare."""
    plain = to_picture(three_planes(pixels))
    with Image.open(path) as picture:
        drawn = picture.convert("RGB").crop((0, 0, *plain.size))
    differs = (np.asarray(drawn) != np.asarray(plain)).any(axis=-1)
    drawn.putalpha(Image.fromarray(differs.astype(np.uint8) * 255))
    return _png(drawn)


def thumbnail(path: Path, size: tuple[int, int] | None) -> bytes:
    """A small picture of a heatmap, without its legend where the original's height and width are known."""
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    if size is not None:
        height, width = picture_size(size)
        small = small.crop((0, 0, width, height))
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return _png(small)


def thumbnail_of(pixels: NDArray[np.float32]) -> bytes:
    """A small picture of an image as `read_pixels` gives it."""
    small = Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return _png(small)


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
