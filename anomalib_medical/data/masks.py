"""Masks of a data set: which belongs to which picture, and what they hold, said once for all of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from math import isfinite
from pathlib import Path

from anomalib_medical.data.dataset import mask_size_error
from anomalib_medical.io import (
    ImageAddress,
    ImageReadError,
    MaskRule,
    Slicing,
    agree,
    counted,
    image_size,
    labels_in,
    list_pictures,
    read_mask_values,
)
from anomalib_medical.io.dicom_places import distance_apart
from anomalib_medical.io.nifti_header import read_header
from anomalib_medical.io.nifti_masks import grid_change, is_nifti_file

logger = logging.getLogger(__name__)

_SHOWN = 8


class MaskSurvey:
    """Looks at all masks of a data set as they are listed.

    Args:
        rule: Which of their values count.
    """

    def __init__(self, rule: MaskRule) -> None:
        self.rule = rule
        self._labels: set[int | tuple[int, ...]] = set()
        self._resampled: list[Path] = []
        self._empty: list[ImageAddress] = []

    def pair(
        self, image: ImageAddress, mask: ImageAddress, pictures: Sequence[ImageAddress], slicing: Slicing | None
    ) -> list[ImageAddress | None]:
        """Find the mask of each picture in a file.

        Args:
            image: The file, or one picture in it.
            mask: Its mask, or one picture in that.
            pictures: The pictures.
            slicing: How volumes become slices.

        Returns:
            A mask for each of several pictures, None where it is empty; the mask of a single picture may be empty. Of
            chosen labels one at least is there.

        Raises:
            ImageReadError: If mask and image do not match one to one, or the values of a mask mean nothing.
        """
        masks = self._addresses(image, mask, pictures, slicing)
        kept = [
            address if self._counts(address, picture) else None
            for address, picture in zip(masks, pictures, strict=True)
        ]
        if len(pictures) > 1:
            if not any(kept):
                if not masks[0].selection:
                    self._refuse_if_lost(pictures[0], mask)
                self._empty.append(image)
            return kept
        if kept[0] is None and self.rule.labels:
            self._empty.append(pictures[0])
            return kept
        return list(masks)

    def report(self) -> None:
        """Warn of what users should know.

        Raises:
            ValueError: If no mask holds any of the chosen labels.
        """
        if self._resampled:
            logger.warning(
                "%s another grid than the image, such as %s: laid over it by the affines of both, by nearest "
                "neighbour.",
                f"{counted(len(self._resampled), 'mask volume')} {agree(len(self._resampled), 'has', 'have')}",
                self._resampled[0],
            )
        if self._empty:
            logger.warning(
                "Masks of %s of abnormal classes, such as %s, hold nothing that counts: all of %s counts as normal.",
                counted(len(self._empty), "image"),
                self._empty[0],
                agree(len(self._empty), "it", "them"),
            )
        absent = sorted(set(self.rule.labels) - self._labels)
        if self._labels and absent:
            msg = f"mask_labels names {_names(absent)}, which no mask holds: they hold {_names(self._labels)}."
            if len(absent) == len(self.rule.labels):
                raise ValueError(msg)
            logger.warning("%s", msg)
        if len(self._labels) > 1 and not self.rule.labels:
            logger.warning(
                "The masks hold several values (%s): all but 0 count as abnormal. Choose with mask_labels, such as "
                "[%s], or set mask_threshold.",
                _names(self._labels),
                _names([max(self._labels, key=str)]),
            )

    def _addresses(
        self, image: ImageAddress, mask: ImageAddress, pictures: Sequence[ImageAddress], slicing: Slicing | None
    ) -> list[ImageAddress]:
        """Return the mask of each picture; a volume without a selection is to be resampled."""
        is_volume, is_mask_volume = is_nifti_file(image.path), is_nifti_file(mask.path)
        masks = [mask] if mask.selection else list_pictures(mask.path, slicing, of_mask=True)
        if is_volume and is_mask_volume:
            return self._in_volume(image, mask, pictures)
        if is_mask_volume or (is_volume and len(masks) > 1):
            msg = (
                f"Only one of the mask {mask} and its image {image} is NIfTI: which slice belongs to which, and "
                "which way up, cannot be told. Save both in the same format."
            )
            raise ImageReadError(msg)
        if len(masks) != len(pictures):
            raise _number_error(image, len(pictures), mask, len(masks))
        # One look at the first pair: all pictures in a file have one size.
        sizes = image_size(pictures[0]), image_size(masks[0])
        if sizes[0] != sizes[1]:
            raise mask_size_error(str(pictures[0]), sizes[0], str(masks[0]), sizes[1])
        for picture, each in zip(pictures, masks, strict=True):
            if apart := distance_apart(picture, each):
                how = f"{apart:.3g} mm apart" if isfinite(apart) else "turned"
                msg = (
                    f"The mask {each} does not lie where its image {picture} does: by their headers their planes are "
                    f"{how}. Save the mask's frames in the order and at the places of its image's."
                )
                raise ImageReadError(msg)
        return masks

    def _in_volume(
        self, image: ImageAddress, mask: ImageAddress, pictures: Sequence[ImageAddress]
    ) -> list[ImageAddress]:
        files = read_header(image.path), read_header(mask.path)
        if files[0].volumes != files[1].volumes:
            raise _number_error(image, files[0].volumes, mask, files[1].volumes)
        resampled = grid_change(files[1], files[0]) is not None
        if mask.selection and (resampled or mask.selection != image.selection):
            msg = (
                f"The mask {mask} does not lie where its image {image} does. Name the mask's file without what follows "
                "the #: the slice that belongs to the image is found by the affines of both."
            )
            raise ImageReadError(msg)
        if resampled:
            self._resampled.append(mask.path)
        return [ImageAddress(mask.path, () if resampled else picture.selection) for picture in pictures]

    def _counts(self, mask: ImageAddress, picture: ImageAddress) -> bool:
        values = read_mask_values(mask, picture)
        if self.rule.threshold is None:
            self._labels |= labels_in(mask.path, values)
        return bool(self.rule.select(mask.path, values).any())

    def _refuse_if_lost(self, picture: ImageAddress, mask: ImageAddress) -> None:
        """Refuse a mask of which nothing is left in its image, however the volume is cut."""
        axis = next(name for name, _ in picture.selection if name != "volume")
        slicing = Slicing(axis)  # type: ignore[arg-type]  # a name of an axis
        there = any(self.rule.select(mask.path, read_mask_values(each)).any() for each in list_pictures(mask.path))
        pictures = list_pictures(picture.path, slicing)
        if there and not any(self.rule.select(mask.path, read_mask_values(mask, each)).any() for each in pictures):
            msg = (
                f"Nothing of the mask {mask} lies in its image {picture.path}, by their affines, though it is not "
                "empty. Save it on its image's grid."
            )
            raise ImageReadError(msg)


def _number_error(image: ImageAddress, pictures: int, mask: ImageAddress, masks: int) -> ImageReadError:
    what = "volume" if is_nifti_file(image.path) and is_nifti_file(mask.path) else "picture"
    msg = (
        f"The mask {mask} holds {counted(masks, what)}, its image {image} {pictures}. They must match one to one: "
        "save the mask with the image's frames or slices, or remove it."
    )
    return ImageReadError(msg)


def _names(labels: Iterable[object]) -> str:
    names = sorted(labels, key=lambda label: (str(type(label)), label))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(str, names[:_SHOWN])) + more
