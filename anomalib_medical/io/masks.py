"""Which values of a mask belong to what it marks; the same rule for every format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ImageReadError
from .words import agree, counted

# Numbers this near to a whole one are taken for it: what rounding, compression and scaling leave behind.
ROUNDING = 1e-3


@dataclass(frozen=True)
class MaskRule:
    """Which values of masks count.

    Values are those that a file stores (NIfTI: scaled by its header), such as 0 to 255 in a PNG of 8 bits. Without
    labels and threshold every pixel that is not 0 (of a colour mask: not black) counts. NaN and infinite values never
    do.

    Attributes:
        labels: Whole numbers that count, alone.
        threshold: Values above it count, whole numbers or not.
    """

    labels: tuple[int, ...] = ()
    threshold: float | None = None

    def __post_init__(self) -> None:
        """Refuse rules that contradict themselves."""
        if self.labels and self.threshold is not None:
            msg = f"Got mask_labels {list(self.labels)} and mask_threshold {self.threshold:g}, expected one of the two."
            raise ValueError(msg)
        if 0 in self.labels:
            msg = f"mask_labels is {list(self.labels)}, expected whole numbers other than 0, which is the background."
            raise ValueError(msg)
        if self.threshold is not None and not np.isfinite(self.threshold):
            msg = f"mask_threshold is {self.threshold}, expected a number."
            raise ValueError(msg)

    @classmethod
    def of(cls, labels: Sequence[int] | None, threshold: float | None) -> MaskRule:
        """Build the rule from what a user writes."""
        return cls(tuple(labels or ()), threshold)

    def select(self, path: Path, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return where values (H, W), or colours (H, W, 3), count.

        Args:
            path: The mask's file, for errors.
            values: What it stores.

        Raises:
            ImageReadError: If there are fractions and no threshold, or colours and labels or a threshold.
        """
        values = _grey(values)
        if values.ndim == 3:
            if self.labels or self.threshold is not None:
                raise ImageReadError.of(
                    path,
                    found="a mask of colours",
                    expected="one number a pixel to compare with mask_labels or mask_threshold",
                    remedy="Save its labels as grey values, or leave the two out: all that is not black counts then.",
                )
            return np.asarray((values != 0).any(axis=-1))
        if self.threshold is not None:
            return np.asarray(_finite(values) > self.threshold)
        whole = _whole(path, values)
        return np.isin(whole, self.labels) if self.labels else np.asarray(whole != 0)


def halved(path: Path, pixels: NDArray[Any], largest: int = 255) -> NDArray[np.uint8]:
    """Return 255 where a mask from a lossy file, (H, W) or (H, W, 3), is brighter than half, and 0 elsewhere."""
    brightest = pixels if pixels.ndim == 2 else pixels.max(axis=-1)
    bright = brightest > largest // 2
    if brightest.any() and not bright.any():
        raise ImageReadError.of(
            path,
            found=f"a lossy mask with values up to {brightest.max()}",
            expected=f"white ({largest}) on black: where compression is lossy, what is brighter than half belongs to "
            "the mask",
            remedy="Save masks without loss, as PNG.",
        )
    return np.where(bright, np.uint8(255), np.uint8(0))


def labels_in(path: Path, values: NDArray[Any]) -> set[int | tuple[int, ...]]:
    """Return the whole numbers other than 0, or the colours other than black, that a mask holds.

    Raises:
        ImageReadError: If there are fractions.
    """
    values = _grey(values)
    if values.ndim == 3:
        colours = values[(values != 0).any(axis=-1)]
        return {tuple(colour) for colour in np.unique(colours, axis=0).astype(int).tolist()}
    whole = _whole(path, values)
    return set(np.unique(whole[whole != 0]).astype(int).tolist())


def _grey(values: NDArray[Any]) -> NDArray[Any]:
    """Drop the channels of a grey mask that was saved in colour."""
    is_grey = values.ndim == 3 and (values == values[..., :1]).all()
    return values[..., 0] if is_grey else values


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    return np.where(np.isfinite(values), values, 0) if values.dtype.kind == "f" else values


def _whole(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind != "f":
        return values
    values = _finite(values)
    nearest = np.rint(values)
    fractions = values[np.abs(values - nearest) > ROUNDING]
    if fractions.size:
        raise ImageReadError.of(
            path,
            found=f"a mask of which {fractions.size} of {counted(values.size, 'value')} "
            f"{agree(fractions.size, 'is a fraction', 'are fractions')}, from {fractions.min():g} to "
            f"{fractions.max():g}",
            expected=f"whole numbers (to {ROUNDING:g}), as labels are",
            remedy="Interpolation leaves such behind: save the mask resampled by nearest neighbour, or say above which "
            "value it begins with mask_threshold, such as 0.5.",
        )
    return np.asarray(nearest)
