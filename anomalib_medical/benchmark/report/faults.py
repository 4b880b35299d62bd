"""What each fault of the published protocols adds to a figure, from the same trainings and the same images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from anomalib_medical.benchmark.report.evaluate import Metric, Value, evaluate, rated
from anomalib_medical.benchmark.report.results import Model, Training
from anomalib_medical.metrics import Estimate, curves
from anomalib_medical.metrics.arrays import FloatArray, IntArray
from anomalib_medical.metrics.bootstrap import Statistic
from anomalib_medical.metrics.statistics import accuracy_rate, difference, f1_rate, ranking


@dataclass(frozen=True)
class Fault:
    """A fault and how its effect is measured.

    Attributes:
        key: Its name in metrics.csv.
        title: What is done wrong.
        measure: The figure it changes.
        clean: The figure without the fault.
        published: The figure with it.
    """

    key: str
    title: str
    measure: str
    clean: Callable[[Training], Statistic]
    published: Callable[[Training], Statistic]


@dataclass(frozen=True)
class Effect:
    """A fault's effect on a model: what it adds is ``added``, positive where it flatters."""

    fault: str
    title: str
    measure: str
    clean: Value
    published: Value
    added: Value


def effects(model: Model) -> list[Effect]:
    """Measure all faults on a model."""
    found = []
    for fault in FAULTS:
        clean, published = (
            evaluate(model, Metric(fault.key, fault.title, make)) for make in (fault.clean, fault.published)
        )
        added = evaluate(model, Metric(fault.key, fault.title, _added(fault)))
        found.append(Effect(fault.key, fault.title, fault.measure, clean, published, added))
    return [*found, _checkpoint(model)]


def best_f1_threshold(scores: FloatArray, labels: IntArray) -> float:
    """Find the threshold with the largest F1 score; scores above it are called abnormal."""
    levels = np.unique(scores)
    hits = np.array([labels[scores >= level].sum() for level in levels])
    calls = np.array([(scores >= level).sum() for level in levels])
    best = len(levels) - 1 - int((2 * hits / (calls + labels.sum()))[::-1].argmax())
    return float(np.nextafter(levels[best], -np.inf))


def _added(fault: Fault) -> Callable[[Training], Statistic]:
    return lambda training: difference(fault.published(training), fault.clean(training))


def _f1_published(training: Training) -> Statistic:
    return ranking(curves.best_f1, training.scores, training.labels)


def _accuracy_published(training: Training) -> Statistic:
    return ranking(curves.accuracy_at_best_f1, training.scores, training.labels)


def _normalised_clean(training: Training) -> Statistic:
    return ranking(curves.auroc, training.normalised, training.labels)


def _normalised_published(training: Training) -> Statistic:
    """Normalise as anomalib does (threshold at 0.5, slope from the range, clamped), with the test set as validation."""
    scores = training.scores
    width = float(np.ptp(scores)) or 1.0
    scores = np.clip((scores - best_f1_threshold(scores, training.labels)) / width + 0.5, 0, 1)
    return ranking(curves.auroc, scores, training.labels)


def _blurred(training: Training, column: str) -> Statistic:
    if not training.has_maps:
        msg = "no maps"
        raise ValueError(msg)
    return ranking(curves.auroc, training.test[column].to_numpy(), training.labels)


def _checkpoint(model: Model) -> Effect:
    """The best epoch on the test set against the last one; no interval, as scores of single epochs are not kept."""
    title, measure = "checkpoint chosen on the test set", "AUROC"
    if any(len(set(each.labels)) < 2 for each in model.trainings):
        nothing = Value(None, [], "the test has images of one class only")
        return Effect("checkpoint", title, measure, nothing, nothing, nothing)
    tables = [[row["image_auroc"] for row in each.job.epochs] for each in model.trainings if each.job.epochs]
    if len(tables) < len(model.trainings):
        nothing = Value(None, [], "only with `protocol: published`, for models trained in several epochs")
        return Effect("checkpoint", title, measure, nothing, nothing, nothing)
    last = [table[-1] for table in tables]
    best = [max(table) for table in tables]
    added = [high - low for high, low in zip(best, last, strict=True)]
    values = [_plain(each, len(model.first.test)) for each in (last, best, added)]
    return Effect("checkpoint", title, measure, *values)


def _plain(values: list[float], n_images: int) -> Value:
    return Value(Estimate(float(np.mean(values)), float("nan"), float("nan"), n_images, n_images), values)


FAULTS = (
    Fault("test_threshold", "threshold chosen on the test set (best F1)", "F1", rated(f1_rate), _f1_published),
    Fault(
        "batch_blur",
        "maps blurred across the batch, images in class order",
        "AUROC",
        lambda training: _blurred(training, "image_blur"),
        lambda training: _blurred(training, "batch_blur"),
    ),
    Fault(
        "same_as_test_threshold",
        "test set as validation set: threshold",
        "accuracy",
        rated(accuracy_rate),
        _accuracy_published,
    ),
    Fault(
        "same_as_test_normalisation",
        "test set as validation set: normalisation",
        "AUROC of the normalised score",
        _normalised_clean,
        _normalised_published,
    ),
)
