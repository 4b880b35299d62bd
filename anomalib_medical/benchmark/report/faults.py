"""What each fault of the published protocols adds to a figure, from the same trainings and the same images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from anomalib_medical import metrics
from anomalib_medical.benchmark.report.evaluate import Metric, Value, decided, evaluate, normalised, of
from anomalib_medical.benchmark.report.results import Model, Training
from anomalib_medical.metrics import Estimate
from anomalib_medical.metrics.arrays import FloatArray, IntArray
from anomalib_medical.metrics.bootstrap import Statistic, difference

_Make = Callable[[Training], Statistic]


@dataclass(frozen=True)
class Effect:
    """A fault's effect on a model: what it adds is ``added``, positive where it flatters."""

    fault: str  # its name in metrics.csv
    title: str  # what is done wrong
    measure: str  # the figure it changes
    clean: Value
    published: Value
    added: Value


def effects(model: Model) -> list[Effect]:
    """Measure all faults on a model."""
    found = []
    for (fault, title, measure), (clean, published) in _FAULTS.items():
        added = _minus(published, clean)
        values = (evaluate(model, Metric(fault, title, make)) for make in (clean, published, added))
        found.append(Effect(fault, title, measure, *values))
    return [*found, Effect("checkpoint", "checkpoint chosen on the test set", "AUROC", *_checkpoint(model))]


def best_f1_threshold(scores: FloatArray, labels: IntArray) -> float:
    """Find the threshold with the largest F1 score; scores above it are called abnormal."""
    levels = np.unique(scores)
    hits = np.array([labels[scores >= level].sum() for level in levels])
    calls = np.array([(scores >= level).sum() for level in levels])
    best = len(levels) - 1 - int((2 * hits / (calls + labels.sum()))[::-1].argmax())
    return float(np.nextafter(levels[best], -np.inf))


def _minus(published: _Make, clean: _Make) -> _Make:
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


def _checkpoint(model: Model) -> tuple[Value, Value, Value]:
    """The best epoch on the test set against the last one; no interval, as scores of single epochs are not kept."""
    curves = [[row["image_auroc"] for row in each.job.epochs] for each in model.trainings if each.job.epochs]
    reason = ""
    if any(len(set(each.labels)) < 2 for each in model.trainings):
        reason = "the test has images of one class only"
    elif len(curves) < len(model.trainings):
        reason = "only with `protocol: published`, for models trained in several epochs"
    if reason:
        nothing = Value(None, [], reason)
        return nothing, nothing, nothing
    last, best = [curve[-1] for curve in curves], [max(curve) for curve in curves]
    n_images = len(model.first.test)

    def plain(values: list[float]) -> Value:
        return Value(Estimate(float(np.mean(values)), math.nan, math.nan, n_images, n_images), values)

    return plain(last), plain(best), plain([high - low for high, low in zip(best, last, strict=True)])


# Key in metrics.csv, what is done wrong, the figure it changes -> that figure without the fault and with it.
_FAULTS: dict[tuple[str, str, str], tuple[_Make, _Make]] = {
    ("test_threshold", "threshold chosen on the test set (best F1)", "F1"): (
        of(metrics.f1, decided),
        of(metrics.best_f1),
    ),
    ("batch_blur", "maps blurred across the batch, images in class order", "AUROC"): (
        of(metrics.image_auroc, _blurred("image_blur")),
        of(metrics.image_auroc, _blurred("batch_blur")),
    ),
    ("same_as_test_threshold", "test set as validation set: threshold", "accuracy"): (
        of(metrics.accuracy, decided),
        of(metrics.accuracy_at_best_f1),
    ),
    ("same_as_test_normalisation", "test set as validation set: normalisation", "AUROC of the normalised score"): (
        of(metrics.image_auroc, normalised),
        of(metrics.image_auroc, _normalised_by_test),
    ),
}
