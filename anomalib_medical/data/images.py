"""Images and masks as tensors, read by ``io``, which knows no torch: edge devices read with the same code."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from anomalib_medical.data.privacy import PatientHasher
from anomalib_medical.io import (
    ImageAddress,
    MaskRule,
    Window,
    agree,
    counted,
    list_folder,
    list_pictures,
    on_disk,
    picture_sha256,
    read_mask_pixels,
    read_pixels,
    three_planes,
)

logger = logging.getLogger(__name__)

SCORES_AS_NORMAL = "What is in the support scores as normal by construction: take it out of one of the two."
AnyWindow = str | Sequence[float] | Window | None


def read_image(
    path: str | Path | ImageAddress, window: AnyWindow = None, *, channels_last: bool = False
) -> torch.Tensor:
    """Read an image as ``read_pixels`` does; grey images are repeated over the three channels.

    Args:
        path: Image file, or the address of one picture in it, such as ``brain.nii.gz#axial=57``.
        window: Which values of DICOM and NIfTI files become black and white: a name (``bone``, ``brain``, ``lung``,
            ``soft_tissue``), (center, width), or None for the file's own. Other formats have no units to apply it to.
        channels_last: Whether each pixel's three values lie together in memory, behind the same shape: colour files
            then need no copy, and resizing without antialiasing takes half the time.

    Returns:
        float32 tensor in [0, 1] of shape (3, H, W).

    Raises:
        FileNotFoundError: If there is no such file.
        ImageReadError: If its content cannot be read, or it holds several pictures and the address names none.
    """
    pixels = read_pixels(path, window)
    if not channels_last:
        return torch.from_numpy(three_planes(pixels))
    colours = torch.from_numpy(pixels)
    return (colours[..., None].repeat(1, 1, 3) if colours.ndim == 2 else colours).permute(2, 0, 1)


def read_mask(
    path: str | Path | ImageAddress, rule: MaskRule | None = None, image: str | Path | ImageAddress | None = None
) -> torch.Tensor:
    """Read a mask as ``read_mask_pixels`` does, with the same arguments and errors.

    Returns:
        uint8 tensor of zeros and ones of shape (H, W).
    """
    return torch.from_numpy(read_mask_pixels(path, rule, image)).to(torch.uint8)


class Pictures(NamedTuple):
    """Images that others are compared with, and by what each is known again under another name."""

    images: list[torch.Tensor]  # each (3, H, W) in [0, 1]; sizes may differ
    record: dict[str, Any]  # count, sha256 of all, and of each image sha256 and size of its file and its hashed name
    names: list[str]  # of the files, for messages: they are never written


def read_pictures(
    addresses: Sequence[ImageAddress], window: AnyWindow = None, salt_folder: str | Path | None = None
) -> Pictures:
    """Read pictures; names are hashed with the salt of a folder of results, or left out of the record."""
    names = [str(replace(address, path=Path(address.path.name))) for address in addresses]
    hasher = PatientHasher(salt_folder) if salt_folder else None
    facts = [
        {
            "name": hasher.hash(name, "s") if hasher else "",
            "sha256": picture_sha256(address),
            "size": address.path.stat().st_size,
        }
        for address, name in zip(addresses, names, strict=True)
    ]
    return Pictures([read_image(address, window) for address in addresses], record_of(facts), names)


def read_support(
    folder: str | Path,
    window: AnyWindow = None,
    shots: int | None = None,
    seed: int = 0,
    choose: Callable[[Iterable[torch.Tensor], int], list[int]] | None = None,
    salt_folder: str | Path | None = None,
) -> Pictures:
    """Read a folder of a few normal images, as a few-shot model's support.

    Args:
        folder: The folder, searched at any depth.
        window: Which values of DICOM and NIfTI files become black and white, see ``read_image``.
        shots: How many of its images to take; all if None.
        seed: Decides which.
        choose: Decides instead, from the images and ``shots``; it returns the places of those to take.
        salt_folder: Folder of results, with whose salt names are hashed for the record.

    Raises:
        ValueError: If there is no such folder, or it holds too few images.
        ImageReadError: If a file cannot be read.
    """
    pool = list_normals(folder, "support_dir")
    shots = len(pool) if shots is None else shots
    if shots > len(pool):
        held = counted(len(pool), "image")
        msg = f"support_shots is {shots}, and {folder} holds {held}: add images, or ask for fewer."
        raise ValueError(msg)
    if choose is None or shots == len(pool):
        rows = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))[:shots].tolist()
    else:
        rows = choose((read_image(address, window) for address in pool), shots)
    return read_pictures([pool[row] for row in sorted(rows)], window, salt_folder)


def list_normals(folder: str | Path, argument: str) -> list[ImageAddress]:
    """List all pictures of a folder of normal images, which the message calls ``argument``."""
    folder = on_disk(Path(folder))
    listing = list_folder(folder)
    addresses = [address for path in listing.images for address in list_pictures(path)]
    left_out = listing.left_out()
    if not addresses:
        found = "it holds 0 images" if folder.is_dir() else "there is no such folder"
        msg = f"{argument} is {folder}: {found}. Expected a folder with at least 1 normal image of the new task."
        raise ValueError(f"{msg} {left_out}".strip())
    if left_out:
        logger.warning("%s: %s", argument, left_out)
    return addresses


def pictures_in_memory(images: Iterable[torch.Tensor], what: str) -> Pictures:
    """Take images without files, each (3, H, W) in [0, 1], which the message calls ``what``."""
    pixels = [image.detach().float().cpu() for image in images]
    if not pixels:
        msg = f"Got 0 {what}s, expected at least 1 normal image."
        raise ValueError(msg)
    for index, image in enumerate(pixels):
        if image.ndim != 3 or image.shape[0] != 3 or not bool(((image >= 0) & (image <= 1)).all()):
            values = f"values from {image.min():.3g} to {image.max():.3g}" if image.numel() else "no values"
            msg = (
                f"The {what} {index} has the shape {tuple(image.shape)} and {values}, expected (3, height, width) "
                "with values in [0, 1], before any normalisation."
            )
            raise ValueError(msg)
    digests = [hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest() for image in pixels]
    return Pictures(pixels, record_of([{"name": "", "sha256": digest, "size": 0} for digest in digests]), [])


def record_of(images: list[dict[str, Any]]) -> dict[str, Any]:
    """Describe pictures by their count, a sha256 of the whole set, and what is given of each."""
    digests = "\n".join(sorted(image["sha256"] for image in images))
    return {"count": len(images), "sha256": hashlib.sha256(digests.encode()).hexdigest(), "images": images}


def refuse_repeated(record: Mapping[str, Any], paths: Iterable[str | Path | ImageAddress], what: str) -> None:
    """Refuse pictures that are in the support too, whatever their names are; the message calls them ``what``."""
    addresses = [ImageAddress.parse(path) for path in paths]
    digests = {image["sha256"] for image in record["images"]}
    # Only files of the same size have to be read.
    sizes = {image["size"] for image in record["images"]}
    repeated = [
        address for address in addresses if address.path.stat().st_size in sizes and picture_sha256(address) in digests
    ]
    if repeated:
        msg = (
            f"{len(repeated)} of the {len(addresses)} {what} {agree(len(repeated), 'is', 'are')} in the support too, "
            f"such as {repeated[0]}. {SCORES_AS_NORMAL}"
        )
        raise ValueError(msg)
