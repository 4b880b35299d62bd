"""How maps are drawn, in training, in benchmarks and on the box: one rule.

The image stays bare where the map is well below its threshold; colours set in a little below it and grow stronger; what
is above it is outlined; a legend below the image says what the colours mean. The colour map is matplotlib's plasma: its
lightness rises all the way, and none of its colours is grey.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from . import EdgeError
from .geometry import Placement, hatch, put_back
from .manifest import Calibration, Normalization
from .scores import is_normalized

# Plasma at nine places of equal distance, to within 2% of it between them.
_STOPS = (
    (13, 8, 135),
    (76, 2, 161),
    (126, 3, 168),
    (170, 35, 149),
    (204, 71, 120),
    (229, 107, 93),
    (248, 148, 65),
    (253, 195, 40),
    (240, 249, 33),
)
_LEVELS = np.linspace(0, 1, 256)
PALETTE = np.rint(
    [np.interp(_LEVELS, np.linspace(0, 1, len(_STOPS)), channel) for channel in zip(*_STOPS, strict=True)]
).T.astype(np.uint8)
# Colours set in at this share of the way from the bottom of the scale to the threshold,
_NEAR = 0.8
# and let so much of the image through at the threshold, and at the top.
_OPACITIES = (0.35, 0.6)
# Of the longest side: smaller images are enlarged, so that what is written below them can be read; a 4000x5000 image
# as PNG would take longer than all the rest.
_SHORTEST, _LONGEST = 256, 1024
_FONT_SHARE, _SMALLEST_FONT = 40, 11
_INK, _PAPER = (235, 235, 235), (24, 24, 24)
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Scale:
    """Which values of a map have which colours.

    Attributes:
        start: Value below which the image is bare.
        high: Value of the strongest colour, and of all above it.
        threshold: Value above which a map is outlined; None without one.
        words: What the values are, and what is drawn of them.
    """

    start: float
    high: float
    threshold: float | None
    words: str

    @classmethod
    def of(cls, values: NDArray[np.float32], calibration: Calibration, normalization: Normalization) -> Scale:
        """Choose the scale of maps normalised with these facts, such as the map ``(h, w)``.

        All maps of a model have one scale, except where neither a normalisation nor the range on held-out normal images
        is known: then it is the range of the map itself, and the words say so.
        """
        limit = None if calibration.threshold is None else calibration.limit
        if is_normalized(calibration, normalization):
            low, high, words = 0.0, 1.0, "normalised map"
        elif limit is not None and calibration.minimum is not None and calibration.minimum < limit:
            low, high, words = calibration.minimum, 2 * limit - calibration.minimum, "raw map"
        else:
            finite = values[np.isfinite(values)]
            low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
            words = "raw map on a scale of its own"
        if limit is None:
            start = (low + high) / 2
            return cls(start, high, None, f"{words}: bare below {start:.3g}, no threshold")
        start = min(low, limit) + _NEAR * max(0.0, limit - low)
        marks = f"bare below {start:.3g}, outlined above {limit:.3g}"
        return cls(start, max(high, limit), limit, f"{words}: {marks}")

    def levels(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Give the colours' numbers: 0 for what is bare, 1 to 255 from `start` to `high`."""
        if not self.high > self.start:  # a flat map of no scale but its own
            return np.zeros(values.shape, np.uint8)
        shares = (np.nan_to_num(values, nan=self.start) - self.start) / (self.high - self.start)
        return np.asarray(np.ceil(255 * np.clip(shares, 0, 1)).astype(np.uint8))

    def opacities(self) -> NDArray[np.uint8]:
        """Give the opacity of each level, (256,)."""
        span = self.high - self.start
        middle = 0.0 if self.threshold is None or not span > 0 else (self.threshold - self.start) / span
        at, shares = ([0, middle, 1], [0, *_OPACITIES]) if 0 < middle < 1 else ([0, 1], [0, _OPACITIES[1]])
        return np.rint(255 * np.interp(_LEVELS, at, shares)).astype(np.uint8)


def to_picture(pixels: NDArray[np.float32], longest: int = _LONGEST, shortest: int = _SHORTEST) -> Image.Image:
    """Make an RGB picture, of the size of `picture_size`, of an image ``(3, H, W)`` in [0, 1]."""
    # Tables and Pillow's 8-bit arithmetic: a tenth of the time of the same in floating point.
    is_grey = all(np.array_equal(pixels[0], channel) for channel in pixels[1:])
    bands = [Image.fromarray(np.rint(channel * 255).astype(np.uint8)) for channel in pixels[: 1 if is_grey else 3]]
    image = Image.merge("RGB", bands * 3 if is_grey else bands)
    height, width = picture_size((image.height, image.width), longest, shortest)
    return image if image.size == (width, height) else image.resize((width, height), reducing_gap=2.0)


def picture_size(size: tuple[int, int], longest: int = _LONGEST, shortest: int = _SHORTEST) -> tuple[int, int]:
    """Height and width of the picture of an image of this height and width, in its proportions."""
    factor = min(max(1.0, shortest / max(size)), longest / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def draw_map(
    picture: Image.Image, values: NDArray[np.float32], scale: Scale, placed: Placement, mask: Mask | None = None
) -> None:
    """Draw a map ``(h, w)`` on the picture of its image, outline `mask`, ``(h, w)``, and hatch what was not seen."""
    size = (picture.height, picture.width)
    # 8 bits are enough for colours, and resized in a tenth of the time.
    heat = Image.fromarray(put_back(scale.levels(values), placed, size, Image.Resampling.BILINEAR))
    if box := heat.getbbox():
        part = heat.crop(box)
        picture.paste(_coloured(part), box, part.point(_opacities(scale)))
    if mask is not None and mask.any():
        _draw_outline(picture, place_mask(mask, placed, size), max(1, round(max(size) / 512)))
    hatch(picture, placed)


def _draw_outline(picture: Image.Image, mask: Mask, width: int) -> None:
    """Outline a mask of the picture's size, in white inside and in black outside."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return
    left, top = max(0, int(columns[0]) - width), max(0, int(rows[0]) - width)
    inner, outer = _outline(mask[top : rows[-1] + width + 1, left : columns[-1] + width + 1], width)
    for colour, pixels in (((0, 0, 0), outer), ((255, 255, 255), inner)):
        picture.paste(colour, (left, top), Image.fromarray(pixels))


@lru_cache(maxsize=16)
def _opacities(scale: Scale) -> list[int]:
    return list(map(int, scale.opacities()))


def place_mask(mask: Mask, placed: Placement, size: tuple[int, int]) -> Mask:
    """Bring a mask to its place on an image of this height and width, pixel by pixel as the training's masks."""
    return put_back(mask.astype(np.uint8), placed, size, Image.Resampling.NEAREST).astype(bool)


def side_by_side(tiles: Sequence[Image.Image]) -> Image.Image:
    """Put pictures of one height beside each other."""
    whole = Image.new("RGB", (sum(tile.width for tile in tiles), tiles[0].height))
    for number, tile in enumerate(tiles):
        whole.paste(tile, (sum(each.width for each in tiles[:number]), 0))
    return whole


def with_legend(picture: Image.Image, title: str, scale: Scale | None = None) -> Image.Image:
    """Put a picture over a title, the colours with their numbers, and words; none of it is cut.

    What does not fit a line goes on in the next; a narrower picture than the legend needs gets a margin at its right.
    """
    size = max(_SMALLEST_FONT, picture.height // _FONT_SHARE)
    gap = size // 2
    texts = list(filter(None, (title, "" if scale is None else scale.words)))
    words = " ".join(texts).split()
    width = max(picture.width, 12 * size, *(math.ceil(_length(word, size)) + 2 * gap for word in words))
    above = Image.new("RGB", (width, gap), _PAPER) if scale is None else _bar(scale, size, width)
    strips = [above, *(_lines_of_text(text, size, width) for text in texts)]
    whole = Image.new("RGB", (width, picture.height + sum(strip.height for strip in strips)), _PAPER)
    whole.paste(picture, (0, 0))
    top = picture.height
    for strip in strips:
        whole.paste(strip, (0, top))
        top += strip.height
    return whole


# Writing takes longer than all other drawing: what pictures of a series have in common is written once.
@lru_cache(maxsize=16)
def _lines_of_text(text: str, size: int, width: int) -> Image.Image:
    """Write a text on a strip of this width, in as many lines as it needs; the strip is not to be changed."""
    gap = size // 2
    lines = list(_wrapped(text, size, width - 2 * gap))
    strip = Image.new("RGB", (width, len(lines) * (size + gap)), _PAPER)
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        draw.text((gap, number * (size + gap)), line, fill=_INK, font=_font(size))
    return strip


@lru_cache(maxsize=16)
def _bar(scale: Scale, size: int, width: int) -> Image.Image:
    """Draw the colours on a strip, as they look on grey, with the numbers below them; it is not to be changed."""
    gap, font = size // 2, _font(size)
    left, top, right, bottom = gap, gap, width - gap, gap + size
    strip = Image.new("RGB", (width, gap + 3 * size), _PAPER)
    ramp = np.broadcast_to(
        np.rint(255 * np.linspace(0, 1, right - left)).astype(np.uint8), (bottom - top, right - left)
    )
    heat = Image.fromarray(np.ascontiguousarray(ramp))
    strip.paste((128, 128, 128), (left, top, right, bottom))
    strip.paste(_coloured(heat), (left, top), heat.point(_opacities(scale)))
    draw = ImageDraw.Draw(strip)
    span = scale.high - scale.start
    free = float(left)
    numbers = [scale.start, *([] if scale.threshold is None else [scale.threshold]), scale.high]
    last = _length(f"{scale.high:.3g}", size)
    for value in dict.fromkeys(numbers):
        at = left + (right - left - 1) * ((value - scale.start) / span if span > 0 else 0.0)
        text = f"{value:.3g}"
        length = _length(text, size)
        place = min(max(at - length / 2, free), right - length)
        if value != scale.high and place + length > right - last - size / 2:
            place = right - last - size / 2 - length
        if value == scale.threshold:
            draw.line((at, top - 2, at, bottom + 2), fill=(0, 0, 0), width=3)
            draw.line((at, top - 2, at, bottom + 2), fill=(255, 255, 255), width=1)
        draw.text((place, bottom + size / 4), text, fill=_INK, font=font)
        free = place + length + size / 2
    return strip


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        msg = "This Pillow was built without FreeType: install the package from its wheel, pip install pillow."
        raise EdgeError(msg)
    return font


@lru_cache(maxsize=1024)
def _length(text: str, size: int) -> float:
    """The width of a text, in pixels."""
    return _font(size).getlength(text)


def _coloured(levels: Image.Image) -> Image.Image:
    coloured = levels.copy()
    coloured.putpalette(PALETTE.tobytes())
    return coloured.convert("RGB")


def _outline(mask: Mask, width: int) -> tuple[Mask, Mask]:
    """The mask's own pixels at its edge, and those next to them outside: one of both stands out anywhere."""
    inside, around = mask, mask
    for _ in range(width):
        inside, around = ~_grown(~inside), _grown(around)
    return mask & ~inside, around & ~mask


def _grown(mask: Mask) -> Mask:
    """A mask with the pixels above, below and beside it; the picture's own edge adds none."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def _wrapped(text: str, size: int, width: float) -> Iterator[str]:
    """Divide a text into lines of a width that holds each of its words."""
    line = ""
    for word in text.split():
        if line and _length(f"{line} {word}", size) > width:
            yield line
            line = ""
        line = f"{line} {word}".strip()
    yield line
