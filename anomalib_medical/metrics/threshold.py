"""Error rates at a given threshold, with Wilson intervals."""

import numpy as np
from scipy.stats import binomtest

from .arrays import Arrays, BoolArray, to_labels, to_scores
from .estimate import Estimate


def sensitivity(scores: Arrays, labels: Arrays, threshold: float, *, level: float = 0.95) -> Estimate:
    """Share of the abnormal images that score above the threshold.

    Args:
        scores: Image scores ``(N,)``, higher is more abnormal.
        labels: ``(N,)``, 1 for abnormal. Normal images are left out.
        threshold: Chosen without these images; a score equal to it counts as normal, as in anomalib.
        level: Coverage of the interval.

    Returns:
        The share with the Wilson score interval, which takes images as independent: where patients have several it is
        too narrow.
    """
    above, abnormal = _above(scores, labels, threshold)
    return _share(above[abnormal], "abnormal", level)


def specificity(scores: Arrays, labels: Arrays, threshold: float, *, level: float = 0.95) -> Estimate:
    """Share of the normal images that do not score above the threshold.

    Args:
        scores: Image scores ``(N,)``, higher is more abnormal.
        labels: ``(N,)``, 1 for abnormal. Abnormal images are left out.
        threshold: Chosen without these images; a score equal to it counts as normal, as in anomalib.
        level: Coverage of the interval.

    Returns:
        The share with the Wilson score interval, which takes images as independent: where patients have several it is
        too narrow.
    """
    above, abnormal = _above(scores, labels, threshold)
    return _share(~above[~abnormal], "normal", level)


def _above(scores: Arrays, labels: Arrays, threshold: float) -> tuple[BoolArray, BoolArray]:
    values, abnormal = to_scores(scores).reshape(-1), to_labels(labels).reshape(-1)
    if values.shape != abnormal.shape:
        msg = f"got {values.size} scores for {abnormal.size} labels."
        raise ValueError(msg)
    if not np.isfinite(threshold):
        msg = f"the threshold must be a finite number, got {threshold}. Was the post-processor fitted?"
        raise ValueError(msg)
    return values > threshold, abnormal


def _share(right: BoolArray, kind: str, level: float) -> Estimate:
    if not right.size:
        msg = f"there are no {kind} images to take a share of."
        raise ValueError(msg)
    hits, total = int(right.sum()), int(right.size)
    interval = binomtest(hits, total).proportion_ci(confidence_level=level, method="wilson")
    return Estimate(hits / total, float(interval.low), float(interval.high), total, total, level)
