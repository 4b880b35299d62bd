"""Small folders of several tasks, as `FewShotTasks` reads them."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import make_folder

LAYOUT = {"train/good": 9, "test/good": 3, "test/lesion": 3}
# Tasks of other sizes; the last one is in colour.
SIZES = {"brain": 64, "lung": 80, "skin": 56}


def make_tasks(root: Path) -> Path:
    """Write three tasks of 9 normal training images, 3 normal and 3 abnormal test images each."""
    for shade, (task, size) in enumerate(SIZES.items()):
        make_folder(root / task, size, LAYOUT)
        for path in (root / task).rglob("*.png"):
            if "ground_truth" not in path.parts:
                pixels = np.asarray(Image.open(path)) // 2 + 40 * shade
                colours = np.stack([pixels, pixels // 2, pixels // 3], axis=-1) if task == "skin" else pixels
                Image.fromarray(colours).save(path)
    return root


def make_normals(folder: Path, count: int, first_seed: int = 100, size: int = 64) -> Path:
    """Write a folder of normal images that are in no task."""
    folder.mkdir(parents=True)
    for index in range(count):
        pixels = np.random.default_rng(first_seed + index).integers(60, 120, (size, size), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"PATIENT_{index}.png")
    return folder
