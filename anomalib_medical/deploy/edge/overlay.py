"""Pictures of what the model found."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .predictor import Prediction

# Colours of the map from 0 to 1: blue, cyan, yellow, red.
_STOPS = (0.0, 0.35, 0.65, 1.0)
_COLOURS = ((0, 0, 160), (0, 200, 255), (255, 230, 0), (220, 0, 0))
_STRENGTH = 0.6
# Longest side: a 4000x5000 image as PNG would take longer than all the rest.
_LONGEST = 1024
_TEXT_SHARE = 28


def draw_overlay(pixels: NDArray[np.float32], prediction: Prediction) -> Image.Image:
    """Draw a heatmap, the outline of the mask and the score on an image.

    The stronger the map, the less of the image is seen through it. A map without a threshold, which has no scale of its
    own, is stretched from its smallest to its largest value: such pictures cannot be compared.

    Args:
        pixels: The image ``(3, H, W)`` in [0, 1].
        prediction: What the model says of it.

    Returns:
        An RGB picture in the image's proportions, its longest side 1024 pixels at most.
    """
    image = Image.fromarray(np.ascontiguousarray(np.rint(pixels.transpose(1, 2, 0) * 255).astype(np.uint8)))
    image.thumbnail((_LONGEST, _LONGEST))
    if prediction.anomaly_map is not None:
        heat = resize_map(_in_range(prediction.anomaly_map, calibrated=prediction.mask is not None), image.size)
        colours = np.stack([np.interp(heat, _STOPS, channel) for channel in zip(*_COLOURS, strict=True)], axis=-1)
        share = _STRENGTH * heat[..., None]
        blended = (1 - share) * np.asarray(image, np.float32) + share * colours
        if prediction.mask is not None:
            blended[_outline(resize_mask(prediction.mask, image.size))] = 255
        image = Image.fromarray(np.rint(blended).astype(np.uint8))
    _write_score(image, prediction)
    return image


def resize_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Bring a mask to the (width, height) of an image, pixel by pixel as the training's masks."""
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)).astype(bool)


def resize_map(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Bring a map to the (width, height) of an image."""
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))


def png(image: Image.Image) -> bytes:
    """Encode a picture; quickly rather than small."""
    content = io.BytesIO()
    image.save(content, "PNG", compress_level=1)
    return content.getvalue()


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
    label = {None: "no threshold", False: "normal", True: "abnormal"}[prediction.abnormal]
    text = f"{value}, {label}"
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(max(10, min(image.size) // _TEXT_SHARE))
    draw.rectangle(draw.textbbox((2, 2), text, font=font), fill=(0, 0, 0))
    draw.text((2, 2), text, fill=(255, 255, 255), font=font)
