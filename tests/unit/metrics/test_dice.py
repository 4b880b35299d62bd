"""Dice against scikit-learn's F1 over pixels."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from anomalib_medical.metrics import mean_dice, pooled_dice


def counts(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = rng.random((12, 10, 10)) < np.repeat([0, 0.2, 0.4], 4)[:, None, None]
    marks = rng.random(masks.shape) + 0.5 * masks > 0.8
    sums = ((a & b).sum(axis=(1, 2)) for a, b in ((masks, marks), (~masks, marks), (masks, ~marks)))
    return masks, marks, *sums


def test_values_equal_scikit_learn():
    masks, marks, *cells = counts()
    assert pooled_dice(*cells, n_resamples=0).value == pytest.approx(f1_score(masks.ravel(), marks.ravel()))
    expected = np.mean([f1_score(a.ravel(), b.ravel()) for a, b in zip(masks[4:], marks[4:], strict=True)])
    assert mean_dice(*cells, n_resamples=0).value == pytest.approx(expected)


def test_false_marks_on_normal_images_count_in_the_pooled_one_only():
    cells = [np.array(row) for row in ([50, 0], [0, 100], [50, 0])]
    assert mean_dice(*cells, n_resamples=0).value == pytest.approx(2 / 3)
    assert pooled_dice(*cells, n_resamples=0).value == pytest.approx(0.4)


@pytest.mark.parametrize("metric", [pooled_dice, mean_dice])
def test_intervals_are_of_patients(metric):
    cells = counts()[2:]
    patients = [f"{i:02}" for i in range(12)] * 3
    once, clustered = metric(*cells), metric(*(np.tile(each, 3) for each in cells), patients)
    assert once.low < once.value < once.high
    assert (clustered.low, clustered.high) == pytest.approx((once.low, once.high))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (([1, 2], [1], [1, 2]), "counts of 2, 1, 2 images"),
        (([1, np.nan], [1, 1], [1, 2]), "no threshold to count at"),
        (([0, 0], [1, 1], [0, 0]), "needs an abnormal pixel, got none in 2 images"),
    ],
)
def test_bad_input_is_named(cells, message):
    with pytest.raises(ValueError, match=message):
        pooled_dice(*cells)
