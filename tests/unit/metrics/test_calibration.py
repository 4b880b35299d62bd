"""Calibration against scikit-learn and torchmetrics."""

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import binary_calibration_error

from anomalib_medical.metrics import brier_score, expected_calibration_error, reliability_curve


def sample(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    scores = rng.random(n)
    return scores, (rng.random(n) < scores**2).astype(int)


def test_values_equal_the_references():
    scores, labels = sample()
    expected = binary_calibration_error(torch.from_numpy(scores), torch.from_numpy(labels), n_bins=10, norm="l1")
    assert expected_calibration_error(scores, labels, n_resamples=0).value == pytest.approx(float(expected), abs=1e-6)
    assert brier_score(scores, labels, n_resamples=0).value == pytest.approx(brier_score_loss(labels, scores))


@pytest.mark.parametrize("decimals", [1, 6])
def test_curve_equals_scikit_learn(decimals):
    scores, labels = sample()
    scores = np.round(scores, decimals)
    share, mean = calibration_curve(labels, scores, n_bins=10)
    bins = reliability_curve(scores, labels)
    assert [each.abnormal_share for each in bins] == pytest.approx(share)
    assert [each.mean_score for each in bins] == pytest.approx(mean)
    assert sum(each.n_images for each in bins) == 300


def test_intervals_are_of_patients():
    scores, labels = sample(60)
    patients = [f"{i:02}" for i in range(60)] * 3
    for metric in (brier_score, expected_calibration_error):
        once, clustered = metric(scores, labels), metric(np.tile(scores, 3), np.tile(labels, 3), patients)
        assert once.low < once.high
        assert (clustered.low, clustered.high) == pytest.approx((once.low, once.high))


def test_raw_scores_are_refused():
    with pytest.raises(ValueError, match=r"normalised scores in \[0, 1\], got 0.5 to 3"):
        brier_score([0.5, 3.0], [0, 1])
    with pytest.raises(ValueError, match="2 scores for 1 labels"):
        brier_score([0.5, 0.3], [0])
