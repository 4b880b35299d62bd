"""Pictures of what the model found."""

from __future__ import annotations

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .heatmap import draw_map, to_picture, with_legend
from .predictor import Prediction


def draw_overlay(pixels: NDArray[np.float32], prediction: Prediction) -> Image.Image:
    """Draw a prediction on an image ``(3, H, W)`` in [0, 1]: map and outline as `heatmap` does, and below it the score.

    The picture is RGB; the image is at its upper left, of the size that `heatmap.picture_size` says.
    """
    picture, scale = to_picture(pixels), None
    if prediction.anomaly_map is not None and (scale := prediction.scale) is not None:
        draw_map(picture, prediction.anomaly_map, scale, prediction.placed, prediction.mask)
    value = f"raw {prediction.raw_score:.4g}" if prediction.score is None else f"score {prediction.score:.3f}"
    return with_legend(picture, f"{value}, {prediction.label or 'no threshold'}", scale)


def png(image: Image.Image) -> bytes:
    """Encode a picture: as small as Pillow at its quickest, in a third of the time."""
    # Heatmaps hold few repetitions that are worth being searched for.
    strategy, rows = imagecodecs.PNG.STRATEGY.HUFFMAN_ONLY, imagecodecs.PNG.FILTER.UP
    return bytes(imagecodecs.png_encode(np.asarray(image), level=1, strategy=strategy, filter=rows))
