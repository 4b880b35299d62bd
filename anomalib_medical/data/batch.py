"""anomalib's items and batches with the fields that medicine adds; each is None where the data does not have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from anomalib.data import ImageBatch, ImageItem, NumpyImageBatch, NumpyImageItem
from numpy.typing import NDArray


@dataclass
class NumpyMedicalItem(NumpyImageItem):
    """An image as numpy arrays; the fields are those of `MedicalImageItem`."""

    known_normal: NDArray[np.bool_] | None = None
    support: NDArray[np.float32] | None = None
    support_index: NDArray[np.int64] | None = None
    task: str | None = None
    patient_id: str | None = None
    uncertainty: np.float32 | None = None
    uncertainty_map: NDArray[np.float32] | None = None


@dataclass
class NumpyMedicalBatch(NumpyImageBatch):
    """Images as numpy arrays; the fields are those of `MedicalImageBatch`."""

    item_class: ClassVar[type[NumpyImageItem]] = NumpyMedicalItem

    known_normal: NDArray[np.bool_] | None = None
    support: NDArray[np.float32] | None = None
    support_index: NDArray[np.int64] | None = None
    task: list[str] | None = None
    patient_id: list[str] | None = None
    uncertainty: NDArray[np.float32] | None = None
    uncertainty_map: NDArray[np.float32] | None = None


@dataclass
class MedicalImageItem(ImageItem):
    """One image.

    Attributes:
        known_normal: Scalar bool; False for an image of the unlabeled pool, whose label no code may read in training.
        support: Normal images of the same task, (K, 3, H, W) in [0, 1].
        support_index: (K,) int64, which image each of them is: the same number is the same image.
        task: The task (organ, scanner) of a few-shot episode.
        patient_id: The patient; images that share it never stand on both sides of a split.
        uncertainty: Scalar float, how uncertain the model is of its score: raw, larger is less certain.
        uncertainty_map: The same of each pixel, (1, H, W) or (H, W) as in the batch.
    """

    numpy_class: ClassVar[type[NumpyImageItem]] = NumpyMedicalItem

    known_normal: torch.Tensor | None = None
    support: torch.Tensor | None = None
    support_index: torch.Tensor | None = None
    task: str | None = None
    patient_id: str | None = None
    uncertainty: torch.Tensor | None = None
    uncertainty_map: torch.Tensor | None = None


@dataclass
class MedicalImageBatch(ImageBatch):
    """A batch of images.

    Attributes:
        known_normal: (B,) bool; False for images of the unlabeled pool, whose labels no code may read in training.
        support: Normal images of each image's task, (B, K, 3, H, W) in [0, 1]; the pre-processor leaves them alone.
        support_index: (B, K) int64, which image each of them is: supports of a batch may share images.
        task: The task (organ, scanner) of each image's few-shot episode.
        patient_id: The patient of each image.
        uncertainty: (B,) float, how uncertain the model is of each score: raw, larger is less certain.
        uncertainty_map: The same of each pixel, (B, 1, H, W) or (B, H, W) at the model's size.
    """

    item_class: ClassVar[type[ImageItem]] = MedicalImageItem
    numpy_class: ClassVar[type[NumpyImageBatch]] = NumpyMedicalBatch

    known_normal: torch.Tensor | None = None
    support: torch.Tensor | None = None
    support_index: torch.Tensor | None = None
    task: list[str] | None = None
    patient_id: list[str] | None = None
    uncertainty: torch.Tensor | None = None
    uncertainty_map: torch.Tensor | None = None


def collate(items: Sequence[ImageItem]) -> MedicalImageBatch:
    """Make a batch; where one item has no mask, the batch has none (anomalib's own collation would crash).

    Our datamodules keep items with and without masks in different batches, so that no mask is lost this way.
    """
    items = list(items)
    if any(item.gt_mask is None for item in items):
        for item in items:
            item.gt_mask = None
    batch = cast("MedicalImageBatch", MedicalImageBatch.collate(items))
    # Items turn "" into None, and collation None into "None" or drops the paths, depending on the first item.
    batch.mask_path = [item.mask_path or "" for item in items]
    return batch


def collate_masked(items: Sequence[ImageItem]) -> MedicalImageBatch:
    """Make a batch for anomalib's tiled ensembles, which cut masks as they cut images.

    Raises:
        ValueError: If an image has no mask.
    """
    missing = [item.image_path for item in items if item.gt_mask is None]
    if missing:
        msg = (
            f"Without a mask: {len(missing)} of the {len(items)} images of a batch, such as {missing[0]}. anomalib's "
            "tiled ensembles need one of every abnormal image: add masks, or train without tiles."
        )
        raise ValueError(msg)
    return collate(items)
