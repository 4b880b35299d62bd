"""Which picture of a mask file lies over which picture of an image file."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from .dicom_header import distance_apart
from .errors import ImageReadError
from .files import ImageAddress
from .options import Slicing
from .reader import image_size, list_pictures
from .text import counted


def pair_masks(
    image: ImageAddress, mask: ImageAddress, pictures: Sequence[ImageAddress], slicing: Slicing | None = None
) -> tuple[list[ImageAddress], bool]:
    """Find the mask of each picture in a file, of which no pixels are read.

    Args:
        image: The file, or one picture in it.
        mask: Its mask, or one picture in that.
        pictures: The file's pictures.
        slicing: How volumes become slices.

    Returns:
        A mask for each picture; and whether it is a volume of another grid, to be resampled for each slice.

    Raises:
        ImageReadError: If mask and image do not match one to one.
    """
    # Here, for devices may lack nibabel; they read no masks.
    from .nifti_header import is_nifti_file

    is_volume, is_mask_volume = is_nifti_file(image.path), is_nifti_file(mask.path)
    masks = [mask] if mask.selection else list_pictures(mask.path, slicing, of_mask=True)
    if is_volume and is_mask_volume:
        return _in_volume(image, mask, pictures)
    if is_mask_volume or (is_volume and len(masks) > 1):
        msg = (
            f"Only one of the mask {mask} and its image {image} is NIfTI: which slice belongs to which, and which way "
            "up, cannot be told. Save both in the same format."
        )
        raise ImageReadError(msg)
    if len(masks) != len(pictures):
        raise _number_error(image, len(pictures), mask, len(masks), "picture")
    # One look at the first pair: all pictures in a file have one size.
    require_same_size(pictures[0], image_size(pictures[0]), masks[0], image_size(masks[0]))
    for picture, each in zip(pictures, masks, strict=True):
        if apart := distance_apart(picture, each):
            how = f"{apart:.3g} mm apart" if isfinite(apart) else "turned"
            msg = (
                f"The mask {each} does not lie where its image {picture} does: by their headers their planes are "
                f"{how}. Save the mask's frames in the order and at the places of its image's."
            )
            raise ImageReadError(msg)
    return masks, False


def require_same_size(
    image: ImageAddress | str, size: tuple[int, ...], mask: ImageAddress | str, mask_size: tuple[int, ...]
) -> None:
    """Refuse a mask of another (height, width) than its image."""
    if mask_size != size:
        msg = (
            f"The mask {mask} has {mask_size[0]}x{mask_size[1]} pixels (height x width), its image {image} has "
            f"{size[0]}x{size[1]}. Masks are not stretched, since they might lie elsewhere then: save the mask at its "
            "image's size, or remove it."
        )
        raise ImageReadError(msg)


def _in_volume(
    image: ImageAddress, mask: ImageAddress, pictures: Sequence[ImageAddress]
) -> tuple[list[ImageAddress], bool]:
    from .nifti_header import read_header
    from .nifti_masks import grid_change

    files = read_header(image.path), read_header(mask.path)
    if files[0].volumes != files[1].volumes:
        raise _number_error(image, files[0].volumes, mask, files[1].volumes, "volume")
    resampled = grid_change(files[1], files[0]) is not None
    if mask.selection and (resampled or mask.selection != image.selection):
        msg = (
            f"The mask {mask} does not lie where its image {image} does. Name the mask's file without what follows "
            "the #: the slice that belongs to the image is found by the affines of both."
        )
        raise ImageReadError(msg)
    return [ImageAddress(mask.path, () if resampled else picture.selection) for picture in pictures], resampled


def _number_error(image: ImageAddress, pictures: int, mask: ImageAddress, masks: int, what: str) -> ImageReadError:
    return ImageReadError(
        f"The mask {mask} holds {counted(masks, what)}, its image {image} {pictures}. They must match one to one: "
        "save the mask with the image's frames or slices, or remove it."
    )
