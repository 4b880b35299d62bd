"""anomalib's items and batches with the fields that medicine adds; each is None where the data does not have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, cast

import torch
from anomalib.data import ImageBatch, ImageItem, NumpyImageBatch, NumpyImageItem
from numpy.typing import NDArray

_Array = TypeVar("_Array")
_Text = TypeVar("_Text")


@dataclass
class MedicalFields(Generic[_Array, _Text]):
    """What medicine adds to a batch of B images; an item has the same without B.

    Attributes:
        known_normal: (B,) bool; False for images of the unlabeled pool, whose labels no code may read in training.
        support: Normal images of each image's task, (B, K, 3, H, W) in [0, 1]; the pre-processor leaves them alone.
        support_index: (B, K) int64, which image each of them is: the same number is the same image.
        task: The task (organ, scanner) of each image's few-shot episode.
        patient_id: The patient of each image; images that share it never stand on both sides of a split.
        series_id: The series or volume of each image, "" for a picture by itself; nobody but this process sees it.
        uncertainty: (B,) float, how uncertain the model is of each score: raw, larger is less certain.
        uncertainty_map: The same of each pixel, (B, 1, H, W) or (B, H, W) at the model's size.
    """

    known_normal: _Array | None = None
    support: _Array | None = None
    support_index: _Array | None = None
    task: _Text | None = None
    patient_id: _Text | None = None
    series_id: _Text | None = None
    uncertainty: _Array | None = None
    uncertainty_map: _Array | None = None


@dataclass
class NumpyMedicalItem(MedicalFields[NDArray[Any], str], NumpyImageItem):
    """An image as numpy arrays."""


@dataclass
class NumpyMedicalBatch(MedicalFields[NDArray[Any], list[str]], NumpyImageBatch):
    """Images as numpy arrays."""

    item_class: ClassVar[type[NumpyImageItem]] = NumpyMedicalItem


@dataclass
class MedicalImageItem(MedicalFields[torch.Tensor, str], ImageItem):
    """One image."""

    numpy_class: ClassVar[type[NumpyImageItem]] = NumpyMedicalItem


@dataclass
class MedicalImageBatch(MedicalFields[torch.Tensor, list[str]], ImageBatch):
    """A batch of images."""

    item_class: ClassVar[type[ImageItem]] = MedicalImageItem
    numpy_class: ClassVar[type[NumpyImageBatch]] = NumpyMedicalBatch


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
    """Make a batch for anomalib's tiled ensembles, which cut masks as they cut images; a ValueError without a mask."""
    missing = [item.image_path for item in items if item.gt_mask is None]
    if missing:
        msg = (
            f"Without a mask: {len(missing)} of the {len(items)} images of a batch, such as {missing[0]}. anomalib's "
            "tiled ensembles need one of every abnormal image: add masks, or train without tiles."
        )
        raise ValueError(msg)
    return collate(items)
