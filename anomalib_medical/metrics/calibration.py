"""How far a normalised score may be read as a probability of being abnormal.

anomalib's normalised score is none by construction: 0.5 is the threshold and the slope is the range of the held-out
scores. These figures say how wrong it would be to read it so on a given test set; they depend on its share of abnormal
images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .arrays import Arrays, BoolArray, FloatArray, UndefinedMetricError, to_labels, to_patient_index, to_scores
from .bootstrap import Statistic, bootstrap
from .estimate import Estimate
from .statistics import ratio


@dataclass(frozen=True)
class ReliabilityBin:
    """Images whose score lies in one bin.

    Attributes:
        mean_score: Their mean score.
        abnormal_share: Share of them that is abnormal.
        n_images: Their number.
    """

    mean_score: float
    abnormal_share: float
    n_images: int


def reliability_curve(scores: Arrays, labels: Arrays, n_bins: int = 10) -> list[ReliabilityBin]:
    """Compare score and share of abnormal images in bins of equal width, those without images left out.

    Args:
        scores: Normalised scores ``(N,)`` in [0, 1].
        labels: ``(N,)``, 1 for abnormal.
        n_bins: Number of bins.

    Returns:
        The bins, ascending; scikit-learn's ``calibration_curve`` with the number of images.
    """
    values, abnormal, bins = _binned(scores, labels, n_bins)
    return [
        ReliabilityBin(
            float(values[bins == each].mean()), float(abnormal[bins == each].mean()), int((bins == each).sum())
        )
        for each in np.unique(bins)
    ]


def expected_calibration_error(
    scores: Arrays,
    labels: Arrays,
    patients: Sequence[str | None] | None = None,
    *,
    n_bins: int = 10,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Mean distance between score and share of abnormal images over bins, weighted by their images.

    Naeini et al. (2015), "Obtaining well calibrated probabilities using Bayesian binning", for the abnormal class. Its
    bootstrap values lie above the estimate (a resample is never better calibrated than chance allows), so the interval
    is wide to the right.

    Args:
        scores: Normalised scores ``(N,)`` in [0, 1].
        labels: ``(N,)``, 1 for abnormal.
        patients: Patient of each image; None resamples images.
        n_bins: Number of bins of equal width.
        n_resamples: Number of bootstrap resamples.
        level: Coverage of the interval.
        seed: Seed of the resampling.

    Returns:
        The value of torchmetrics' ``binary_calibration_error`` and its interval.
    """
    abnormal = to_labels(labels).reshape(-1)
    statistic = calibration_error_statistic(scores, labels, n_bins)
    index = to_patient_index(patients, abnormal.size)
    return bootstrap(statistic, abnormal, index, n_resamples=n_resamples, level=level, seed=seed)


def brier_score(
    scores: Arrays,
    labels: Arrays,
    patients: Sequence[str | None] | None = None,
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Mean squared distance between score and label; lower is better, 0.25 is what a constant 0.5 gets.

    Args:
        scores: Normalised scores ``(N,)`` in [0, 1].
        labels: ``(N,)``, 1 for abnormal.
        patients: Patient of each image; None resamples images.
        n_resamples: Number of bootstrap resamples.
        level: Coverage of the interval.
        seed: Seed of the resampling.

    Returns:
        The value of scikit-learn's ``brier_score_loss`` and its interval.
    """
    abnormal = to_labels(labels).reshape(-1)
    index = to_patient_index(patients, abnormal.size)
    return bootstrap(brier_statistic(scores, labels), abnormal, index, n_resamples=n_resamples, level=level, seed=seed)


def brier_statistic(scores: Arrays, labels: Arrays) -> Statistic:
    """Make the statistic of :func:`brier_score`."""
    values, abnormal, _ = _binned(scores, labels, 1)
    squares = (values - abnormal) ** 2
    return lambda weights: ratio(weights @ squares, weights.sum(axis=1))


def calibration_error_statistic(scores: Arrays, labels: Arrays, n_bins: int = 10) -> Statistic:
    """Make the statistic of :func:`expected_calibration_error`."""
    values, abnormal, bins = _binned(scores, labels, n_bins)
    surplus = (values - abnormal)[:, None] * (bins[:, None] == np.arange(n_bins))
    return lambda weights: ratio(np.abs(weights @ surplus).sum(axis=1), weights.sum(axis=1))


def _binned(scores: Arrays, labels: Arrays, n_bins: int) -> tuple[FloatArray, BoolArray, FloatArray]:
    values, abnormal = to_scores(scores).reshape(-1), to_labels(labels).reshape(-1)
    if values.shape != abnormal.shape:
        msg = f"got {values.size} scores for {abnormal.size} labels."
        raise ValueError(msg)
    if not values.size:
        msg = "there are no images to measure calibration on."
        raise UndefinedMetricError(msg)
    if values.min() < 0 or values.max() > 1:
        msg = f"calibration is of normalised scores in [0, 1], got {values.min():.4g} to {values.max():.4g}."
        raise ValueError(msg)
    # Bins are closed on the right, as scikit-learn's; the first holds 0 too.
    bins = np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1], values)
    return values, abnormal, bins.astype(np.float64)
