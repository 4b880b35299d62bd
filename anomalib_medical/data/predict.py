"""Images without labels: a folder or a single file, for `predict`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from torch.utils.data import Dataset
from torchvision.tv_tensors import Image

from anomalib_medical.data.batch import MedicalImageBatch, MedicalImageItem, collate
from anomalib_medical.data.images import read_image
from anomalib_medical.data.patients import file_facts
from anomalib_medical.io import (
    FORMATS,
    ImageAddress,
    Listing,
    NoImageError,
    Slicing,
    Window,
    irregular,
    list_folder,
    list_pictures,
    on_disk,
)

logger = logging.getLogger(__name__)


class MedicalPredictDataset(Dataset[MedicalImageItem]):
    """Images to predict: rasters at their full depth, frames of DICOM files and slices of NIfTI volumes.

    anomalib's own dataset turns 16-bit images white and knows no medical formats. What else is in a folder is named in
    one warning: files of other formats, pipes and broken links, and DICOM objects that are no images.

    Args:
        path: A folder, searched at any depth, or one image.
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
        listing = list_folder(path) if kind else Listing([path])
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
        address = self.addresses[index]
        facts = file_facts(address.path)
        return MedicalImageItem(
            image=Image(read_image(address, self.window)),
            image_path=str(address),
            patient_id=facts.patient or facts.study or facts.series or str(address.path),
        )

    @property
    def collate_fn(self) -> Callable[[list[MedicalImageItem]], MedicalImageBatch]:
        """Collate images; those of different sizes are brought to that of the one with the longest side."""
        return collate
