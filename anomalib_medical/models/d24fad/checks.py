"""What may be compared with a support, and what may not."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from anomalib.data import AnomalibDataModule

from anomalib_medical.data.images import read_image
from anomalib_medical.io import ImageAddress, Window, agree
from anomalib_medical.post_processing import MedicalPostProcessor

from .support import Support, SupportImage, list_pictures_in, repeated_in
from .torch_model import D24fadError


def check_post_processor(post_processor: object) -> None:
    """Refuse post-processors that need anomalies for their threshold.

    Raises:
        ValueError: If it is neither a bool nor a MedicalPostProcessor with a target specificity.
    """
    usable = isinstance(post_processor, MedicalPostProcessor) and post_processor.threshold == "specificity"
    if not isinstance(post_processor, bool) and not usable:
        msg = (
            f"post_processor: got {type(post_processor).__name__}, expected a MedicalPostProcessor with threshold: "
            "specificity, or false: of a new task a few normal images are known and no anomaly."
        )
        raise ValueError(msg)


def refuse_support_images(support: Sequence[SupportImage], addresses: Sequence[ImageAddress], what: str) -> None:
    """Refuse pictures that are in the support too, whatever their names are.

    Args:
        support: The support.
        addresses: The pictures.
        what: What they are, for the message.

    Raises:
        D24fadError: If there are any.
    """
    repeated = repeated_in(support, addresses)
    if repeated:
        msg = (
            f"{len(repeated)} of the {len(addresses)} {what} {agree(len(repeated), 'is', 'are')} in the support too, "
            f"such as {repeated[0]}. What is in the support scores as normal by construction: take it out of one of "
            "the two."
        )
        raise D24fadError(msg)


def refuse_other_window(dataset: object, window: Window | None) -> None:
    """Refuse a dataset that reads DICOM and NIfTI files with another window than the support's.

    Raises:
        D24fadError: If it does.
    """
    if hasattr(dataset, "window") and dataset.window != window:
        msg = (
            f"The images to score are read with the window {dataset.window}, those of support_dir with {window}: set "
            "--model.support_window to the same."
        )
        raise D24fadError(msg)


def addresses_of(dataset: object) -> list[ImageAddress]:
    """Where a dataset's images are, as far as it says."""
    if hasattr(dataset, "samples"):
        return [ImageAddress.parse(path) for path in dataset.samples.image_path]
    return [ImageAddress.parse(path) for path in getattr(dataset, "addresses", getattr(dataset, "image_filenames", []))]


def read_normals(
    normals: AnomalibDataModule | str | Path | torch.Tensor | Sequence[torch.Tensor],
    window: Window | None,
    support: Sequence[SupportImage],
) -> Iterable[torch.Tensor]:
    """Go through held-out normal images.

    Args:
        normals: A datamodule (its validation set's normal images), a folder, or images in [0, 1].
        window: The window of a folder's DICOM and NIfTI files.
        support: The support, which must not be among them.

    Returns:
        Each ``(3, H, W)`` in [0, 1].

    Raises:
        D24fadError: If there are none, they are of other tasks, or support images are among them.
    """
    if isinstance(normals, AnomalibDataModule):
        normals.prepare_data()
        normals.setup()
        samples = normals.val_data.samples
        if "task" in samples:
            msg = (
                f"{type(normals).__name__} validates on other tasks than the target's: give a folder of held-out "
                "normal images of the target, or a MedicalFolder of it."
            )
            raise D24fadError(msg)
        addresses = [ImageAddress.parse(path) for path in samples[samples.label_index == 0].image_path]
        window = getattr(normals, "window", None)
    elif isinstance(normals, str | Path):
        addresses = list_pictures_in(normals, "The folder of normal images")
    else:
        return Support.of_tensors(normals, "normal image").pixels
    if not addresses:
        msg = f"The validation set of {type(normals).__name__} has 0 normal images, expected at least 1."
        raise D24fadError(msg)
    refuse_support_images(support, addresses, "normal images to calibrate with")
    return (read_image(address, window) for address in addresses)
