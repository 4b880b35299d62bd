"""What the masks of a data set hold, said once for all of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from anomalib_medical.io import (
    ImageAddress,
    ImageReadError,
    MaskRule,
    Slicing,
    agree,
    counted,
    labels_in,
    list_pictures,
    pair_masks,
    read_mask_values,
)

logger = logging.getLogger(__name__)

_SHOWN = 8


class MaskSurvey:
    """Looks at all masks of a data set as they are listed; a rule says which of their values count."""

    def __init__(self, rule: MaskRule) -> None:
        self.rule = rule
        self._labels: set[int | tuple[int, ...]] = set()
        self._resampled: list[Path] = []
        self._empty: list[ImageAddress] = []

    def pair(
        self, image: ImageAddress, mask: ImageAddress, pictures: Sequence[ImageAddress], slicing: Slicing | None
    ) -> list[ImageAddress | None]:
        """Find the mask of each picture in a file: None where it is empty, but for single pictures without a rule."""
        masks, resampled = pair_masks(image, mask, pictures, slicing)
        if resampled:
            self._resampled.append(mask.path)
        kept = [each if self._counts(each, picture) else None for each, picture in zip(masks, pictures, strict=True)]
        if len(pictures) == 1 and not self.rule.labels:
            return list(masks)
        if not any(kept):
            if resampled and len(pictures) > 1:
                self._refuse_if_lost(pictures[0], mask)
            self._empty.append(image)
        return kept

    def report(self) -> None:
        """Warn of what users should know; a ValueError if no mask holds any of the chosen labels."""
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
                max(self._labels, key=str),
            )

    def _counts(self, mask: ImageAddress, picture: ImageAddress) -> bool:
        values = read_mask_values(mask, picture)
        if self.rule.threshold is None:
            self._labels |= labels_in(mask.path, values)
        return bool(self.rule.select(mask.path, values).any())

    def _refuse_if_lost(self, picture: ImageAddress, mask: ImageAddress) -> None:
        """Refuse a mask of which nothing is left in its image, however the volume is cut."""
        axis = next(name for name, _ in picture.selection if name != "volume")
        slices = list_pictures(picture.path, Slicing(axis))  # type: ignore[arg-type]  # a name of an axis
        there = any(self.rule.select(mask.path, read_mask_values(each)).any() for each in list_pictures(mask.path))
        if there and not any(self.rule.select(mask.path, read_mask_values(mask, each)).any() for each in slices):
            msg = (
                f"Nothing of the mask {mask} lies in its image {picture.path}, by their affines, though it is not "
                "empty. Save it on its image's grid."
            )
            raise ImageReadError(msg)


def _names(labels: Iterable[object]) -> str:
    names = sorted(labels, key=lambda label: (str(type(label)), label))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(str, names[:_SHOWN])) + more
