"""The dataset that all our datasets share: anomalib's, reading through `anomalib_medical.data.io`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataset, ImageBatch, ImageItem
from anomalib.data.utils import LabelName
from torchvision.tv_tensors import Image, Mask

from anomalib_medical.data.io import ImageReadError, read_image, read_mask


class MedicalDataset(AnomalibDataset):
    """A table of images, read at their full bit depth.

    Beside anomalib's columns, ``samples`` has ``patient_id`` (str). An abnormal image without a mask has
    ``mask_path == ""``; its item has no ``gt_mask``.
    """

    def __getitem__(self, index: int) -> ImageItem:
        """Read one image, with its mask where there is one.

        Args:
            index: Row of ``samples``.

        Returns:
            Item with image (3, H, W) and, for segmentation, mask (H, W).

        Raises:
            ImageReadError: If a file cannot be read, or mask and image differ in size.
        """
        row = self.samples.iloc[index]
        image = Image(read_image(row.image_path))
        mask = self._read_mask(row.image_path, row.mask_path, image) if row.label_index == LabelName.ABNORMAL else None
        if row.label_index == LabelName.NORMAL and self.task == TaskType.SEGMENTATION:
            mask = Mask(torch.zeros(image.shape[-2:], dtype=torch.uint8))

        if self.augmentations and mask is not None:
            image, mask = self.augmentations(image, mask)
        elif self.augmentations:
            image = self.augmentations(image)

        return ImageItem(
            image=image,
            gt_mask=mask,
            gt_label=torch.tensor(int(row.label_index)),
            image_path=row.image_path,
            mask_path=row.mask_path,
        )

    @staticmethod
    def _read_mask(image_path: str, mask_path: str, image: torch.Tensor) -> Mask | None:
        if not mask_path:
            return None
        mask = Mask(read_mask(mask_path))
        if mask.shape != image.shape[-2:]:
            raise mask_size_error(image_path, (image.shape[-2], image.shape[-1]), mask_path, (*mask.shape,))
        return mask

    def subsample(self, indices: Sequence[int], inplace: bool = False) -> Self:
        """Keep the given rows (anomalib's own, with the type it returns)."""
        return cast("Self", super().subsample(indices, inplace))

    @property
    def has_mask(self) -> list[bool]:
        """Whether each item comes with a mask (normal images come with an empty one)."""
        if self.task == TaskType.CLASSIFICATION:
            return [False] * len(self)
        normal = self.samples.label_index == LabelName.NORMAL
        return [bool(value) for value in normal | (self.samples.mask_path != "")]

    @property
    def collate_fn(self) -> Callable[[list[Any]], ImageBatch]:
        """Collate, without masks where one is missing."""
        return collate


def collate(items: list[ImageItem]) -> ImageBatch:
    """Make a batch; where one item has no mask, the batch has none (anomalib's own collation would crash).

    Our datamodules keep items with and without masks in different batches, so that no mask is lost this way.
    """
    if any(item.gt_mask is None for item in items):
        for item in items:
            item.gt_mask = None
    batch = cast("ImageBatch", ImageBatch.collate(items))
    # Items turn "" into None, and collation None into "None" or drops the paths, depending on the first item.
    batch.mask_path = [item.mask_path or "" for item in items]
    return batch


def mask_size_error(
    image_path: str,
    image_size: tuple[int, ...],
    mask_path: str,
    mask_size: tuple[int, ...],
) -> ImageReadError:
    """Build the error for a mask that does not lie over its image; sizes are (height, width)."""
    msg = (
        f"The mask {mask_path} has {mask_size[0]}x{mask_size[1]} pixels (height x width), its image {image_path} has "
        f"{image_size[0]}x{image_size[1]}. Masks are not stretched, since they might lie elsewhere then: save the mask "
        "at its image's size, or remove it."
    )
    return ImageReadError(msg)
