"""Pictures of what the model found."""

from __future__ import annotations

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .geometry import Placement, hatch, put_back
from .predictor import Prediction

# Colours of the map from 0 to 1: blue, cyan, yellow, red.
_STOPS = (0.0, 0.35, 0.65, 1.0)
_COLOURS = ((0, 0, 160), (0, 200, 255), (255, 230, 0), (220, 0, 0))
_STRENGTH = 0.6
_LEVELS = np.linspace(0, 1, 256)
_PALETTE = np.rint([np.interp(_LEVELS, _STOPS, channel) for channel in zip(*_COLOURS, strict=True)]).T.astype(np.uint8)
_OPACITIES = np.rint(255 * _STRENGTH * _LEVELS).astype(int).tolist()
# Longest side: a 4000x5000 image as PNG would take longer than all the rest.
_LONGEST = 1024
# Shorter side of a picture that the score and the label fit on.
LEGIBLE = 256
_TEXT_SHARE = 28


def draw_overlay(pixels: NDArray[np.float32], prediction: Prediction, *, legible: bool = False) -> Image.Image:
    """Draw a heatmap, the outline of the mask and the score on an image ``(3, H, W)`` in [0, 1].

    The stronger the map, the less of the image is seen through it. A map without a threshold, which has no scale of its
    own, is stretched from its smallest to its largest value: such pictures cannot be compared. Hatched is what the
    model has not seen. The picture is RGB, in the image's proportions, its longest side 1024 pixels at most; if it has
    to be `legible`, a small one is drawn several times as large, so that the score is not cut off.
    """
    # Tables and Pillow's 8-bit arithmetic: a tenth of the time of the same in floating point.
    image = Image.merge("RGB", [Image.fromarray(np.rint(channel * 255).astype(np.uint8)) for channel in pixels])
    image.thumbnail((_LONGEST, _LONGEST))
    if legible:
        times = max(1, min(-(-LEGIBLE // min(image.size)), _LONGEST // max(image.size)))
        image = image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST)
    if prediction.anomaly_map is not None:
        values = _in_range(prediction.anomaly_map, calibrated=prediction.mask is not None)
        levels = np.rint(255 * values).astype(np.uint8)
        size = (image.height, image.width)
        heat = Image.fromarray(put_back(levels, prediction.placed, size, Image.Resampling.BILINEAR))
        colours = heat.copy()
        colours.putpalette(_PALETTE.tobytes())
        image = Image.composite(colours.convert("RGB"), image, heat.point(_OPACITIES))
        if prediction.mask is not None:
            outline = Image.fromarray(_outline(place_mask(prediction.mask, prediction.placed, size)))
            image.paste((255, 255, 255), mask=outline)
        hatch(image, prediction.placed)
    _write_score(image, prediction)
    return image


def place_mask(mask: NDArray[np.bool_], placed: Placement, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Bring a mask to its place on an image of this height and width, pixel by pixel as the training's masks."""
    return put_back(mask.astype(np.uint8), placed, size, Image.Resampling.NEAREST).astype(bool)


def png(image: Image.Image) -> bytes:
    """Encode a picture: as small as Pillow at its quickest, in a third of the time."""
    # Heatmaps hold few repetitions that are worth being searched for.
    strategy, rows = imagecodecs.PNG.STRATEGY.HUFFMAN_ONLY, imagecodecs.PNG.FILTER.UP
    return bytes(imagecodecs.png_encode(np.asarray(image), level=1, strategy=strategy, filter=rows))


def _in_range(values: NDArray[np.float32], *, calibrated: bool) -> NDArray[np.float32]:
    if calibrated:
        return np.clip(values, 0, 1)
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask's own pixels that have a neighbour outside."""
    padded = np.pad(mask, 1, mode="edge")
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~inside)


def _write_score(image: Image.Image, prediction: Prediction) -> None:
    value = f"raw {prediction.raw_score:.4g}" if prediction.score is None else f"score {prediction.score:.3f}"
    text = f"{value}, {prediction.label or 'no threshold'}"
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(max(10, min(image.size) // _TEXT_SHARE))
    draw.rectangle(draw.textbbox((2, 2), text, font=font), fill=(0, 0, 0))
    draw.text((2, 2), text, fill=(255, 255, 255), font=font)
