"""Rates at a threshold: sensitivity and specificity with Wilson intervals, F1 and accuracy with bootstrap ones."""

from collections.abc import Sequence

from scipy.stats import binomtest

from .arrays import Arrays, BoolArray, UndefinedMetricError, to_labels, to_patient_index
from .bootstrap import bootstrap
from .estimate import Estimate
from .statistics import Rate, accuracy_rate, at_threshold, decisions, f1_rate


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
    above, abnormal = decisions(scores, labels, threshold)
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
    above, abnormal = decisions(scores, labels, threshold)
    return _share(~above[~abnormal], "normal", level)


def f1(
    scores: Arrays,
    labels: Arrays,
    threshold: float,
    patients: Sequence[str | None] | None = None,
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """F1 score at a threshold; depends on the share of abnormal images, so compare within one test set.

    Args:
        scores: Image scores ``(N,)``, higher is more abnormal.
        labels: ``(N,)``, 1 for abnormal.
        threshold: Chosen without these images; a score equal to it counts as normal, as in anomalib.
        patients: Patient of each image; None resamples images.
        n_resamples: Number of bootstrap resamples.
        level: Coverage of the interval.
        seed: Seed of the resampling.

    Returns:
        The value of scikit-learn's ``f1_score`` and its interval.

    Raises:
        UndefinedMetricError: If a class is absent, or a score or the threshold is not finite.
    """
    return _estimate(f1_rate, scores, labels, threshold, patients, n_resamples, level, seed)


def accuracy(
    scores: Arrays,
    labels: Arrays,
    threshold: float,
    patients: Sequence[str | None] | None = None,
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Share of right decisions at a threshold; depends on the share of abnormal images.

    Args:
        scores: Image scores ``(N,)``, higher is more abnormal.
        labels: ``(N,)``, 1 for abnormal.
        threshold: Chosen without these images; a score equal to it counts as normal, as in anomalib.
        patients: Patient of each image; None resamples images.
        n_resamples: Number of bootstrap resamples.
        level: Coverage of the interval.
        seed: Seed of the resampling.

    Returns:
        The value of scikit-learn's ``accuracy_score`` and its interval.
    """
    return _estimate(accuracy_rate, scores, labels, threshold, patients, n_resamples, level, seed)


def _estimate(
    rate: Rate,
    scores: Arrays,
    labels: Arrays,
    threshold: float,
    patients: Sequence[str | None] | None,
    n_resamples: int,
    level: float,
    seed: int,
) -> Estimate:
    statistic = at_threshold(rate, scores, labels, threshold)
    abnormal = to_labels(labels).reshape(-1)
    index = to_patient_index(patients, abnormal.size)
    return bootstrap(statistic, abnormal, index, n_resamples=n_resamples, level=level, seed=seed)


def _share(right: BoolArray, kind: str, level: float) -> Estimate:
    if not right.size:
        msg = f"there are no {kind} images to take a share of."
        raise UndefinedMetricError(msg)
    hits, total = int(right.sum()), int(right.size)
    interval = binomtest(hits, total).proportion_ci(confidence_level=level, method="wilson")
    return Estimate(hits / total, float(interval.low), float(interval.high), total, total, level)
