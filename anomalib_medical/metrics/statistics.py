"""Metrics as functions of image weights, which is what the bootstrap resamples.

A statistic is made once from scores and labels and then called with the weights of all resamples together.
"""

from collections.abc import Callable, Sequence

import numpy as np

from .arrays import (
    Arrays,
    BoolArray,
    FloatArray,
    UndefinedMetricError,
    refuse_one_class,
    to_image_scores,
    to_labels,
    to_scores,
)
from .bootstrap import Statistic

Curve = Callable[[FloatArray, FloatArray], FloatArray]
"""From the weights of normal and of abnormal images at ascending score levels, ``(R, K)`` each, to ``(R,)``."""

Rate = Callable[[FloatArray, FloatArray, FloatArray, FloatArray], FloatArray]
"""From true positives, false positives, false negatives and true negatives, ``(R,)`` each, to ``(R,)``."""


def ranking(curve: Curve, scores: Arrays, labels: Arrays) -> Statistic:
    """Make a statistic of the order of the scores.

    Args:
        curve: What to compute from the weights at each score level.
        scores: Image scores ``(N,)``, higher is more abnormal.
        labels: ``(N,)``, 1 for abnormal.

    Raises:
        ValueError: If lengths differ.
        UndefinedMetricError: If a score is not finite or a class is absent.
    """
    values, abnormal = to_image_scores(scores, labels)
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf) > 0)

    def statistic(weights: FloatArray) -> FloatArray:
        of_normal, of_abnormal = (
            np.add.reduceat((weights * members)[:, order], starts, axis=1) for members in (~abnormal, abnormal)
        )
        return curve(of_normal, of_abnormal)

    return statistic


def at_threshold(rate: Rate, scores: Arrays, labels: Arrays, threshold: float) -> Statistic:
    """Make a statistic of the decisions at a threshold.

    Args:
        rate: What to compute from the four counts.
        scores: Image scores ``(N,)``, higher is more abnormal.
        labels: ``(N,)``, 1 for abnormal.
        threshold: Chosen without these images; a score equal to it counts as normal, as in anomalib.

    Raises:
        ValueError: If lengths differ.
        UndefinedMetricError: If a score or the threshold is not finite, there are no images, or, for F1, a class is
            absent.
    """
    above, abnormal = decisions(scores, labels, threshold)
    if rate is f1_rate:
        # Of abnormal images alone it says what share was found, but looks like F1; of normal ones alone it is 0/0.
        refuse_one_class(abnormal)
    if not abnormal.size:
        msg = "there are no images to take a rate of."
        raise UndefinedMetricError(msg)
    cells = [(above & abnormal), (above & ~abnormal), (~above & abnormal), (~above & ~abnormal)]

    def statistic(weights: FloatArray) -> FloatArray:
        return rate(*(weights @ cell.astype(np.float64) for cell in cells))

    return statistic


def decisions(scores: Arrays, labels: Arrays, threshold: float) -> tuple[BoolArray, BoolArray]:
    """Which images lie above a threshold, and which are abnormal, both ``(N,)``.

    Raises:
        ValueError: If lengths differ.
        UndefinedMetricError: If a score or the threshold is not finite.
    """
    values, abnormal = to_scores(scores).reshape(-1), to_labels(labels).reshape(-1)
    if values.shape != abnormal.shape:
        msg = f"got {values.size} scores for {abnormal.size} labels."
        raise ValueError(msg)
    if not np.isfinite(threshold):
        msg = f"the threshold must be a finite number, got {threshold}. Was the post-processor fitted?"
        raise UndefinedMetricError(msg)
    return values > threshold, abnormal


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """Average statistics of the same images, for example those of several seeds of one model."""

    def statistic(weights: FloatArray) -> FloatArray:
        mean: FloatArray = np.mean([each(weights) for each in statistics], axis=0)
        return mean

    return statistic


def difference(first: Statistic, second: Statistic) -> Statistic:
    """Subtract two statistics of the same images, resampled together."""
    return lambda weights: first(weights) - second(weights)


def f1_rate(tp: FloatArray, fp: FloatArray, fn: FloatArray, tn: FloatArray) -> FloatArray:  # noqa: ARG001 - a `Rate`
    """F1 score; 0 where nothing is abnormal nor called so, as scikit-learn's default."""
    return ratio(2 * tp, 2 * tp + fp + fn)


def accuracy_rate(tp: FloatArray, fp: FloatArray, fn: FloatArray, tn: FloatArray) -> FloatArray:
    """Share of right decisions."""
    return ratio(tp + tn, tp + fp + fn + tn)


def sensitivity_rate(tp: FloatArray, fp: FloatArray, fn: FloatArray, tn: FloatArray) -> FloatArray:  # noqa: ARG001
    """Share of the abnormal that is called abnormal."""
    return ratio(tp, tp + fn)


def specificity_rate(tp: FloatArray, fp: FloatArray, fn: FloatArray, tn: FloatArray) -> FloatArray:  # noqa: ARG001
    """Share of the normal that is called normal."""
    return ratio(tn, tn + fp)


def ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Divide; 0 where both are 0."""
    result: FloatArray = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return result
