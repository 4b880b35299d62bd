"""Support images: where they come from, and the record that is kept of them."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from anomalib_medical.data.images import read_image
from anomalib_medical.data.privacy import PatientHasher
from anomalib_medical.io import ImageAddress, Window, counted, list_folder, list_pictures, on_disk

from .torch_model import D24fadError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SupportImage:
    """What is known of a support image beside its pixels.

    Attributes:
        digest: sha256 of its file, with the address of the frame or slice behind it where the file holds many; of an
            image without a file, of its float32 values.
        size: Bytes of the file, 0 without one.
        name: The file's name, as long as the model is in memory: it is not saved.
        hashed_name: Salted hash of the name, as patients are hashed.
    """

    digest: str
    size: int = 0
    name: str = ""
    hashed_name: str = ""

    @classmethod
    def of_file(cls, address: ImageAddress) -> "SupportImage":
        """Describe a file, or one picture in it."""
        name = str(ImageAddress(Path(address.path.name), address.selection))
        return cls(_file_digest(address), address.path.stat().st_size, name)

    def hashed(self, hasher: PatientHasher) -> "SupportImage":
        """Hash the name, if that has not been done."""
        return self if self.hashed_name else replace(self, hashed_name=hasher.hash(self.name).replace("p-", "s-", 1))


@dataclass(frozen=True)
class Support:
    """Support images as they were read.

    Attributes:
        pixels: Each ``(3, H, W)`` in [0, 1]; sizes may differ.
        images: What is known of each.
    """

    pixels: list[torch.Tensor]
    images: list[SupportImage]

    @classmethod
    def read(cls, addresses: Sequence[ImageAddress], window: Window | None) -> "Support":
        """Read support images.

        Raises:
            ImageReadError: If a file cannot be read; it is named.
            FileNotFoundError: If there is no such file.
        """
        pixels = [read_image(address, window) for address in addresses]
        return cls(pixels, [SupportImage.of_file(address) for address in addresses])

    @classmethod
    def of_tensors(cls, images: torch.Tensor | Sequence[torch.Tensor], what: str = "support image") -> "Support":
        """Take images that are in memory.

        Args:
            images: ``(K, 3, H, W)``, or K images ``(3, H_k, W_k)``, in [0, 1].
            what: What they are, for the message.

        Raises:
            D24fadError: If there are none, or one is no colour image in [0, 1].
        """
        pixels = [image.detach().float().cpu() for image in images]
        if not pixels:
            msg = f"Got 0 {what}s, expected at least 1 normal image."
            raise D24fadError(msg)
        for index, image in enumerate(pixels):
            if image.ndim != 3 or image.shape[0] != 3 or not bool(((image >= 0) & (image <= 1)).all()):
                values = f"values from {image.min():.3g} to {image.max():.3g}" if image.numel() else "no values"
                msg = (
                    f"The {what} {index} has the shape {tuple(image.shape)} and {values}, expected (3, height, "
                    "width) with values in [0, 1], before any normalisation."
                )
                raise D24fadError(msg)
        return cls(pixels, [SupportImage(_digest(image.contiguous().numpy().tobytes())) for image in pixels])

    def choose(self, indices: Sequence[int]) -> "Support":
        """Keep some of the images."""
        return Support([self.pixels[index] for index in indices], [self.images[index] for index in indices])


def list_pictures_in(folder: str | Path, argument: str) -> list[ImageAddress]:
    """List all pictures of a folder of normal images.

    Args:
        folder: The folder, searched at any depth.
        argument: What named it, for the message.

    Raises:
        D24fadError: If there is no such folder, or no image in it.
        ImageReadError: If a header cannot be read.
    """
    folder = on_disk(Path(folder))
    found = "there is no such folder" if not folder.is_dir() else "it holds 0 images"
    listing = list_folder(folder)
    addresses = [address for path in listing.images for address in list_pictures(path)]
    left_out = listing.left_out()
    if not addresses:
        msg = f"{argument} is {folder}: {found}. Expected a folder with at least 1 normal image of the new task."
        raise D24fadError(f"{msg} {left_out}".strip())
    if left_out:
        logger.warning("%s: %s", argument, left_out)
    return addresses


def list_support(folder: str | Path, shots: int | None) -> list[ImageAddress]:
    """List the pictures of a folder of support images.

    Args:
        folder: The folder, searched at any depth.
        shots: How many of them are wanted, None for all.

    Raises:
        D24fadError: If there is no such folder, or it holds too few images.
        ImageReadError: If a header cannot be read.
    """
    addresses = list_pictures_in(folder, "support_dir")
    if shots is not None and shots > len(addresses):
        images = counted(len(addresses), "image")
        msg = f"support_shots is {shots}, and {folder} holds {images}: add images, or ask for fewer."
        raise D24fadError(msg)
    return addresses


def record_of(images: Sequence[SupportImage]) -> dict[str, Any]:
    """Describe a support for files: count, a sha256 of the whole set, and each image; no names."""
    digests = sorted(image.digest for image in images)
    return {
        "count": len(images),
        "sha256": _digest("\n".join(digests).encode()),
        "images": [{"name": image.hashed_name, "sha256": image.digest, "size": image.size} for image in images],
    }


def images_of(record: dict[str, Any]) -> list[SupportImage]:
    """Read a record back."""
    return [SupportImage(image["sha256"], image["size"], hashed_name=image["name"]) for image in record["images"]]


def repeated_in(images: Sequence[SupportImage], addresses: Sequence[ImageAddress]) -> list[ImageAddress]:
    """Find the pictures that are support images too, under whatever name.

    Args:
        images: The support.
        addresses: Pictures that are going to be scored.
    """
    digests = {image.digest for image in images}
    # Only files of the same size have to be read.
    sizes = {image.size for image in images}
    return [
        address for address in addresses if address.path.stat().st_size in sizes and _file_digest(address) in digests
    ]


def unique_support(support: torch.Tensor, index: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring the supports of a batch together, so that an image in several of them is encoded once.

    Args:
        support: ``(B, K, 3, H, W)``.
        index: ``(B, K)``, equal for equal images; None if all are different.

    Returns:
        The different images ``(U, 3, H, W)``, and which of them are in the support of which query ``(B, U)``, bool.
    """
    count, shots = support.shape[:2]
    positions = torch.arange(count * shots, device=support.device)
    index = positions.view(count, shots) if index is None else index
    images, inverse = torch.unique(index, return_inverse=True)
    first = torch.full_like(images, count * shots).scatter_reduce_(0, inverse.flatten(), positions, "amin")
    member = torch.zeros(count, images.shape[0], dtype=torch.bool, device=support.device)
    return support.flatten(0, 1)[first], member.scatter_(1, inverse, value=True)


def _file_digest(address: ImageAddress) -> str:
    """Return the sha256 of a file, with the picture's selection where it holds many."""
    digest = hashlib.sha256()
    with address.path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    selection = str(ImageAddress(Path("x"), address.selection)).partition("#")[2]
    return f"{digest.hexdigest()}#{selection}" if selection else digest.hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
