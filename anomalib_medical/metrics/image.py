"""Ranking metrics of image scores, with patient-clustered bootstrap intervals."""

from collections.abc import Sequence

from . import curves
from .arrays import Arrays, FloatArray, to_labels, to_patient_index
from .bootstrap import bootstrap
from .estimate import Estimate
from .statistics import Curve, ranking


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
    return _estimate(curves.auroc, scores, labels, patients, n_resamples, level, seed)


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
    return _estimate(curves.average_precision, scores, labels, patients, n_resamples, level, seed)


def sensitivity_at_specificity(
    scores: Arrays,
    labels: Arrays,
    target_specificity: float,
    patients: Sequence[str | None] | None = None,
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Sensitivity at a given specificity.

    The point is looked up on the ROC curve of these very images, so this describes the curve and is no promise for a
    threshold; for that, see :func:`sensitivity` and :func:`specificity`.

    Args:
        scores: Image scores ``(N,)``, higher is more abnormal.
        labels: ``(N,)``, 1 for abnormal.
        target_specificity: At least this specificity, in (0, 1].
        patients: Patient of each image; None resamples images.
        n_resamples: Number of bootstrap resamples.
        level: Coverage of the interval.
        seed: Seed of the resampling.

    Returns:
        The highest sensitivity of scikit-learn's ``roc_curve`` there, and its interval.
    """
    _check_share(target_specificity, "target_specificity")

    def curve(normal: FloatArray, abnormal: FloatArray) -> FloatArray:
        return curves.sensitivity_at_specificity(normal, abnormal, target_specificity)

    return _estimate(curve, scores, labels, patients, n_resamples, level, seed)


def specificity_at_sensitivity(
    scores: Arrays,
    labels: Arrays,
    target_sensitivity: float,
    patients: Sequence[str | None] | None = None,
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Specificity at a given sensitivity.

    The point is looked up on the ROC curve of these very images, so this describes the curve and is no promise for a
    threshold; for that, see :func:`sensitivity` and :func:`specificity`.

    Args:
        scores: Image scores ``(N,)``, higher is more abnormal.
        labels: ``(N,)``, 1 for abnormal.
        target_sensitivity: At least this sensitivity, in (0, 1].
        patients: Patient of each image; None resamples images.
        n_resamples: Number of bootstrap resamples.
        level: Coverage of the interval.
        seed: Seed of the resampling.

    Returns:
        The highest specificity of scikit-learn's ``roc_curve`` there, and its interval.
    """
    _check_share(target_sensitivity, "target_sensitivity")

    def curve(normal: FloatArray, abnormal: FloatArray) -> FloatArray:
        return curves.specificity_at_sensitivity(normal, abnormal, target_sensitivity)

    return _estimate(curve, scores, labels, patients, n_resamples, level, seed)


def _check_share(value: float, name: str) -> None:
    if not 0 < value <= 1:
        msg = f"{name} must be above 0 and at most 1, got {value}."
        raise ValueError(msg)


def _estimate(
    curve: Curve,
    scores: Arrays,
    labels: Arrays,
    patients: Sequence[str | None] | None,
    n_resamples: int,
    level: float,
    seed: int,
) -> Estimate:
    statistic = ranking(curve, scores, labels)
    abnormal = to_labels(labels).reshape(-1)
    index = to_patient_index(patients, abnormal.size)
    return bootstrap(statistic, abnormal, index, n_resamples=n_resamples, level=level, seed=seed)
