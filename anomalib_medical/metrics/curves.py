"""Areas under curves, from weights counted per score level.

Every function takes arrays ``(R, K)``: R resamples, K score levels in ascending order. A level is one distinct score
or a narrow bin of scores; whatever shares a level is a tie.
"""

import numpy as np

from .arrays import FloatArray

# Shares of sums of weights: 0.9 of 10 must count as reached.
_ROUNDING = 1e-9


def auroc(normal: FloatArray, abnormal: FloatArray) -> FloatArray:
    """Area under the ROC curve, ties counting one half (the Mann-Whitney statistic).

    Args:
        normal: Weight of the normal samples at each level, ``(R, K)``.
        abnormal: Weight of the abnormal samples at each level, ``(R, K)``.

    Returns:
        One area per resample, ``(R,)``.
    """
    below = np.cumsum(normal, axis=1) - normal / 2
    area: FloatArray = (abnormal * below).sum(axis=1) / (normal.sum(axis=1) * abnormal.sum(axis=1))
    return area


def average_precision(normal: FloatArray, abnormal: FloatArray) -> FloatArray:
    """Sum of precision times recall step, as scikit-learn's ``average_precision_score``.

    Args:
        normal: Weight of the normal samples at each level, ``(R, K)``.
        abnormal: Weight of the abnormal samples at each level, ``(R, K)``.

    Returns:
        One average precision per resample, ``(R,)``.
    """
    hits = np.cumsum(abnormal[:, ::-1], axis=1)
    calls = hits + np.cumsum(normal[:, ::-1], axis=1)
    precision = np.divide(hits, calls, out=np.zeros_like(hits), where=calls > 0)
    area: FloatArray = (precision * abnormal[:, ::-1]).sum(axis=1) / hits[:, -1]
    return area


def limited_area(x: FloatArray, y: FloatArray, limit: float) -> FloatArray:
    """Area under piecewise linear curves from 0 to ``limit``, divided by ``limit``.

    Args:
        x: Ascending abscissae in [0, 1], ``(R, K)``; the curve starts at the origin, which is not part of them.
        y: Ordinates, ``(R, K)``.
        limit: Where to stop on the x axis.

    Returns:
        One normalised area per resample, ``(R,)``.
    """
    x_from, y_from = (np.pad(values[:, :-1], ((0, 0), (1, 0))) for values in (x, y))
    width = np.clip(x, None, limit) - np.clip(x_from, None, limit)
    full = x - x_from
    share = np.divide(width, full, out=np.zeros_like(full), where=full > 0)
    area: FloatArray = (width * (y_from + (y - y_from) * share / 2)).sum(axis=1) / limit
    return area


def sensitivity_at_specificity(normal: FloatArray, abnormal: FloatArray, target: float) -> FloatArray:
    """Largest share of the abnormal above a level that leaves at least ``target`` of the normal at or below it.

    Args:
        normal: Weight of the normal samples at each level, ``(R, K)``.
        abnormal: Weight of the abnormal samples at each level, ``(R, K)``.
        target: Specificity in (0, 1].

    Returns:
        One sensitivity per resample, ``(R,)``.
    """
    kept, missed = (np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True) for weights in (normal, abnormal))
    found: FloatArray = np.where(kept >= target - _ROUNDING, 1 - missed, 0).max(axis=1)
    return found


def specificity_at_sensitivity(normal: FloatArray, abnormal: FloatArray, target: float) -> FloatArray:
    """Largest share of the normal at or below a level that leaves at least ``target`` of the abnormal above it.

    Args:
        normal: Weight of the normal samples at each level, ``(R, K)``.
        abnormal: Weight of the abnormal samples at each level, ``(R, K)``.
        target: Sensitivity in (0, 1].

    Returns:
        One specificity per resample, ``(R,)``.
    """
    kept, missed = (np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True) for weights in (normal, abnormal))
    found: FloatArray = np.where(1 - missed >= target - _ROUNDING, kept, 0).max(axis=1)
    return found


def best_f1(normal: FloatArray, abnormal: FloatArray) -> FloatArray:
    """Largest F1 score over all thresholds: what a threshold fitted on the test set reports.

    Args:
        normal: Weight of the normal samples at each level, ``(R, K)``.
        abnormal: Weight of the abnormal samples at each level, ``(R, K)``.

    Returns:
        One F1 score per resample, ``(R,)``.
    """
    hits, false = (np.cumsum(weights[:, ::-1], axis=1) for weights in (abnormal, normal))
    # 2 TP + FP + FN = TP + FP + P
    best: FloatArray = (2 * hits / (hits + false + hits[:, -1:])).max(axis=1)
    return best


def accuracy_at_best_f1(normal: FloatArray, abnormal: FloatArray) -> FloatArray:
    """Accuracy at the threshold with the largest F1 score: what anomalib reports if it validates on the test set.

    Args:
        normal: Weight of the normal samples at each level, ``(R, K)``.
        abnormal: Weight of the abnormal samples at each level, ``(R, K)``.

    Returns:
        One accuracy per resample, ``(R,)``.
    """
    hits, false = (np.cumsum(weights[:, ::-1], axis=1) for weights in (abnormal, normal))
    best = (2 * hits / (hits + false + hits[:, -1:])).argmax(axis=1)[:, None]
    right = hits + false[:, -1:] - false
    accuracy: FloatArray = np.take_along_axis(right, best, axis=1)[:, 0] / (hits[:, -1] + false[:, -1])
    return accuracy
