"""Pictures of what the model found."""

from __future__ import annotations

import struct
import zlib

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
    """Encode an RGB picture without loss: no larger than Pillow's, in a tenth of the time."""
    rows = np.asarray(image).reshape(image.height, -1)
    # Each row as its difference from the one above (PNG, filter type 2), which zlib-ng at its quickest packs best.
    content = bytearray(rows.shape[0] * (1 + rows.shape[1]))
    filtered = np.frombuffer(content, np.uint8).reshape(len(rows), -1)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">2I5B", image.width, image.height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", imagecodecs.zlibng_encode(content, level=1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))
        for name, data in chunks
    )
