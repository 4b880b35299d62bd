"""What each fault of the published protocols adds to a figure, from the same trainings and the same images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from anomalib_medical import metrics
from anomalib_medical.benchmark.report.evaluate import Make, Metric, Value, decided, evaluate, normalised, of
from anomalib_medical.benchmark.report.results import Model, Training
from anomalib_medical.metrics import Estimate
from anomalib_medical.metrics.arrays import FloatArray, IntArray
from anomalib_medical.metrics.bootstrap import difference


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
        makes = (clean, published, _minus(published, clean))
        found[fault] = Effect(*(evaluate(model, Metric(fault, fault, make)) for make in makes))
    return found | {"checkpoint": _checkpoint(model)}


def best_f1_threshold(scores: FloatArray, labels: IntArray) -> float:
    """Find the threshold with the largest F1 score; scores above it are called abnormal."""
    levels = np.unique(scores)
    hits = np.array([labels[scores >= level].sum() for level in levels])
    calls = np.array([(scores >= level).sum() for level in levels])
    best = len(levels) - 1 - int((2 * hits / (calls + labels.sum()))[::-1].argmax())
    return float(np.nextafter(levels[best], -np.inf))


def _minus(published: Make, clean: Make) -> Make:
    return lambda training: difference(published(training), clean(training))


def _normalised_by_test(training: Training) -> tuple[Any, ...]:
    """Normalise as anomalib does (threshold at 0.5, slope from the range, clamped), with the test set as validation."""
    scores, labels = training.scores, training.labels
    width = float(np.ptp(scores)) or 1.0
    return np.clip((scores - best_f1_threshold(scores, labels)) / width + 0.5, 0, 1), labels


def _blurred(column: str) -> Callable[[Training], tuple[Any, ...]]:
    def take(training: Training) -> tuple[Any, ...]:
        if not training.has_maps:
            msg = "no maps"
            raise ValueError(msg)
        return training.test[column].to_numpy(), training.labels

    return take


def _checkpoint(model: Model) -> Effect:
    """The best epoch on the test set against the last one; no interval, as scores of single epochs are not kept."""
    curves = [[row["image_auroc"] for row in each.job.epochs] for each in model.trainings if each.job.epochs]
    reason = ""
    if any(len(set(each.labels)) < 2 for each in model.trainings):
        reason = "the test has images of one class only"
    elif len(curves) < len(model.trainings):
        reason = "only with `protocol: published`, for models trained in several epochs"
    if reason:
        return Effect(*[Value(None, [], reason)] * 3)
    last, best = np.array([curve[-1] for curve in curves]), np.array([max(curve) for curve in curves])
    size = len(model.first.test)

    def plain(values: FloatArray) -> Value:
        return Value(Estimate(float(values.mean()), math.nan, math.nan, size, size), list(values))

    return Effect(plain(last), plain(best), plain(best - last))


# The figure without the fault, and with it.
_MEASURES: dict[str, tuple[Make, Make]] = {
    "test_threshold": (of(metrics.f1, decided), of(metrics.best_f1)),
    "batch_blur": (of(metrics.image_auroc, _blurred("image_blur")), of(metrics.image_auroc, _blurred("batch_blur"))),
    "same_as_test_threshold": (of(metrics.accuracy, decided), of(metrics.accuracy_at_best_f1)),
    "same_as_test_normalisation": (
        of(metrics.image_auroc, normalised),
        of(metrics.image_auroc, _normalised_by_test),
    ),
}
