"""The dataset that all our datasets share: anomalib's, reading through `anomalib_medical.io`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Self, cast

import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataset
from anomalib.data.utils import LabelName
from pandas import DataFrame
from torchvision.transforms.v2 import Transform
from torchvision.tv_tensors import Image, Mask

from anomalib_medical.data.batch import MedicalImageBatch, MedicalImageItem, collate
from anomalib_medical.data.images import read_image, read_mask
from anomalib_medical.io import ImageAddress, MaskRule, Window, agree, counted, require_same_size


class MedicalDataset(AnomalibDataset):
    """A table of images, read at their full bit depth.

    Beside anomalib's columns, ``samples`` has ``patient_id`` (str) and, optionally, ``known_normal`` (bool, False for
    the unlabeled pool; True where the column is absent), ``task`` (of few-shot episodes) and ``boxes`` (JSON list of
    [left, top, width, height] in pixels, or ""), which become the mask. Columns that start with ``meta_`` describe the
    image (view, sex, ...). An abnormal image without mask or boxes has "" for both; its item has no ``gt_mask``.

    Args:
        augmentations: Augmentations of image and mask.
        window: Which values of DICOM and NIfTI files become black and white, see ``read_image``.
        mask_rule: Which values of masks belong to them; all that are not 0 if None.
    """

    def __init__(
        self,
        augmentations: Transform | None = None,
        window: Window | None = None,
        mask_rule: MaskRule | None = None,
    ) -> None:
        super().__init__(augmentations=augmentations)
        self.window = window
        self.mask_rule = mask_rule

    @property
    def samples(self) -> DataFrame:
        """The table, sorted by image_path as anomalib sorts it."""
        return super().samples

    @samples.setter
    def samples(self, samples: DataFrame) -> None:
        # anomalib's own setter would look for a file named "brain.nii.gz#axial=57".
        files = {ImageAddress.parse(path).path for path in samples.image_path}
        missing = {path for path in files if not path.exists()}
        if missing:
            which = f"{counted(len(missing), 'image file')} {agree(len(missing), 'is', 'are')}"
            msg = f"{which} gone, such as {min(missing)}."
            raise FileNotFoundError(msg)
        self._samples = samples.sort_values(by="image_path", ignore_index=True)

    def __getitem__(self, index: int) -> MedicalImageItem:
        """Read the image of a row, (3, H, W), with its mask, (H, W), where there is one.

        Raises:
            ImageReadError: If a file cannot be read, or mask and image differ in size.
        """
        # As a dictionary: a pandas row is slow at looking up names, which for small images is a tenth of the time.
        row = self.samples.iloc[index].to_dict()
        image = Image(read_image(row["image_path"], self.window, channels_last=True))
        mask = self._read_mask(row, (image.shape[-2], image.shape[-1]))

        if self.augmentations and mask is not None:
            image, mask = self.augmentations(image, mask)
        elif self.augmentations:
            image = self.augmentations(image)

        return MedicalImageItem(
            image=image,
            gt_mask=mask,
            gt_label=torch.tensor(int(row["label_index"])),
            image_path=row["image_path"],
            mask_path=row["mask_path"],
            known_normal=torch.tensor(bool(row.get("known_normal", True))),
            task=row.get("task"),
            patient_id=row["patient_id"],
        )

    def _read_mask(self, row: dict[Hashable, Any], size: tuple[int, int]) -> Mask | None:
        if row["label_index"] == LabelName.NORMAL:
            return Mask(torch.zeros(size, dtype=torch.uint8)) if self.task == TaskType.SEGMENTATION else None
        if row.get("boxes"):
            return Mask(_fill_boxes(json.loads(row["boxes"]), size))
        if not row["mask_path"]:
            return None
        mask = Mask(read_mask(row["mask_path"], self.mask_rule, row["image_path"]))
        require_same_size(row["image_path"], size, row["mask_path"], (*mask.shape,))
        return mask

    def subsample(self, indices: Sequence[int], inplace: bool = False) -> Self:
        """Keep the given rows (anomalib's own, with the type it returns)."""
        return cast("Self", super().subsample(indices, inplace))

    def of_split(self, split: str) -> Self:
        """Keep the rows of a split; there may be none."""
        return self.subsample([row for row, each in enumerate(self.samples.split) if each == split])

    @property
    def has_mask(self) -> list[bool]:
        """Whether each item comes with a mask (normal images come with an empty one)."""
        if self.task == TaskType.CLASSIFICATION:
            return [False] * len(self)
        masked = (self.samples.label_index == LabelName.NORMAL) | (self.samples.mask_path != "")
        if "boxes" in self.samples:
            masked |= self.samples.boxes != ""
        return [bool(value) for value in masked]

    @property
    def collate_fn(self) -> Callable[[list[Any]], MedicalImageBatch]:
        """Collate, without masks where one is missing."""
        return collate


def _fill_boxes(boxes: list[list[float]], size: tuple[int, int]) -> torch.Tensor:
    """Draw [left, top, width, height] boxes into a mask of (height, width); a touched pixel belongs to it."""
    mask = torch.zeros(size, dtype=torch.uint8)
    for left, top, width, height in boxes:
        rows = slice(max(0, math.floor(top)), max(0, math.ceil(top + height)))
        mask[rows, max(0, math.floor(left)) : max(0, math.ceil(left + width))] = 1
    return mask
