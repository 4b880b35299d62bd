"""Metrics of a model on a dataset: the mean over its trainings, with intervals over patients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from anomalib_medical import metrics
from anomalib_medical.benchmark.report.results import Model, Training
from anomalib_medical.metrics import Estimate
from anomalib_medical.metrics.arrays import FloatArray, to_patient_index
from anomalib_medical.metrics.bootstrap import Statistic, bootstrap, mean_of, wilson

N_RESAMPLES = 1000


@dataclass(frozen=True)
class Metric:
    """A column of a table.

    Attributes:
        key: Its name in metrics.csv.
        title: Its name for readers.
        make: From a training to the statistic; raises `ValueError` with the reason where there is none.
        needs: The labels without whose images it has no value, as `anomalib_medical.metrics.Metric` has it.
    """

    key: str
    title: str
    make: Callable[[Training], Statistic]
    needs: tuple[int, ...] = (0, 1)


@dataclass(frozen=True)
class Value:
    """A metric of a model.

    Attributes:
        estimate: Mean over the trainings with its interval, None where it could not be measured.
        trainings: Value of each training.
        reason: Why there is none, else "".
    """

    estimate: Estimate | None
    trainings: list[float]
    reason: str = ""


def evaluate(model: Model, metric: Metric, n_resamples: int = N_RESAMPLES) -> Value:
    """Compute a metric of a model.

    The interval is of the mean over these trainings on other patients; how much trainings differ is in ``trainings``.
    """
    labels = model.first.labels.astype(bool)
    for label in metric.needs:
        if not (labels == label).any():
            return Value(None, [], f"the test has no {'abnormal' if label else 'normal'} images")
    try:
        statistics = [metric.make(training) for training in model.trainings]
    except ValueError as error:
        return Value(None, [], str(error).rstrip("."))
    patients = to_patient_index(model.first.patients, labels.size)
    estimate = bootstrap(mean_of(statistics), labels, patients, n_resamples=n_resamples)
    if not math.isfinite(estimate.value):
        return Value(None, [], "its value is no number")
    if estimate.low == estimate.high:
        of_class = np.unique(patients[np.isin(labels, metric.needs)]).size
        estimate = _without_width(estimate, of_class if len(metric.needs) == 1 else None)
    ones = np.ones((1, labels.size))
    return Value(estimate, [float(statistic(ones)[0]) for statistic in statistics])


def threshold_of(training: Training) -> float:
    """Raw image threshold from held-out normals.

    Raises:
        ValueError: If there is none.
    """
    if training.thresholds is None or training.thresholds.image is None:
        msg = "no threshold from held-out normals"
        raise ValueError(msg)
    return training.thresholds.image


def normalised_of(training: Training) -> FloatArray:
    """Normalised scores.

    Raises:
        ValueError: If some are missing.
    """
    if np.isnan(training.normalised).any():
        msg = "no normalised scores"
        raise ValueError(msg)
    return training.normalised


def _without_width(estimate: Estimate, n_patients: int | None) -> Estimate:
    """Replace an interval of no width: that no resample differs does not mean that other patients would not.

    A rate of 0 or 1 gets Wilson's interval with one vote a patient, another metric none.
    """
    low = high = float("nan")
    if n_patients and estimate.value in {0.0, 1.0}:
        low, high = wilson(estimate.value, n_patients)
    return replace(estimate, low=low, high=high)


def _ranked(metric: metrics.Metric[...], *target: float) -> Callable[[Training], Statistic]:
    return lambda training: metric.statistic(training.scores, training.labels, *target)


def rated(metric: metrics.Metric[...]) -> Callable[[Training], Statistic]:
    """A rate at the threshold from held-out normals."""
    return lambda training: metric.statistic(training.scores, training.labels, threshold_of(training))


def _calibrated(metric: metrics.Metric[...]) -> Callable[[Training], Statistic]:
    return lambda training: metric.statistic(normalised_of(training), training.labels)


def _pixels(training: Training, name: str) -> Statistic:
    if training.pixels is None:
        msg = "no maps, or abnormal images without masks"
        raise ValueError(msg)
    if name == "auroc":
        return metrics.pixel_auroc.statistic(training.pixels.counts)
    if name == "aupro":
        return metrics.aupro.statistic(training.pixels.counts)
    cells = (training.pixels.true_positive, training.pixels.false_positive, training.pixels.false_negative)
    if any(math.isnan(cell.sum()) for cell in cells):
        msg = "no pixel threshold from held-out normals"
        raise ValueError(msg)
    return (metrics.pooled_dice if name == "pooled" else metrics.mean_dice).statistic(*cells)


RANKING = (
    Metric("image_auroc", "AUROC", _ranked(metrics.image_auroc)),
    Metric("image_ap", "AP", _ranked(metrics.image_average_precision)),
    Metric("sensitivity_at_90", "sens. at 90% spec.", _ranked(metrics.sensitivity_at_specificity, 0.9)),
    Metric("sensitivity_at_95", "sens. at 95% spec.", _ranked(metrics.sensitivity_at_specificity, 0.95)),
    Metric("specificity_at_90", "spec. at 90% sens.", _ranked(metrics.specificity_at_sensitivity, 0.9)),
    Metric("specificity_at_95", "spec. at 95% sens.", _ranked(metrics.specificity_at_sensitivity, 0.95)),
)
DECISION = (
    Metric("sensitivity", "sensitivity", rated(metrics.sensitivity), metrics.sensitivity.needs),
    Metric("specificity", "specificity", rated(metrics.specificity), metrics.specificity.needs),
    Metric("f1", "F1", rated(metrics.f1)),
    Metric("accuracy", "accuracy", rated(metrics.accuracy), metrics.accuracy.needs),
)
PIXEL = (
    Metric("pixel_auroc", "pixel AUROC", lambda training: _pixels(training, "auroc"), needs=()),
    Metric("aupro", "AUPRO (30%)", lambda training: _pixels(training, "aupro"), needs=()),
    Metric("dice_mean", "Dice, mean of abnormal images", lambda training: _pixels(training, "mean"), needs=()),
    Metric("dice_pooled", "Dice, all pixels", lambda training: _pixels(training, "pooled"), needs=()),
)
CALIBRATION = (
    Metric("brier", "Brier score", _calibrated(metrics.brier_score)),
    Metric("ece", "ECE", _calibrated(metrics.expected_calibration_error)),
)
METRICS = (*RANKING, *DECISION, *PIXEL, *CALIBRATION)
