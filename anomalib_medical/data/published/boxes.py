"""Bounding boxes of findings, which become masks."""

from __future__ import annotations

import json
from collections.abc import Sequence

from anomalib_medical.io import image_size

Box = tuple[float, float, float, float]


def place_boxes(boxes: Sequence[Box], image_path: str, drawn_on: tuple[float, float] | None = None) -> str:
    """Write boxes as the column ``boxes`` has them, in pixels of the image at hand.

    Args:
        boxes: (left, top, width, height) of each.
        image_path: The image.
        drawn_on: (height, width) of the image that the boxes were drawn on, if this one was resized since; None for
            this one.

    Returns:
        JSON; ``""`` if there are none.

    Raises:
        ImageReadError: If the image's header cannot be read.
    """
    if not boxes:
        return ""
    y, x = 1.0, 1.0
    if drawn_on is not None:
        height, width = image_size(image_path)
        y, x = height / drawn_on[0], width / drawn_on[1]
    return json.dumps([[left * x, top * y, width * x, height * y] for left, top, width, height in boxes])
