"""The image of the self-test: smooth noise, so that no patient's image leaves the hospital with a bundle."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

NAME = "self_test/noise.png"
# Neither square nor the size of any model: resizing is tested too.
_SIZE = (180, 264)


def write_self_test_image(folder: Path) -> Path:
    """Write the same image whenever it is called.

    Args:
        folder: The bundle.

    Returns:
        The path.
    """
    noise = gaussian_filter(np.random.default_rng(0).standard_normal(_SIZE), sigma=6)
    pixels = np.clip(128 + 48 * noise / noise.std(), 0, 255).astype(np.uint8)
    path = folder / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path
