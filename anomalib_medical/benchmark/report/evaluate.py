"""Metrics of a model on a dataset: the mean over its trainings, with intervals over patients; what each fault adds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from anomalib_medical import metrics
from anomalib_medical.benchmark.records import PixelResult
from anomalib_medical.benchmark.report.results import Model, Training
from anomalib_medical.metrics import Estimate
from anomalib_medical.metrics.arrays import FloatArray, IntArray, to_patient_index
from anomalib_medical.metrics.bootstrap import Statistic, bootstrap, difference, mean_of

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


# What a metric takes of a training.


def _scores(training: Training) -> tuple[Any, ...]:
    return training.scores, training.labels


def _decided(training: Training) -> tuple[Any, ...]:
    return training.scores, training.labels, training.threshold


def _normalised(training: Training) -> tuple[Any, ...]:
    return training.normalised, training.labels


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


def _of(metric: metrics.Metric[Any], data: Callable[[Training], tuple[Any, ...]] = _scores, *more: float) -> Make:
    """A metric of what ``data`` takes of a training, and of more."""
    return lambda training: metric.statistic(*data(training), *more)


RANKING = (
    Metric("image_auroc", "AUROC", _of(metrics.image_auroc)),
    Metric("image_ap", "AP", _of(metrics.image_average_precision)),
    Metric("sensitivity_at_90", "sens. at 90% spec.", _of(metrics.sensitivity_at_specificity, _scores, 0.9)),
    Metric("sensitivity_at_95", "sens. at 95% spec.", _of(metrics.sensitivity_at_specificity, _scores, 0.95)),
    Metric("specificity_at_90", "spec. at 90% sens.", _of(metrics.specificity_at_sensitivity, _scores, 0.9)),
    Metric("specificity_at_95", "spec. at 95% sens.", _of(metrics.specificity_at_sensitivity, _scores, 0.95)),
)
DECISION = (
    Metric("sensitivity", "sensitivity", _of(metrics.sensitivity, _decided), needs=(1,)),
    Metric("specificity", "specificity", _of(metrics.specificity, _decided), needs=(0,)),
    Metric("f1", "F1", _of(metrics.f1, _decided)),
    Metric("accuracy", "accuracy", _of(metrics.accuracy, _decided), needs=()),
)
PIXEL = (
    Metric("pixel_auroc", "pixel AUROC", _of(metrics.pixel_auroc, _counts), needs=()),
    Metric("aupro", "AUPRO (30%)", _of(metrics.aupro, _counts), needs=()),
    Metric("dice_mean", "Dice, mean of abnormal images", _of(metrics.mean_dice, _cells), needs=()),
    Metric("dice_pooled", "Dice, all pixels", _of(metrics.pooled_dice, _cells), needs=()),
)
CALIBRATION = (
    Metric("brier", "Brier score", _of(metrics.brier_score, _normalised)),
    Metric("ece", "ECE", _of(metrics.expected_calibration_error, _normalised)),
)
METRICS = (*RANKING, *DECISION, *PIXEL, *CALIBRATION)


class Fault(NamedTuple):
    """What is done wrong, and the figure that it changes."""

    title: str
    measure: str


FAULTS = {
    "test_threshold": Fault("threshold chosen on the test set (best F1)", "F1"),
    "batch_blur": Fault("maps blurred across the batch, images in class order", "AUROC"),
    "same_as_test_threshold": Fault("test set as validation set: threshold", "accuracy"),
    "same_as_test_normalisation": Fault("test set as validation set: normalisation", "AUROC of the normalised score"),
    "checkpoint": Fault("checkpoint chosen on the test set", "AUROC"),
}


class Effect(NamedTuple):
    """The figure without a fault and with it, and the difference: positive where the fault flatters."""

    clean: Value
    published: Value
    added: Value


def effects(model: Model) -> dict[str, Effect]:
    """Measure all `FAULTS` on a model."""
    found = {}
    for fault, (clean, published) in _MEASURES.items():

        def added(training: Training, clean: Make = clean, published: Make = published) -> Statistic:
            return difference(published(training), clean(training))

        found[fault] = Effect(*(evaluate(model, Metric(fault, fault, make)) for make in (clean, published, added)))
    return found | {"checkpoint": _checkpoint(model)}


def _best_f1_threshold(scores: FloatArray, labels: IntArray) -> float:
    """Find the threshold with the largest F1 score; scores above it are called abnormal."""
    levels = np.unique(scores)
    hits = np.array([labels[scores >= level].sum() for level in levels])
    calls = np.array([(scores >= level).sum() for level in levels])
    best = len(levels) - 1 - int((2 * hits / (calls + labels.sum()))[::-1].argmax())
    return float(np.nextafter(levels[best], -np.inf))


def _normalised_by_test(training: Training) -> tuple[Any, ...]:
    """Normalise as anomalib does (threshold at 0.5, slope from the range, clamped), with the test set as validation."""
    scores, labels = training.scores, training.labels
    width = float(np.ptp(scores)) or 1.0
    return np.clip((scores - _best_f1_threshold(scores, labels)) / width + 0.5, 0, 1), labels


def _blurred(training: Training, column: str) -> tuple[Any, ...]:
    if not training.has_maps:
        msg = "no maps"
        raise ValueError(msg)
    return training.test[column].to_numpy(), training.labels


def _checkpoint(model: Model) -> Effect:
    """The best epoch on the test set against the last one; no interval, as scores of single epochs are not kept."""
    curves = [[row["image_auroc"] for row in each.job.epochs] for each in model.trainings if each.job.epochs]
    if len(set(model.first.labels)) < 2:
        return Effect(*[Value(None, [], "the test has images of one class only")] * 3)
    if len(curves) < len(model.trainings):
        reason = "only with `protocol: published`, for models trained in several epochs"
        return Effect(*[Value(None, [], reason)] * 3)
    last, best = np.array([curve[-1] for curve in curves]), np.array([max(curve) for curve in curves])
    size = len(model.first.test)

    def plain(values: FloatArray) -> Value:
        return Value(Estimate(float(values.mean()), math.nan, math.nan, size, size), list(values))

    return Effect(plain(last), plain(best), plain(best - last))


# The figure without the fault, and with it.
_MEASURES: dict[str, tuple[Make, Make]] = {
    "test_threshold": (_of(metrics.f1, _decided), _of(metrics.best_f1)),
    "batch_blur": (
        _of(metrics.image_auroc, partial(_blurred, column="image_blur")),
        _of(metrics.image_auroc, partial(_blurred, column="batch_blur")),
    ),
    "same_as_test_threshold": (_of(metrics.accuracy, _decided), _of(metrics.accuracy_at_best_f1)),
    "same_as_test_normalisation": (
        _of(metrics.image_auroc, _normalised),
        _of(metrics.image_auroc, _normalised_by_test),
    ),
}
