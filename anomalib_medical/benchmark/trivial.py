"""Scores without a model, which keep everybody honest: what they reach needs no anomaly detection."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

_SIDE = 32


def _thumbnail(image: Tensor) -> Tensor:
    return F.interpolate(image[None].float(), (_SIDE, _SIDE), mode="area").flatten()


def _mean(image: Tensor) -> Tensor:
    return image.mean().double()[None]


def _sharpness(image: Tensor) -> Tensor:
    """Mean absolute difference to the lower and to the right neighbour."""
    grey = image.mean(dim=0)
    return (grey.diff(dim=0).abs().mean() + grey.diff(dim=1).abs().mean()).double()[None]


#: Name -> what is measured of an image, None for a random number that has nothing to do with it.
TRIVIAL: dict[str, Callable[[Tensor], Tensor] | None] = {
    "NearestThumbnail": _thumbnail,
    "Sharpness": _sharpness,
    "MeanIntensity": _mean,
    "RandomScore": None,
}


class TrivialScore:
    """Distance of what is measured, to the nearest normal training image's thumbnail or to the mean of a number.

    Two-sided: the direction in which anomalies deviate is a label, which one-class models do not have either. (The
    audit, which has the labels, reports the better direction.)

    Args:
        name: Of `TRIVIAL`.
        seed: Of the random number.
    """

    def __init__(self, name: str, seed: int) -> None:
        self._measure = TRIVIAL[name]
        self._random = np.random.default_rng(seed)
        self._known = torch.empty(0)

    def fit(self, images: Iterable[Tensor]) -> None:
        """Look at the normal training images, (3, H, W) in [0, 1]."""
        if self._measure is not None:
            self._known = torch.stack([self._measure(image) for image in images])
            if self._known.shape[1] == 1:
                self._known = self._known.mean(dim=0, keepdim=True)

    def score(self, image: Tensor) -> float:
        """Score an image; higher is more abnormal."""
        if self._measure is None:
            return float(self._random.random())
        return float(torch.cdist(self._measure(image)[None], self._known).min())
