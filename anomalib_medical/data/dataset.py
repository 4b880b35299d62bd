"""Our datasets: anomalib's tables of images, and folders to predict, both read through `anomalib_medical.io`."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, Self, cast

import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataset
from anomalib.data.utils import LabelName
from pandas import DataFrame
from torch.utils.data import Dataset
from torchvision.transforms.v2 import Transform
from torchvision.tv_tensors import Image, Mask

from anomalib_medical.data.batch import MedicalImageBatch, MedicalImageItem, collate
from anomalib_medical.data.images import read_image, read_mask
from anomalib_medical.data.patients import file_facts
from anomalib_medical.io import (
    FORMATS,
    Archive,
    ImageAddress,
    Listing,
    MaskRule,
    NoImageError,
    Slicing,
    Window,
    agree,
    counted,
    irregular,
    list_folder,
    list_pictures,
    on_disk,
    require_same_size,
    series_key,
)

logger = logging.getLogger(__name__)


class MedicalDataset(AnomalibDataset):
    """A table of images, read at their full bit depth.

    Beside anomalib's columns, ``samples`` has ``patient_id`` (str) and, optionally, ``series_id`` (str, "" for a
    picture by itself), ``known_normal`` (bool, False for
    the unlabeled pool; True where the column is absent), ``task`` (of few-shot episodes) and ``boxes`` (JSON list of
    [left, top, width, height] in pixels, or ""), which become the mask. Columns that start with ``meta_`` describe the
    image (view, sex, ...). An abnormal image without mask or boxes has "" for both; its item has no ``gt_mask``.

    Args:
        samples: The table, which may also be set later.
        name: Name of the dataset.
        augmentations: Augmentations of image and mask.
        window: Which values of DICOM and NIfTI files become black and white, see ``read_image``.
        mask_rule: Which values of masks belong to them; all that are not 0 if None.
    """

    def __init__(
        self,
        samples: DataFrame | None = None,
        name: str | None = None,
        augmentations: Transform | None = None,
        window: Window | None = None,
        mask_rule: MaskRule | None = None,
    ) -> None:
        super().__init__(augmentations=augmentations)
        self._name = name or super().name
        self.window = window
        self.mask_rule = mask_rule
        if samples is not None:
            self.samples = samples

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self._name

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
            series_id=row.get("series_id", ""),
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


class MedicalPredictDataset(Dataset[MedicalImageItem]):
    """Images to predict: rasters at their full depth, frames of DICOM files and slices of NIfTI volumes.

    anomalib's own dataset turns 16-bit images white and knows no medical formats. What else is in a folder is named in
    one warning: files of other formats, pipes and broken links, and DICOM objects that are no images.

    Args:
        path: A folder, searched at any depth, one image, or a list of them, see `Archive`.
        window: Which values of DICOM and NIfTI files become black and white, see ``read_image``.
        slicing: How volumes become slices; all axial slices if None.

    Raises:
        FileNotFoundError: If there is no such file or folder, or no image in the folder.
        ImageReadError: If a file's header cannot be read; a NoImageError if there are only objects that are no images.
    """

    def __init__(self, path: str | Path, window: Window | None = None, slicing: Slicing | None = None) -> None:
        path = on_disk(Path(path))
        kind = irregular(path)
        if kind not in {None, "a folder"}:
            msg = f"{path} is {kind}: expected an image, or a folder of images, to predict."
            raise FileNotFoundError(msg)
        if not path.exists():
            msg = f"There is no file or folder {path} to predict."
            raise FileNotFoundError(msg)
        listing = list_folder(path) if kind else Listing(list(Archive([path])))
        self.window = window
        self.name = path.resolve().name if kind else None
        self.addresses: list[ImageAddress] = []
        for file in listing.images:
            try:
                self.addresses += list_pictures(file, slicing)
            except NoImageError as error:
                listing += Listing(no_images={error.kind: [file]})
        left_out = listing.left_out()
        if not self.addresses:
            msg = f"There is no image to predict in {path}: expected {FORMATS} files. {left_out}".strip()
            raise FileNotFoundError(msg) if not listing.no_images else NoImageError(msg)
        if left_out:
            logger.warning("%s", left_out)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.addresses)

    def __getitem__(self, index: int) -> MedicalImageItem:
        """Read one image, (3, H, W); an ImageReadError if that cannot be done."""
        return predict_item(self.addresses[index], self.window)

    @property
    def collate_fn(self) -> Callable[[list[MedicalImageItem]], MedicalImageBatch]:
        """Collate images; those of different sizes are brought to that of the one with the longest side."""
        return collate


def predict_item(address: ImageAddress, window: Window | None) -> MedicalImageItem:
    """Read one image to predict, (3, H, W); an ImageReadError if that cannot be done."""
    facts = file_facts(address.path)
    return MedicalImageItem(
        image=Image(read_image(address, window)),
        image_path=str(address),
        patient_id=facts.patient or facts.study or facts.series or str(address.path),
        series_id=facts.series or series_key(address, None),
    )


def _fill_boxes(boxes: list[list[float]], size: tuple[int, int]) -> torch.Tensor:
    """Draw [left, top, width, height] boxes into a mask of (height, width); a touched pixel belongs to it."""
    mask = torch.zeros(size, dtype=torch.uint8)
    for left, top, width, height in boxes:
        rows = slice(max(0, math.floor(top)), max(0, math.ceil(top + height)))
        mask[rows, max(0, math.floor(left)) : max(0, math.ceil(left + width))] = 1
    return mask
