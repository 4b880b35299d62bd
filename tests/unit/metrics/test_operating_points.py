"""Sensitivity at a specificity and the reverse, F1 and accuracy, against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_recall_curve, roc_curve

from anomalib_medical.metrics import (
    accuracy,
    accuracy_at_best_f1,
    best_f1,
    f1,
    sensitivity_at_specificity,
    specificity_at_sensitivity,
)

ROWS = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


@settings(max_examples=60)
@given(rows=ROWS, target=st.sampled_from([0.5, 0.9, 0.95, 1.0]))
def test_points_are_those_of_the_roc_curve(rows, target):
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    expected = tpr[1 - fpr >= target - 1e-9].max()
    assert sensitivity_at_specificity(scores, labels, target, n_resamples=0).value == pytest.approx(expected)
    expected = (1 - fpr)[tpr >= target - 1e-9].max()
    assert specificity_at_sensitivity(scores, labels, target, n_resamples=0).value == pytest.approx(expected)


@settings(max_examples=60)
@given(rows=ROWS, threshold=st.sampled_from([-4.0, -1.0, 0.5, 3.0]))
def test_rates_equal_scikit_learn(rows, threshold):
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    called = scores > threshold
    expected = f1_score(labels, called, zero_division=0)
    assert f1(scores, labels, threshold, n_resamples=0).value == pytest.approx(expected)
    assert accuracy(scores, labels, threshold, n_resamples=0).value == pytest.approx(accuracy_score(labels, called))


@settings(max_examples=60)
@given(rows=ROWS)
def test_best_f1_is_the_best_of_the_precision_recall_curve(rows):
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    precision, recall, _ = precision_recall_curve(labels, scores)
    total = precision + recall
    expected = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0).max()
    assert best_f1(scores, labels, n_resamples=0).value == pytest.approx(expected)
    found = [accuracy(scores, labels, level - 0.5, n_resamples=0).value for level in np.unique(scores)]
    assert accuracy_at_best_f1(scores, labels, n_resamples=0).value in found


@pytest.mark.parametrize(
    ("metric", "argument"),
    [(f1, 0.5), (accuracy, 0.5), (sensitivity_at_specificity, 0.9), (specificity_at_sensitivity, 0.9)],
)
def test_intervals_are_of_patients(metric, argument):
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    scores = rng.normal(size=80) + labels
    once = metric(scores, labels, argument)
    # Sorted as strings, so that patients are drawn in the order of the images above.
    patients = [f"{i:02}" for i in range(80)] * 4
    clustered = metric(np.tile(scores, 4), np.tile(labels, 4), argument, patients)
    naive = metric(np.tile(scores, 4), np.tile(labels, 4), argument)
    assert once.low < once.value < once.high
    assert (clustered.low, clustered.high) == pytest.approx((once.low, once.high))
    assert naive.high - naive.low < 0.7 * (once.high - once.low)


@pytest.mark.parametrize(
    ("metric", "argument", "message"),
    [
        (sensitivity_at_specificity, 0.0, "target_specificity must be above 0 and at most 1, got 0.0"),
        (specificity_at_sensitivity, 90, "target_sensitivity must be above 0 and at most 1, got 90"),
        (f1, float("inf"), "threshold must be a finite number, got inf"),
    ],
)
def test_bad_arguments_are_named(metric, argument, message):
    with pytest.raises(ValueError, match=message):
        metric([0.1, 0.2], [0, 1], argument)


def test_rates_need_images():
    with pytest.raises(ValueError, match="no images"):
        accuracy([], [], 0.5)


def test_a_share_that_rounds_below_its_target_has_reached_it():
    # One of five abnormal images found: 1 - 4 / 5 is a little less than 0.2.
    scores, labels = [1, 2, 0, 0, 0, 0, 3], [0, 0, 1, 1, 1, 1, 1]
    assert specificity_at_sensitivity(scores, labels, 0.2, n_resamples=0).value == 1
