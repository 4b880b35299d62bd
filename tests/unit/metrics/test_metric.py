"""What all metrics share."""

import inspect

import numpy as np
import pytest
import torch

from anomalib_medical import metrics
from anomalib_medical.metrics import Metric, accuracy, image_auroc, sensitivity, specificity
from anomalib_medical.metrics.bootstrap import difference, mean_of

EVERY = {name: each for name in metrics.__all__ if isinstance(each := getattr(metrics, name), Metric)}
RNG = np.random.default_rng(0)
LABELS = np.arange(60) % 2
SCORES = RNG.normal(size=(2, 60)) + LABELS
PATIENTS = [f"p{i // 4}" for i in range(60)]


@pytest.mark.parametrize("metric", EVERY.values(), ids=EVERY)
def test_every_metric_says_what_it_takes(metric):
    assert list(inspect.signature(metric).parameters)[-3:] == ["patients", "n_resamples", "seed"]
    assert metric.__doc__
    assert set(metric.needs) <= {0, 1}


def test_an_argument_that_no_metric_has_is_named():
    with pytest.raises(TypeError, match="n_bootstrap"):
        image_auroc([0.1, 0.2], [0, 1], n_bootstrap=10)


def test_the_statistic_is_the_estimate_as_a_function_of_weights():
    weights = np.ones((3, 60))
    weights[1:, :10] = 0
    values = image_auroc.statistic(SCORES[0], LABELS)(weights)
    assert values[0] == image_auroc(SCORES[0], LABELS, n_resamples=0).value
    assert values[1] == values[2] == pytest.approx(image_auroc(SCORES[0, 10:], LABELS[10:], n_resamples=0).value)


def test_statistics_are_averaged_and_subtracted():
    weights = np.ones((1, 60))
    first, second = (image_auroc.statistic(scores, LABELS) for scores in SCORES)
    assert mean_of([first, second])(weights) == pytest.approx((first(weights) + second(weights)) / 2)
    assert difference(first, second)(weights) == pytest.approx(first(weights) - second(weights))


def test_shares_of_images_of_few_patients_have_wider_intervals():
    images = sensitivity(SCORES[0], LABELS, 0.5)
    patients = sensitivity(SCORES[0], LABELS, 0.5, PATIENTS)
    assert images.value == patients.value
    assert (images.n_images, images.n_patients, patients.n_images, patients.n_patients) == (30, 30, 30, 15)
    assert patients.low < patients.value < patients.high


def test_a_share_of_one_is_not_certain():
    found = specificity([0.0] * 40 + [1.0, 1.0], [0] * 40 + [1, 1], 0.5, [f"{i // 4}" for i in range(40)] + ["a", "b"])
    # Wilson's interval of 10 of 10 patients, not of 40 of 40 images.
    assert (found.value, found.low, found.high) == pytest.approx((1, 0.7225, 1), abs=1e-4)


def test_accuracy_needs_no_class():
    assert accuracy([0.1, 0.9], [1, 1], 0.5, n_resamples=0).value == 0.5


def test_doubles_stay_doubles():
    scores = torch.tensor([1.0, 1.0 + 1e-12], dtype=torch.float64)
    assert image_auroc(scores, [0, 1], n_resamples=0).value == 1
