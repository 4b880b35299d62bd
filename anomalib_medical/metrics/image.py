"""Metrics of image scores: of their order, of the decisions at a threshold, and of normalised ones as probabilities.

Throughout, ``scores`` are ``(N,)``, higher is more abnormal, and ``labels`` ``(N,)``, 1 for abnormal. A threshold is
chosen without these images; a score equal to it counts as normal, as in anomalib.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import curves
from .arrays import BoolArray, FloatArray, IntArray, UndefinedMetricError, refuse_without, to_image_scores
from .bootstrap import ratio
from .metric import Sample, metric

_N_BINS = 10


@metric(needs=(0, 1))
def image_auroc(scores: ArrayLike, labels: ArrayLike) -> Sample:
    """Area under the ROC curve: scikit-learn's ``roc_auc_score``."""
    return _ranked(scores, labels, curves.auroc)


@metric(needs=(0, 1))
def image_average_precision(scores: ArrayLike, labels: ArrayLike) -> Sample:
    """Average precision: scikit-learn's ``average_precision_score``.

    Depends on the share of abnormal images, so compare within one test set.
    """
    return _ranked(scores, labels, curves.average_precision)


@metric(needs=(0, 1))
def sensitivity_at_specificity(scores: ArrayLike, labels: ArrayLike, target_specificity: float) -> Sample:
    """Highest sensitivity of the ROC curve where the specificity is at least the target, in (0, 1].

    The point is looked up on the curve of these very images: it describes the curve and is no promise for a threshold;
    for that, see `sensitivity` and `specificity`.
    """
    return _ranked(scores, labels, curves.sensitivity_at_specificity, target_specificity=target_specificity)


@metric(needs=(0, 1))
def specificity_at_sensitivity(scores: ArrayLike, labels: ArrayLike, target_sensitivity: float) -> Sample:
    """Highest specificity of the ROC curve where the sensitivity is at least the target, in (0, 1].

    The point is looked up on the curve of these very images: it describes the curve and is no promise for a threshold;
    for that, see `sensitivity` and `specificity`.
    """
    return _ranked(scores, labels, curves.specificity_at_sensitivity, target_sensitivity=target_sensitivity)


@metric(needs=(0, 1))
def best_f1(scores: ArrayLike, labels: ArrayLike) -> Sample:
    """Largest F1 score over all thresholds: what a threshold fitted on the test set reports."""
    return _ranked(scores, labels, curves.best_f1)


@metric(needs=(0, 1))
def accuracy_at_best_f1(scores: ArrayLike, labels: ArrayLike) -> Sample:
    """Accuracy at the threshold with the largest F1 score: what anomalib reports if it validates on the test set."""
    return _ranked(scores, labels, curves.accuracy_at_best_f1)


def _ranked(scores: ArrayLike, labels: ArrayLike, curve: Callable[..., FloatArray], **target: float) -> Sample:
    for name, value in target.items():
        if not 0 < value <= 1:
            msg = f"{name} must be above 0 and at most 1, got {value}."
            raise ValueError(msg)
    values, abnormal = to_image_scores(scores, labels)
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf) > 0)

    def statistic(weights: FloatArray) -> FloatArray:
        of_normal, of_abnormal = (
            np.add.reduceat((weights * members)[:, order], starts, axis=1) for members in (~abnormal, abnormal)
        )
        return curve(of_normal, of_abnormal, *target.values())

    return Sample(statistic, abnormal)


@metric(needs=(1,))
def sensitivity(scores: ArrayLike, labels: ArrayLike, threshold: float) -> Sample:
    """Share of the abnormal images that score above the threshold."""
    above, abnormal = _decisions(scores, labels, threshold)
    return _share(above & abnormal, abnormal, abnormal)


@metric(needs=(0,))
def specificity(scores: ArrayLike, labels: ArrayLike, threshold: float) -> Sample:
    """Share of the normal images that do not score above the threshold."""
    above, abnormal = _decisions(scores, labels, threshold)
    return _share(~above & ~abnormal, ~abnormal, abnormal)


@metric(needs=())
def accuracy(scores: ArrayLike, labels: ArrayLike, threshold: float) -> Sample:
    """Share of right decisions: scikit-learn's ``accuracy_score``; depends on the share of abnormal images."""
    above, abnormal = _decisions(scores, labels, threshold)
    return _share(above == abnormal, np.ones_like(abnormal), abnormal)


@metric(needs=(0, 1))
def f1(scores: ArrayLike, labels: ArrayLike, threshold: float) -> Sample:
    """F1 score: scikit-learn's ``f1_score``; depends on the share of abnormal images, so compare within one test set.

    Of abnormal images alone it says what share was found, but looks like F1; of normal ones alone it is 0/0.
    """
    above, abnormal = _decisions(scores, labels, threshold)
    # 2 TP / (TP + FP + P)
    return _share(2.0 * (above & abnormal), 1.0 * above + abnormal, abnormal)


def _decisions(scores: ArrayLike, labels: ArrayLike, threshold: float) -> tuple[BoolArray, BoolArray]:
    values, abnormal = to_image_scores(scores, labels)
    if not np.isfinite(threshold):
        msg = f"the threshold must be a finite number, got {threshold}. Was the post-processor fitted?"
        raise UndefinedMetricError(msg)
    return values > threshold, abnormal


def _share(part: ArrayLike, whole: ArrayLike, abnormal: BoolArray) -> Sample:
    """Sums over images of their part and of their whole, divided."""
    parts, wholes = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return Sample(lambda weights: ratio(weights @ parts, weights @ wholes), abnormal)


@metric(needs=())
def brier_score(scores: ArrayLike, labels: ArrayLike) -> Sample:
    """Mean squared distance between normalised score and label: scikit-learn's ``brier_score_loss``.

    Lower is better; 0.25 is what a constant 0.5 gets.
    """
    values, abnormal, _ = _binned(scores, labels)
    return _share((values - abnormal) ** 2, np.ones_like(abnormal), abnormal)


@metric(needs=())
def expected_calibration_error(scores: ArrayLike, labels: ArrayLike) -> Sample:
    """Mean distance between normalised score and share of abnormal images over ten bins, weighted by their images.

    Naeini et al. (2015), "Obtaining well calibrated probabilities using Bayesian binning", for the abnormal class, as
    torchmetrics' ``binary_calibration_error``. Its bootstrap values lie above the estimate (a resample is never better
    calibrated than chance allows), so the interval is wide to the right.
    """
    values, abnormal, bins = _binned(scores, labels)
    surplus = (values - abnormal)[:, None] * (bins[:, None] == np.arange(_N_BINS))
    return Sample(lambda weights: np.abs(weights @ surplus).sum(axis=1) / weights.sum(axis=1), abnormal)


class ReliabilityBin(NamedTuple):
    """Images whose normalised score lies in one bin."""

    mean_score: float
    abnormal_share: float
    n_images: int


def reliability_curve(scores: ArrayLike, labels: ArrayLike) -> list[ReliabilityBin]:
    """Compare normalised score and share of abnormal images in ten bins of equal width, those without images left out.

    anomalib's normalised score is no probability by construction: 0.5 is the threshold and the slope is the range of
    the held-out scores. This says how wrong it would be to read it so on a given test set; it depends on its share of
    abnormal images.

    Returns:
        The bins, ascending: scikit-learn's ``calibration_curve`` with the number of images.
    """
    values, abnormal, bins = _binned(scores, labels)
    refuse_without((), abnormal)
    members = [bins == each for each in np.unique(bins)]
    return [ReliabilityBin(float(values[m].mean()), float(abnormal[m].mean()), int(m.sum())) for m in members]


def _binned(scores: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, BoolArray, IntArray]:
    values, abnormal = to_image_scores(scores, labels)
    if values.size and (values.min() < 0 or values.max() > 1):
        msg = f"calibration is of normalised scores in [0, 1], got {values.min():.4g} to {values.max():.4g}."
        raise ValueError(msg)
    # Bins are closed on the right, as scikit-learn's; the first holds 0 too.
    return values, abnormal, np.searchsorted(np.linspace(0, 1, _N_BINS + 1)[1:-1], values)
