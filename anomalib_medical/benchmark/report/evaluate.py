"""Metrics of a model on a dataset: the mean over its trainings, with intervals over patients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import binomtest

from anomalib_medical.benchmark.report.results import Model, Training
from anomalib_medical.metrics import Estimate, curves
from anomalib_medical.metrics.arrays import FloatArray, to_patient_index
from anomalib_medical.metrics.bootstrap import Statistic, bootstrap
from anomalib_medical.metrics.calibration import brier_statistic, calibration_error_statistic
from anomalib_medical.metrics.dice import mean_statistic, pooled_statistic
from anomalib_medical.metrics.pixel import aupro_statistic, pixel_auroc_statistic
from anomalib_medical.metrics.statistics import (
    Curve,
    Rate,
    accuracy_rate,
    at_threshold,
    f1_rate,
    mean_of,
    ranking,
    sensitivity_rate,
    specificity_rate,
)

N_RESAMPLES = 1000


@dataclass(frozen=True)
class Metric:
    """A column of a table.

    Attributes:
        key: Its name in metrics.csv.
        title: Its name for readers.
        make: From a training to the statistic; raises `ValueError` with the reason where there is none.
        rate_of: The label whose images this is a share of, None for other metrics.
        of_pixels: Whether it is of pixels. All but these and rates need images of both classes: of normal images alone,
            the F1 score is always 0.
    """

    key: str
    title: str
    make: Callable[[Training], Statistic]
    rate_of: int | None = None
    of_pixels: bool = False


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
    needed = (metric.rate_of,) if metric.rate_of is not None else () if metric.of_pixels else (0, 1)
    for label in needed:
        if not (labels == label).any():
            return Value(None, [], f"the test has no {'abnormal' if label else 'normal'} images")
    if metric.of_pixels and model.first.pixels is None and model.first.job.pixel_figures:
        return _kept(model, metric)
    try:
        statistics = [metric.make(training) for training in model.trainings]
    except ValueError as error:
        return Value(None, [], str(error).rstrip("."))
    patients = to_patient_index(model.first.patients, labels.size)
    estimate = bootstrap(mean_of(statistics), labels, patients, n_resamples=n_resamples)
    if not math.isfinite(estimate.value):
        return Value(None, [], "its value is no number")
    if estimate.low == estimate.high:
        of_class = np.unique(patients[labels == metric.rate_of]).size
        estimate = _without_width(estimate, None if metric.rate_of is None else of_class)
    ones = np.ones((1, labels.size))
    return Value(estimate, [float(statistic(ones)[0]) for statistic in statistics])


def _kept(model: Model, metric: Metric) -> Value:
    """A figure of pixels that a published copy holds."""
    kept = [figures[metric.key] for each in model.trainings if metric.key in (figures := each.job.pixel_figures)]
    if len(kept) < len(model.trainings):
        return Value(None, [], "not in the published copy")
    values = [float(value) for value, *_ in kept if value is not None]
    low, high = (math.nan if end is None else end for end in kept[0][1:])
    patients = to_patient_index(model.first.patients, model.first.labels.size)
    n_patients = int(patients.max()) + 1
    return Value(Estimate(float(np.mean(values)), low, high, patients.size, n_patients), values)


def _without_width(estimate: Estimate, n_patients: int | None) -> Estimate:
    """Replace an interval of no width: that no resample differs does not mean that other patients would not.

    A rate of 0 or 1 gets Wilson's interval with one vote a patient, another metric none.
    """
    low = high = float("nan")
    if n_patients and estimate.value in {0.0, 1.0}:
        wilson = binomtest(round(estimate.value * n_patients), n_patients).proportion_ci(estimate.level, "wilson")
        low, high = float(wilson.low), float(wilson.high)
    return replace(estimate, low=low, high=high)


def _ranked(curve: Curve) -> Callable[[Training], Statistic]:
    return lambda training: ranking(curve, training.scores, training.labels)


def rated(rate: Rate) -> Callable[[Training], Statistic]:
    """A rate at the threshold from held-out normals."""
    return lambda training: at_threshold(rate, training.scores, training.labels, training.threshold)


def _at(curve: Callable[[FloatArray, FloatArray, float], FloatArray], target: float) -> Callable[[Training], Statistic]:
    return _ranked(lambda normal, abnormal: curve(normal, abnormal, target))


def _pixels(training: Training, name: str) -> Statistic:
    if training.pixels is None:
        msg = "no maps, or abnormal images without masks"
        raise ValueError(msg)
    if name == "auroc":
        return pixel_auroc_statistic(training.pixels.counts)
    if name == "aupro":
        return aupro_statistic(training.pixels.counts)
    cells = (training.pixels.true_positive, training.pixels.false_positive, training.pixels.false_negative)
    if any(math.isnan(cell.sum()) for cell in cells):
        msg = "no pixel threshold from held-out normals"
        raise ValueError(msg)
    return (pooled_statistic if name == "pooled" else mean_statistic)(*cells)


RANKING = (
    Metric("image_auroc", "AUROC", _ranked(curves.auroc)),
    Metric("image_ap", "AP", _ranked(curves.average_precision)),
    Metric("sensitivity_at_90", "sens. at 90% spec.", _at(curves.sensitivity_at_specificity, 0.9)),
    Metric("sensitivity_at_95", "sens. at 95% spec.", _at(curves.sensitivity_at_specificity, 0.95)),
    Metric("specificity_at_90", "spec. at 90% sens.", _at(curves.specificity_at_sensitivity, 0.9)),
    Metric("specificity_at_95", "spec. at 95% sens.", _at(curves.specificity_at_sensitivity, 0.95)),
)
DECISION = (
    Metric("sensitivity", "sensitivity", rated(sensitivity_rate), rate_of=1),
    Metric("specificity", "specificity", rated(specificity_rate), rate_of=0),
    Metric("f1", "F1", rated(f1_rate)),
    Metric("accuracy", "accuracy", rated(accuracy_rate)),
)
PIXEL = (
    Metric("pixel_auroc", "pixel AUROC", lambda training: _pixels(training, "auroc"), of_pixels=True),
    Metric("aupro", "AUPRO (30%)", lambda training: _pixels(training, "aupro"), of_pixels=True),
    Metric("dice_mean", "Dice, mean of abnormal images", lambda training: _pixels(training, "mean"), of_pixels=True),
    Metric("dice_pooled", "Dice, all pixels", lambda training: _pixels(training, "pooled"), of_pixels=True),
)
CALIBRATION = (
    Metric("brier", "Brier score", lambda training: brier_statistic(training.normalised, training.labels)),
    Metric("ece", "ECE", lambda training: calibration_error_statistic(training.normalised, training.labels)),
)
METRICS = (*RANKING, *DECISION, *PIXEL, *CALIBRATION)
