"""Which values of a mask belong to what it marks; the same rule for every format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ImageReadError
from .text import agree, counted

# Numbers this near to a whole one are taken for it: what rounding, compression and scaling leave behind.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class MaskRule:
    """Which values of masks count.

    Values are those that a file stores (NIfTI: scaled by its header), such as 0 to 255 in a PNG of 8 bits. Without
    labels and threshold every pixel that is not 0 (of a colour mask: not black) counts. NaN and infinite values never
    do.
    """

    labels: tuple[int, ...] = ()  # whole numbers that count, alone
    threshold: float | None = None  # values above it count, whole numbers or not

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
        """Return where the values (H, W), or colours (H, W, 3), that a mask stores count; its path is for errors.

        Raises:
            ImageReadError: If there are fractions and no threshold, or colours and labels or a threshold.
        """
        values = _grey(values)
        if values.ndim == 3:
            if self.labels or self.threshold is not None:
                expected = "one number a pixel to compare with mask_labels or mask_threshold"
                remedy = "Save its labels as grey values, or leave the two out: all that is not black counts then."
                raise ImageReadError.of(path, "a mask of colours", expected, remedy)
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
        found = f"a lossy mask with values up to {brightest.max()}"
        where = "where compression is lossy, what is brighter than half belongs to the mask"
        raise ImageReadError.of(path, found, f"white ({largest}) on black: {where}", "Save masks without loss, as PNG.")
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
    fractions = values[np.abs(values - nearest) > _ROUNDING]
    if fractions.size:
        are = agree(fractions.size, "is a fraction", "are fractions")
        ends = f"from {fractions.min():g} to {fractions.max():g}"
        raise ImageReadError.of(
            path,
            f"a mask of which {fractions.size} of {counted(values.size, 'value')} {are}, {ends}",
            f"whole numbers (to {_ROUNDING:g}), as labels are",
            "Interpolation leaves such behind: save the mask resampled by nearest neighbour, or say above which value "
            "it begins with mask_threshold, such as 0.5.",
        )
    return np.asarray(nearest)
