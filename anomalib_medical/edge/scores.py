"""From raw scores and maps to normalised ones and labels, as the post-processor of the training does it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .manifest import Calibration, Normalization, PostProcessing

Values = NDArray[np.float32]


def normalize(raw: Values, calibration: Calibration, normalization: Normalization) -> Values:
    """Normalise raw values of any shape to [0, 1], in float32 as torch does; without a known range they stay raw."""
    low, high, threshold = (
        _float32(value) for value in (calibration.minimum, calibration.maximum, calibration.threshold)
    )
    raw = np.asarray(raw, dtype=np.float32)
    if normalization == "linear":
        return _linear(raw, low, high, threshold)
    if normalization == "softsign" and not np.isnan(threshold):
        span = high - low
        distance = (raw - threshold) / (span if span > 0 else np.maximum(np.abs(threshold), np.float32(1e-6)))
        return np.asarray(np.float32(0.5) * (1 + distance / (1 + np.abs(distance))), dtype=np.float32)
    return raw


def above(values: Values, calibration: Calibration) -> NDArray[np.bool_] | None:
    """Whether normalised values are abnormal; None without a threshold."""
    if calibration.limit is None or calibration.threshold is None:
        return None
    return np.asarray(np.asarray(values, dtype=np.float32) > np.float32(calibration.limit))


def raw_threshold(post_processing: PostProcessing) -> float | None:
    """Raw score above which an image is abnormal, the sensitivity included; None without a threshold."""
    image = post_processing.image
    if image.threshold is None or image.limit is None:
        return None
    span = math.nan if image.minimum is None or image.maximum is None else image.maximum - image.minimum
    if post_processing.normalization == "softsign":
        position = 2 * image.limit - 1
        unit = span if span > 0 else max(abs(image.threshold), 1e-6)
        return image.threshold + position / (1 - abs(position)) * unit
    if post_processing.normalization == "none" or math.isnan(span):
        return image.limit
    return image.threshold + (image.limit - 0.5) * span


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
