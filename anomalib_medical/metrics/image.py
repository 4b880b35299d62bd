"""Ranking metrics of image scores, with patient-clustered bootstrap intervals."""

from collections.abc import Callable, Sequence

import numpy as np

from . import curves
from .arrays import Arrays, FloatArray, to_image_scores, to_patient_index
from .bootstrap import bootstrap
from .estimate import Estimate


def image_auroc(
    scores: Arrays,
    labels: Arrays,
    patients: Sequence[str | None] | None = None,
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Area under the ROC curve of image scores.

    Args:
        scores: Image scores ``(N,)``, higher is more abnormal.
        labels: ``(N,)``, 1 for abnormal.
        patients: Patient of each image; None resamples images.
        n_resamples: Number of bootstrap resamples.
        level: Coverage of the interval.
        seed: Seed of the resampling.

    Returns:
        The value of scikit-learn's ``roc_auc_score`` and its interval.
    """
    return _ranking(curves.auroc, scores, labels, patients, n_resamples, level, seed)


def image_average_precision(
    scores: Arrays,
    labels: Arrays,
    patients: Sequence[str | None] | None = None,
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Average precision of image scores; depends on the share of abnormal images, so compare within one test set.

    Args:
        scores: Image scores ``(N,)``, higher is more abnormal.
        labels: ``(N,)``, 1 for abnormal.
        patients: Patient of each image; None resamples images.
        n_resamples: Number of bootstrap resamples.
        level: Coverage of the interval.
        seed: Seed of the resampling.

    Returns:
        The value of scikit-learn's ``average_precision_score`` and its interval.
    """
    return _ranking(curves.average_precision, scores, labels, patients, n_resamples, level, seed)


def _ranking(
    curve: Callable[[FloatArray, FloatArray], FloatArray],
    scores: Arrays,
    labels: Arrays,
    patients: Sequence[str | None] | None,
    n_resamples: int,
    level: float,
    seed: int,
) -> Estimate:
    values, abnormal = to_image_scores(scores, labels)
    index = to_patient_index(patients, values.size)
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf) > 0)

    def statistic(weights: FloatArray) -> FloatArray:
        of_normal, of_abnormal = (
            np.add.reduceat((weights * members)[:, order], starts, axis=1) for members in (~abnormal, abnormal)
        )
        return curve(of_normal, of_abnormal)

    return bootstrap(statistic, abnormal, index, n_resamples=n_resamples, level=level, seed=seed)
