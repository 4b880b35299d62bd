"""Areas and points of curves, from weights counted per score level.

Every function takes the weights of normal and of abnormal samples at each level, ``(R, K)``: R resamples, K score
levels in ascending order, and returns one value per resample, ``(R,)``. A level is one distinct score or a narrow bin
of scores; whatever shares a level is a tie.
"""

import numpy as np

from .arrays import FloatArray
from .bootstrap import ratio

# Shares of sums of weights: 0.9 of 10 must count as reached.
_ROUNDING = 1e-9


def auroc(normal: FloatArray, abnormal: FloatArray) -> FloatArray:
    """Area under the ROC curve, ties counting one half (the Mann-Whitney statistic)."""
    below = np.cumsum(normal, axis=1) - normal / 2
    area: FloatArray = (abnormal * below).sum(axis=1) / (normal.sum(axis=1) * abnormal.sum(axis=1))
    return area


def average_precision(normal: FloatArray, abnormal: FloatArray) -> FloatArray:
    """Sum of precision times recall step, as scikit-learn's ``average_precision_score``."""
    hits, false = _above(abnormal), _above(normal)
    area: FloatArray = (ratio(hits, hits + false) * abnormal[:, ::-1]).sum(axis=1) / hits[:, -1]
    return area


def sensitivity_at_specificity(normal: FloatArray, abnormal: FloatArray, target: float) -> FloatArray:
    """Largest share of the abnormal above a level that leaves at least ``target`` of the normal at or below it."""
    kept, missed = _shares_below(normal), _shares_below(abnormal)
    found: FloatArray = np.where(kept >= target - _ROUNDING, 1 - missed, 0).max(axis=1)
    return found


def specificity_at_sensitivity(normal: FloatArray, abnormal: FloatArray, target: float) -> FloatArray:
    """Largest share of the normal at or below a level that leaves at least ``target`` of the abnormal above it."""
    kept, missed = _shares_below(normal), _shares_below(abnormal)
    found: FloatArray = np.where(1 - missed >= target - _ROUNDING, kept, 0).max(axis=1)
    return found


def best_f1(normal: FloatArray, abnormal: FloatArray) -> FloatArray:
    """Largest F1 score over all thresholds: what a threshold fitted on the test set reports."""
    best: FloatArray = _f1(normal, abnormal).max(axis=1)
    return best


def accuracy_at_best_f1(normal: FloatArray, abnormal: FloatArray) -> FloatArray:
    """Accuracy at the threshold with the largest F1 score: what anomalib reports if it validates on the test set."""
    hits, false = _above(abnormal), _above(normal)
    best = _f1(normal, abnormal).argmax(axis=1)[:, None]
    right = hits + false[:, -1:] - false
    accuracy: FloatArray = np.take_along_axis(right, best, axis=1)[:, 0] / (hits[:, -1] + false[:, -1])
    return accuracy


def limited_area(x: FloatArray, y: FloatArray, limit: float) -> FloatArray:
    """Area under piecewise linear curves from the origin (no part of ``x``) to ``limit``, divided by ``limit``."""
    x_from, y_from = (np.pad(values[:, :-1], ((0, 0), (1, 0))) for values in (x, y))
    width = np.clip(x, None, limit) - np.clip(x_from, None, limit)
    share = ratio(width, x - x_from)
    area: FloatArray = (width * (y_from + (y - y_from) * share / 2)).sum(axis=1) / limit
    return area


def _above(weights: FloatArray) -> FloatArray:
    """Sum at or above each level, the highest level first."""
    return np.cumsum(weights[:, ::-1], axis=1)


def _shares_below(weights: FloatArray) -> FloatArray:
    shares: FloatArray = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
    return shares


def _f1(normal: FloatArray, abnormal: FloatArray) -> FloatArray:
    hits, false = _above(abnormal), _above(normal)
    # 2 TP + FP + FN = TP + FP + P
    f1: FloatArray = 2 * hits / (hits + false + hits[:, -1:])
    return f1
