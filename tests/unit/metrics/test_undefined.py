"""Every estimator says that it has no value where it has none: NaN and infinite scores, one class, nothing at all."""

import math

import numpy as np
import pytest

from anomalib_medical import metrics
from anomalib_medical.metrics import UndefinedMetricError

RANKING = {
    "image_auroc": metrics.image_auroc,
    "image_average_precision": metrics.image_average_precision,
    "sensitivity_at_specificity": lambda *given: metrics.sensitivity_at_specificity(*given, 0.9),
    "specificity_at_sensitivity": lambda *given: metrics.specificity_at_sensitivity(*given, 0.9),
    "compare_auroc": lambda scores, labels: metrics.compare_auroc(scores, scores, labels),
    "f1": lambda *given: metrics.f1(*given, 0.5),
}
OTHERS = {
    "accuracy": lambda *given: metrics.accuracy(*given, 0.5),
    "sensitivity": lambda *given: metrics.sensitivity(*given, 0.5),
    "specificity": lambda *given: metrics.specificity(*given, 0.5),
    "brier_score": metrics.brier_score,
    "expected_calibration_error": metrics.expected_calibration_error,
    "reliability_curve": metrics.reliability_curve,
}
EVERY = RANKING | OTHERS


@pytest.mark.parametrize("metric", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_numbers(metric, bad):
    with pytest.raises(UndefinedMetricError, match="1 of 4 scores are nan or infinite"):
        metric([0.1, bad, 0.4, 0.9], [0, 0, 1, 1])


@pytest.mark.parametrize("metric", RANKING.values(), ids=RANKING)
@pytest.mark.parametrize(("label", "told"), [(0, "4 normal and 0 abnormal"), (1, "0 normal and 4 abnormal")])
def test_one_class(metric, label, told):
    with pytest.raises(UndefinedMetricError, match=told):
        metric([0.1, 0.2, 0.4, 0.9], [label] * 4)


@pytest.mark.parametrize("metric", EVERY.values(), ids=EVERY)
def test_nothing(metric):
    with pytest.raises(UndefinedMetricError):
        metric([], [])


@pytest.mark.parametrize("metric", [metrics.f1, metrics.accuracy, metrics.sensitivity, metrics.specificity])
def test_no_threshold(metric):
    with pytest.raises(UndefinedMetricError, match="threshold must be a finite number, got nan"):
        metric([0.1, 0.9], [0, 1], math.nan)


def test_shares_of_one_class_are_shares_of_that_class():
    assert metrics.accuracy([0.1, 0.9], [0, 0], 0.5).value == metrics.specificity([0.1, 0.9], [0, 0], 0.5).value == 0.5
    with pytest.raises(UndefinedMetricError, match="no abnormal images"):
        metrics.sensitivity([0.1, 0.9], [0, 0], 0.5)
    with pytest.raises(UndefinedMetricError, match="no normal images"):
        metrics.specificity([0.1, 0.9], [1, 1], 0.5)


def test_one_patient_has_a_value_and_no_interval():
    found = metrics.image_auroc([0.1, 0.2, 0.4, 0.9], [0, 0, 1, 1], ["a"] * 4)
    assert found.value == 1
    assert math.isnan(found.low)
    assert str(found) == "1.000 [no interval]"
    same = metrics.compare_auroc([0.1, 0.2, 0.4, 0.9], [0.4, 0.2, 0.1, 0.9], [0, 0, 1, 1], ["a"] * 4)
    assert math.isnan(same.p_value)


@pytest.mark.parametrize(
    "counts", [([1.0], [math.inf], [0.0]), ([math.nan], [0.0], [1.0]), ([0.0], [1.0], [0.0]), ([], [], [])]
)
@pytest.mark.parametrize("dice", [metrics.mean_dice, metrics.pooled_dice])
def test_dice(dice, counts):
    with pytest.raises(UndefinedMetricError):
        dice(*counts)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_pixels(bad):
    maps, masks = np.zeros((2, 4, 4)), np.eye(4)[None].repeat(2, 0)
    maps[0, 0, 0] = bad
    with pytest.raises(UndefinedMetricError, match="1 of 32 pixel scores are nan or infinite"):
        metrics.bin_pixels(maps, masks)
    with pytest.raises(UndefinedMetricError, match="32 normal and 0 abnormal"):
        metrics.bin_pixels(np.zeros((2, 4, 4)), np.zeros((2, 4, 4)))
