"""From raw scores and maps to normalised ones and labels, as the post-processor of the training does it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .manifest import Calibration, Normalization

Values = NDArray[np.float32]


def order_statistic(values: Sequence[float], share: float) -> float:
    """The threshold of n normal scores: the k-th smallest, ``k = ceil((n + 1) * share)``, at most the largest."""
    # The subtraction keeps a product such as 20 * 0.95 = 19.000000000000004 from asking for one rank more.
    rank = math.ceil((len(values) + 1) * share - 1e-9)
    return sorted(values)[min(rank, len(values)) - 1]


def series_score(scores: Sequence[float], top: int = 1) -> float:
    """The score of a series from those of its slices: the mean of the `top` highest, with 1 the highest itself."""
    highest = sorted(scores, reverse=True)[:top]
    return math.fsum(highest) / len(highest)


def normalize(raw: Values, calibration: Calibration, normalization: Normalization) -> Values:
    """Normalise raw values of any shape to [0, 1], in float32 as torch does; without a known range they stay raw."""
    low, high, threshold = (
        _float32(value) for value in (calibration.minimum, calibration.maximum, calibration.threshold)
    )
    raw = np.asarray(raw, dtype=np.float32)
    if normalization == "linear":
        return _linear(raw, low, high, threshold)
    if normalization == "softsign" and not np.isnan(threshold):
        distance = (raw - threshold) / _unit(high - low, threshold)
        return np.asarray(np.float32(0.5) * (1 + distance / (1 + np.abs(distance))), dtype=np.float32)
    return raw


def is_normalized(calibration: Calibration, normalization: Normalization) -> bool:
    """Whether `normalize` brings values to [0, 1], rather than leave them raw."""
    if normalization == "linear":
        return calibration.minimum is not None and calibration.maximum is not None
    return normalization == "softsign" and calibration.threshold is not None


def above(values: Values, calibration: Calibration) -> NDArray[np.bool_] | None:
    """Whether normalised values are abnormal; None without a threshold."""
    if calibration.limit is None or calibration.threshold is None:
        return None
    return np.asarray(np.asarray(values, dtype=np.float32) > np.float32(calibration.limit))


def raw_threshold(calibration: Calibration, normalization: Normalization) -> float | None:
    """Raw value above which an image or a pixel is abnormal, the sensitivity included; None without a threshold."""
    threshold, limit = calibration.threshold, calibration.limit
    if threshold is None or limit is None:
        return None
    span = math.nan
    if calibration.minimum is not None and calibration.maximum is not None:
        span = calibration.maximum - calibration.minimum
    if normalization == "softsign":
        position = 2 * limit - 1
        if abs(position) >= 1:  # no value lies above 1, and every one above 0
            return math.copysign(math.inf, position)
        return float(threshold + position / (1 - abs(position)) * _unit(span, threshold))
    if normalization == "none" or math.isnan(span):
        return limit
    if span == 0 and limit < 0.5:  # of constant scores those at the threshold are normalised to 0.5, and abnormal
        return float(np.nextafter(np.float32(threshold), np.float32(-math.inf)))
    # Normalised scores end at 1: none lies above a limit of 1.
    return math.inf if limit >= 1 else threshold + (limit - 0.5) * span


def _unit(span: Any, threshold: Any) -> Any:  # noqa: ANN401 - float, or numpy's scalars to stay in float32
    """The range of the normal scores, or, of one image or constant scores, the threshold's own size."""
    return span if span > 0 else np.maximum(np.abs(threshold), np.float32(1e-6))


def _linear(raw: Values, low: Any, high: Any, threshold: Any) -> Values:  # noqa: ANN401 - numpy's scalars
    span = high - low
    if np.isnan(span):
        return raw
    if np.isnan(threshold):
        threshold = (high + low) / 2
    if span == 0:
        return np.asarray(np.float32(0.5) * (1 + np.sign(raw - threshold)), dtype=np.float32)
    return np.asarray(np.clip((raw - threshold) / span + np.float32(0.5), 0, 1), dtype=np.float32)


def _float32(value: float | None) -> np.float32:
    return np.float32(math.nan if value is None else value)
