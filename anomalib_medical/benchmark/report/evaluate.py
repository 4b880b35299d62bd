"""Metrics of a model on a dataset: the mean over its trainings, with intervals over patients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from anomalib_medical import metrics
from anomalib_medical.benchmark.records import PixelResult
from anomalib_medical.benchmark.report.results import Model, Training
from anomalib_medical.metrics import Estimate
from anomalib_medical.metrics.arrays import to_patient_index
from anomalib_medical.metrics.bootstrap import Statistic, bootstrap, mean_of

N_RESAMPLES = 1000
Make = Callable[[Training], Statistic]


@dataclass(frozen=True)
class Metric:
    """A metric of the report."""

    key: str  # its name in metrics.csv
    title: str  # its name for readers
    make: Make  # from a training to the statistic; raises `ValueError` with the reason where there is none
    # Labels that the test needs images of. Both, but for shares and pixels: of normal images alone, F1 is always 0.
    needs: tuple[int, ...] = (0, 1)


@dataclass(frozen=True)
class Value:
    """A metric of a model."""

    estimate: Estimate | None  # of the mean over the trainings, None where it could not be measured
    trainings: list[float]  # value of each training
    reason: str = ""  # why there is none


def evaluate(model: Model, metric: Metric, n_resamples: int = N_RESAMPLES) -> Value:
    """Compute a metric of a model.

    The interval is of the mean over these trainings on other patients; how much trainings differ is in ``trainings``.
    """
    labels = model.first.labels.astype(bool)
    for label in metric.needs:
        if not (labels == label).any():
            return Value(None, [], f"the test has no {'abnormal' if label else 'normal'} images")
    patients = to_patient_index(model.first.patients, labels.size)
    if metric in PIXEL and (kept := [each.job.pixel_figures.get(metric.key) for each in model.trainings]) and all(kept):
        return _kept([figures for figures in kept if figures], patients.size, np.unique(patients).size)
    try:
        statistics = [metric.make(training) for training in model.trainings]
    except ValueError as error:
        return Value(None, [], str(error).rstrip("."))
    estimate = bootstrap(mean_of(statistics), labels, patients, metric.needs, n_resamples=n_resamples)
    if not math.isfinite(estimate.value):
        return Value(None, [], "its value is no number")
    ones = np.ones((1, labels.size))
    return Value(estimate, [float(statistic(ones)[0]) for statistic in statistics])


def _kept(figures: list[list[float | None]], n_images: int, n_patients: int) -> Value:
    """A figure of pixels that a published copy holds: each training's value, and the interval of their mean."""
    values, lows, highs = ([math.nan if each is None else each for each in part] for part in zip(*figures, strict=True))
    return Value(Estimate(float(np.mean(values)), lows[0], highs[0], n_images, n_patients), values)


def _scores(training: Training) -> tuple[Any, ...]:
    return training.scores, training.labels


def decided(training: Training) -> tuple[Any, ...]:
    """Scores, labels and the threshold from held-out normals."""
    return training.scores, training.labels, training.threshold


def normalised(training: Training) -> tuple[Any, ...]:
    """Normalised scores and labels."""
    return training.normalised, training.labels


def of(metric: metrics.Metric[Any], data: Callable[[Training], tuple[Any, ...]] = _scores) -> Make:
    """A metric of what `data` takes of a training."""
    return lambda training: metric.statistic(*data(training))


def _at(metric: metrics.Metric[Any], target: float) -> Make:
    return of(metric, lambda training: (*_scores(training), target))


def _pixels(training: Training) -> PixelResult:
    if training.pixels is None:
        msg = "no maps, or abnormal images without masks"
        raise ValueError(msg)
    return training.pixels


def _counts(training: Training) -> tuple[Any, ...]:
    return (_pixels(training).counts,)


def _cells(training: Training) -> tuple[Any, ...]:
    cells = _pixels(training)
    if math.isnan(cells.true_positive.sum()):
        msg = "no pixel threshold from held-out normals"
        raise ValueError(msg)
    return cells.true_positive, cells.false_positive, cells.false_negative


RANKING = (
    Metric("image_auroc", "AUROC", of(metrics.image_auroc)),
    Metric("image_ap", "AP", of(metrics.image_average_precision)),
    Metric("sensitivity_at_90", "sens. at 90% spec.", _at(metrics.sensitivity_at_specificity, 0.9)),
    Metric("sensitivity_at_95", "sens. at 95% spec.", _at(metrics.sensitivity_at_specificity, 0.95)),
    Metric("specificity_at_90", "spec. at 90% sens.", _at(metrics.specificity_at_sensitivity, 0.9)),
    Metric("specificity_at_95", "spec. at 95% sens.", _at(metrics.specificity_at_sensitivity, 0.95)),
)
DECISION = (
    Metric("sensitivity", "sensitivity", of(metrics.sensitivity, decided), needs=(1,)),
    Metric("specificity", "specificity", of(metrics.specificity, decided), needs=(0,)),
    Metric("f1", "F1", of(metrics.f1, decided)),
    Metric("accuracy", "accuracy", of(metrics.accuracy, decided), needs=()),
)
PIXEL = (
    Metric("pixel_auroc", "pixel AUROC", of(metrics.pixel_auroc, _counts), needs=()),
    Metric("aupro", "AUPRO (30%)", of(metrics.aupro, _counts), needs=()),
    Metric("dice_mean", "Dice, mean of abnormal images", of(metrics.mean_dice, _cells), needs=()),
    Metric("dice_pooled", "Dice, all pixels", of(metrics.pooled_dice, _cells), needs=()),
)
CALIBRATION = (
    Metric("brier", "Brier score", of(metrics.brier_score, normalised)),
    Metric("ece", "ECE", of(metrics.expected_calibration_error, normalised)),
)
METRICS = (*RANKING, *DECISION, *PIXEL, *CALIBRATION)
