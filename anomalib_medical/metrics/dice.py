"""Dice of masks at a pixel threshold, from counts per image."""

from collections.abc import Sequence

import numpy as np

from .arrays import Arrays, FloatArray, UndefinedMetricError, to_numpy, to_patient_index
from .bootstrap import Statistic, bootstrap
from .estimate import Estimate
from .statistics import ratio


def pooled_dice(
    true_positive: Arrays,
    false_positive: Arrays,
    false_negative: Arrays,
    patients: Sequence[str | None] | None = None,
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Dice over the pixels of all images together: false marks on normal images count.

    Args:
        true_positive: Abnormal pixels above the threshold in each image, ``(N,)``.
        false_positive: Normal pixels above it, ``(N,)``.
        false_negative: Abnormal pixels not above it, ``(N,)``.
        patients: Patient of each image; None resamples images.
        n_resamples: Number of bootstrap resamples.
        level: Coverage of the interval.
        seed: Seed of the resampling.

    Returns:
        The value of scikit-learn's ``f1_score`` over all pixels, and its interval.
    """
    counts = _counts(true_positive, false_positive, false_negative)
    abnormal = counts[0] + counts[2] > 0
    index = to_patient_index(patients, abnormal.size)
    return bootstrap(pooled_statistic(*counts), abnormal, index, n_resamples=n_resamples, level=level, seed=seed)


def mean_dice(
    true_positive: Arrays,
    false_positive: Arrays,
    false_negative: Arrays,
    patients: Sequence[str | None] | None = None,
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Mean over the abnormal images of each image's Dice: every lesion image counts the same, normal images do not.

    Args:
        true_positive: Abnormal pixels above the threshold in each image, ``(N,)``.
        false_positive: Normal pixels above it, ``(N,)``.
        false_negative: Abnormal pixels not above it, ``(N,)``.
        patients: Patient of each image; None resamples images.
        n_resamples: Number of bootstrap resamples.
        level: Coverage of the interval.
        seed: Seed of the resampling.

    Returns:
        The estimate.
    """
    counts = _counts(true_positive, false_positive, false_negative)
    abnormal = counts[0] + counts[2] > 0
    index = to_patient_index(patients, abnormal.size)
    return bootstrap(mean_statistic(*counts), abnormal, index, n_resamples=n_resamples, level=level, seed=seed)


def pooled_statistic(tp: FloatArray, fp: FloatArray, fn: FloatArray) -> Statistic:
    """Make the statistic of :func:`pooled_dice`."""
    return lambda weights: ratio(2 * (weights @ tp), weights @ (2 * tp + fp + fn))


def mean_statistic(tp: FloatArray, fp: FloatArray, fn: FloatArray) -> Statistic:
    """Make the statistic of :func:`mean_dice`."""
    abnormal = (tp + fn > 0).astype(float)
    each = ratio(2 * tp, 2 * tp + fp + fn) * abnormal
    return lambda weights: ratio(weights @ each, weights @ abnormal)


def _counts(*counts: Arrays) -> list[FloatArray]:
    arrays = [to_numpy(each).astype(float).reshape(-1) for each in counts]
    if len({each.size for each in arrays}) > 1:
        msg = f"got counts of {', '.join(str(each.size) for each in arrays)} images, expected the same number."
        raise ValueError(msg)
    if not all(((each >= 0) & np.isfinite(each)).all() for each in arrays):
        msg = "pixel counts must be 0 or more; nan means that there was no threshold to count at."
        raise UndefinedMetricError(msg)
    if not (arrays[0] + arrays[2]).any():
        msg = f"Dice needs an abnormal pixel, got none in {arrays[0].size} images."
        raise UndefinedMetricError(msg)
    return arrays
