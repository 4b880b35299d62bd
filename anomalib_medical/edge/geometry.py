"""Where a map lies on its image: pre-processing may cut a part out of it, or pad it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Kind = Literal["resize", "resize_shorter", "resize_longer", "center_crop", "pad", "square_pad"]
KINDS: tuple[str, ...] = get_args(Kind)
# Top, left, bottom, right, as shares of the image's height and width.
Box = tuple[float, float, float, float]
_Map = TypeVar("_Map", NDArray[np.uint8], NDArray[np.float32])
# Lines over what was not seen, one light and one dark: they stand out from any image and from any map's colours.
_SPACING, _LIGHT, _DARK = 8, 200, 60


@dataclass(frozen=True)
class Step:
    """A step of the pre-processing that moves or scales pixels, as torchvision does it."""

    kind: Kind
    # resize and center_crop: height and width; resize_shorter: of the shorter side, and at most of the longer one if
    # there is a second number; resize_longer: of the longer side; pad: left, top, right and bottom.
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Placement:
    """Where a map lies on its image."""

    box: Box = (0.0, 0.0, 1.0, 1.0)  # what the map covers; beyond 0 and 1 where it covers padding
    seen: Box = (0.0, 0.0, 1.0, 1.0)  # what of the image went into the network

    @property
    def is_whole(self) -> bool:
        """Whether the map covers the image and nothing else."""
        return self == WHOLE

    def mask(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Which pixels of an image of this height and width were seen."""
        top, left, bottom, right = self.seen
        rows, columns = ((np.arange(length) + 0.5) / length for length in size)
        return ((rows > top) & (rows < bottom))[:, None] & ((columns > left) & (columns < right))


WHOLE = Placement()


def place(steps: Sequence[Step], size: tuple[int, int]) -> Placement:
    """Follow an image of this height and width through the steps of the pre-processing."""
    (rows, columns), (height, width) = _follow(steps, size), size
    return Placement(
        box=(rows.start / height, columns.start / width, rows.end / height, columns.end / width),
        seen=(rows.first / height, columns.first / width, rows.last / height, columns.last / width),
    )


def size_after(steps: Sequence[Step], size: tuple[int, int]) -> tuple[int, int]:
    """Height and width that an image of this height and width has after the steps."""
    rows, columns = _follow(steps, size)
    return rows.length, columns.length


def put_back(values: _Map, placed: Placement, size: tuple[int, int], resampling: Image.Resampling) -> _Map:
    """Bring a map ``(h, w)`` to its place on an image of this height and width; 0 where nothing was seen."""
    if placed.is_whole:
        return np.array(Image.fromarray(values).resize(size[::-1], resampling))
    top, left, bottom, right = placed.box
    rows, row_padding, (first_row, last_row) = _span(top, bottom, size[0], values.shape[0])
    columns, column_padding, (first_column, last_column) = _span(left, right, size[1], values.shape[1])
    result = np.zeros(size, values.dtype)
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return result
    # Edge pixels of the image may reach beyond the map by less than their own size.
    padded = Image.fromarray(np.pad(values, (row_padding, column_padding), mode="edge"))
    box = (first_column, first_row, last_column, last_row)
    part = padded.resize((columns.stop - columns.start, rows.stop - rows.start), resampling, box=box)
    result[rows, columns] = np.asarray(part)
    result[~placed.mask(size)] = 0
    return result


def hatch(picture: Image.Image, placed: Placement) -> None:
    """Draw lines over what of a picture's image was not seen."""
    if placed.is_whole:
        return
    unseen = ~placed.mask((picture.height, picture.width))
    if not unseen.any():
        return
    rows, columns = np.ogrid[: picture.height, : picture.width]
    phase = (rows + columns) % _SPACING
    for offset, level in ((0, _LIGHT), (1, _DARK)):
        colour = (level,) * len(picture.getbands())
        picture.paste(colour, mask=Image.fromarray(unseen & (phase == offset)))


@dataclass
class _Axis:
    """Rows or columns on their way: how many there are, and which of the image's (fractions, too) they came from."""

    length: int
    start: float
    end: float
    first: float
    last: float

    def cut(self, start: int, length: int) -> None:
        pixel = (self.end - self.start) / self.length
        self.start += start * pixel
        self.end = self.start + length * pixel
        self.length = length
        self.first = max(self.first, self.start)
        self.last = min(self.last, self.end)


def _follow(steps: Sequence[Step], size: tuple[int, int]) -> tuple[_Axis, _Axis]:
    axes = [_Axis(length, 0.0, float(length), 0.0, float(length)) for length in size]
    for step in steps:
        lengths = (axes[0].length, axes[1].length)
        if step.kind.startswith("resize"):
            for axis, length in zip(axes, _resized(step, lengths), strict=True):
                axis.length = length
        else:
            for axis, (start, length) in zip(axes, _window(step, lengths), strict=True):
                axis.cut(start, length)
    return axes[0], axes[1]


def _span(low: float, high: float, length: int, cells: int) -> tuple[slice, tuple[int, int], tuple[float, float]]:
    """Rows or columns of the image that a map reaches, the map's padding, and what of the padded map lies on them."""
    start, stop = max(0, math.floor(low * length)), min(length, math.ceil(high * length))
    first, last = ((edge / length - low) * cells / (high - low) for edge in (start, stop))
    before, after = max(0, math.ceil(-first)), max(0, math.ceil(last - cells))
    # Rounding must not leave the padded map.
    source = max(0.0, first + before), min(float(cells + before + after), last + before)
    return slice(start, stop), (before, after), source


def _resized(step: Step, lengths: tuple[int, int]) -> tuple[int, int]:
    """Height and width after resizing, rounded as torchvision does."""
    if step.kind == "resize":
        return step.sizes[0], step.sizes[1]
    short, long = min(lengths), max(lengths)
    if step.kind == "resize_longer":
        new_short, new_long = int(step.sizes[0] * short / long), step.sizes[0]
    else:
        new_short, new_long = step.sizes[0], int(step.sizes[0] * long / short)
        if len(step.sizes) > 1 and new_long > step.sizes[1]:
            new_short, new_long = int(step.sizes[1] * new_short / new_long), step.sizes[1]
    return (new_long, new_short) if lengths[1] <= lengths[0] else (new_short, new_long)


def _window(step: Step, lengths: tuple[int, int]) -> list[tuple[int, int]]:
    """First row and column of what is cut out, negative for padding, and how many there are."""
    if step.kind == "center_crop":
        # Halves are rounded to even, and a smaller image is padded, as torchvision does.
        return [
            (-((wanted - length) // 2) if wanted > length else round((length - wanted) / 2), wanted)
            for wanted, length in zip(step.sizes, lengths, strict=True)
        ]
    if step.kind == "pad":
        left, top, right, bottom = step.sizes
        return [(-top, lengths[0] + top + bottom), (-left, lengths[1] + left + right)]
    side = max(lengths)
    return [(-((side - length) // 2), side) for length in lengths]
