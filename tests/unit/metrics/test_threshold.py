"""Rates at a threshold."""

import numpy as np
import pytest

from anomalib_medical.metrics import sensitivity, specificity

SCORES = [0.1, 0.5, 0.6, 0.4, 0.5, 0.9, 0.8]
LABELS = [0, 0, 0, 1, 1, 1, 1]


def test_a_score_at_the_threshold_is_normal():
    assert sensitivity(SCORES, LABELS, 0.5).value == pytest.approx(2 / 4)
    assert specificity(SCORES, LABELS, 0.5).value == pytest.approx(2 / 3)


def test_wilson_interval_of_a_worked_example():
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263 and 0 of 20.
    scores = np.r_[np.ones(81), np.zeros(182), np.zeros(20)]
    labels = np.r_[np.ones(263), np.zeros(20)]
    found = sensitivity(scores, labels, 0.5)
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    kept = specificity(scores, labels, -1)
    assert (kept.value, kept.low, kept.high) == pytest.approx((0, 0, 0.1611), abs=1e-4)


def test_one_class_is_enough_for_its_own_rate():
    assert specificity([0.1, 0.2], [0, 0], 0.15).value == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no abnormal images"):
        sensitivity([0.1, 0.2], [0, 0], 0.15)


@pytest.mark.parametrize(
    ("scores", "labels", "threshold", "message"),
    [
        (SCORES, LABELS, float("nan"), "threshold must be a finite number"),
        ([0.1, float("nan")], [0, 1], 0.5, "1 of 2 scores"),
        ([0.1], [0, 1], 0.5, "1 scores for 2 labels"),
    ],
)
def test_bad_input_is_named(scores, labels, threshold, message):
    with pytest.raises(ValueError, match=message):
        specificity(scores, labels, threshold)
