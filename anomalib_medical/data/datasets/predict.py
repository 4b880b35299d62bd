"""Images without labels: a folder or a single file, for `predict`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from anomalib.data import ImageBatch, ImageItem
from torch.utils.data import Dataset
from torchvision.tv_tensors import Image

from anomalib_medical.data.io import IMAGE_SUFFIXES, list_images, read_image


class MedicalPredictDataset(Dataset[ImageItem]):
    """Images to predict, read at their full bit depth: anomalib's own dataset turns 16-bit images white.

    Args:
        path: A folder, searched at any depth, or one image.

    Raises:
        FileNotFoundError: If there is no such file or folder, or no image in the folder.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if not path.exists():
            msg = f"There is no file or folder {path} to predict."
            raise FileNotFoundError(msg)
        self.paths = list_images(path) if path.is_dir() else [path]
        if not self.paths:
            kinds = ", ".join(sorted(IMAGE_SUFFIXES))
            msg = f"There is no image to predict in the folder {path}: expected files that end in {kinds}."
            raise FileNotFoundError(msg)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.paths)

    def __getitem__(self, index: int) -> ImageItem:
        """Read one image.

        Args:
            index: Position in ``paths``.

        Returns:
            Item with image (3, H, W).

        Raises:
            ImageReadError: If the file cannot be read.
        """
        path = self.paths[index]
        return ImageItem(image=Image(read_image(path)), image_path=str(path))

    @property
    def collate_fn(self) -> Callable[[list[ImageItem]], ImageBatch]:
        """Collate images of one size."""
        return cast("Callable[[list[ImageItem]], ImageBatch]", ImageBatch.collate)
