"""Scores without a model, which keep everybody honest: what they reach needs no anomaly detection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

_SIDE = 32


class TrivialScorer(Protocol):
    """Learns from normal images, (3, H, W) in [0, 1], and scores others.

    Attributes:
        random: Whether the seed matters.
    """

    random: ClassVar[bool]

    def __init__(self, seed: int) -> None: ...

    def fit(self, images: Iterable[Tensor]) -> None:
        """Look at the normal training images."""

    def score(self, image: Tensor) -> float:
        """Score an image; higher is more abnormal."""


class NearestThumbnail:
    """Euclidean distance to the nearest normal training image, both at 32x32 pixels."""

    random: ClassVar[bool] = False

    def __init__(self, seed: int) -> None:
        del seed
        self._known = torch.empty(0)

    def fit(self, images: Iterable[Tensor]) -> None:
        """Keep the thumbnails."""
        self._known = torch.stack([_thumbnail(image) for image in images])

    def score(self, image: Tensor) -> float:
        """Distance to the nearest."""
        return float(torch.cdist(_thumbnail(image)[None], self._known).min())


class _Deviation:
    """How far a number is from the mean of the normal training images.

    Two-sided: the direction in which anomalies deviate is a label, which one-class models do not have either. (The
    audit, which has the labels, reports the better direction.)
    """

    random: ClassVar[bool] = False

    def __init__(self, seed: int) -> None:
        del seed
        self._mean = 0.0

    @staticmethod
    def measure(image: Tensor) -> float:
        """The number."""
        raise NotImplementedError

    def fit(self, images: Iterable[Tensor]) -> None:
        """Take the mean."""
        self._mean = float(np.mean([self.measure(image) for image in images]))

    def score(self, image: Tensor) -> float:
        """Distance from the mean."""
        return abs(self.measure(image) - self._mean)


class MeanIntensity(_Deviation):
    """How far the mean grey value is from that of normal training images."""

    @staticmethod
    def measure(image: Tensor) -> float:
        """Mean grey value."""
        return float(image.mean())


class Sharpness(_Deviation):
    """How far the mean difference of neighbouring pixels is from that of normal training images."""

    @staticmethod
    def measure(image: Tensor) -> float:
        """Mean absolute difference to the lower and to the right neighbour."""
        grey = image.mean(dim=0)
        return float(grey.diff(dim=0).abs().mean() + grey.diff(dim=1).abs().mean())


class RandomScore:
    """A number that has nothing to do with the image."""

    random: ClassVar[bool] = True

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def fit(self, images: Iterable[Tensor]) -> None:
        """Learn nothing."""

    def score(self, image: Tensor) -> float:
        """Draw a number."""
        del image
        return float(self._generator.random())


_KINDS: tuple[type[TrivialScorer], ...] = (NearestThumbnail, Sharpness, MeanIntensity, RandomScore)
TRIVIAL = {kind.__name__: kind for kind in _KINDS}


def _thumbnail(image: Tensor) -> Tensor:
    return F.interpolate(image[None].float(), (_SIDE, _SIDE), mode="area").flatten()
