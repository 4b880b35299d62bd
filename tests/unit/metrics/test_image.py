"""Image metrics against scikit-learn, and what their intervals must do."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalib_medical.metrics import Estimate, curves, image_auroc, image_average_precision
from anomalib_medical.metrics.arrays import to_patient_index
from anomalib_medical.metrics.bootstrap import resample_patients

BOTH = pytest.mark.parametrize(
    ("metric", "reference"),
    [(image_auroc, roc_auc_score), (image_average_precision, average_precision_score)],
)


def sample(n: int, seed: int = 0, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    return rng.normal(size=n) + shift * labels, labels


@BOTH
@settings(max_examples=60)
@given(
    rows=st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40).filter(
        lambda rows: len({label for _, label in rows}) == 2
    )
)
def test_equals_scikit_learn_with_ties(metric, reference, rows):
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    assert metric(scores, labels, n_resamples=0).value == pytest.approx(reference(labels, scores), abs=1e-12)


@BOTH
def test_resamples_equal_scikit_learn_weights(metric, reference):
    scores, labels = sample(60)
    patients = [str(i // 3) for i in range(60)]
    index = to_patient_index(patients, 60)
    weights = resample_patients(labels.astype(bool), index, 200, 0)[:, index]
    expected = [reference(labels, scores, sample_weight=row) for row in weights]
    estimate = metric(scores, labels, patients, n_resamples=200)
    assert (estimate.low, estimate.high) == pytest.approx(np.quantile(expected, [0.025, 0.975]), abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_takes_tensors_of_any_precision(dtype):
    scores, labels = sample(50)
    rounded = torch.from_numpy(scores).to(dtype).requires_grad_()
    expected = roc_auc_score(labels, rounded.detach().double().numpy())
    assert image_auroc(rounded, torch.from_numpy(labels), n_resamples=0).value == pytest.approx(expected)


def test_names_of_patients_do_not_move_the_interval():
    scores, labels = sample(60)
    found = {
        str(image_auroc(scores, labels, [name(i // 3) for i in range(60)], n_resamples=200))
        for name in (str, lambda number: f"p-{-number:+03d}", lambda number: f"p-{hash((number,)):x}")
    }
    assert len(found) == 1


def test_seed_decides_the_interval():
    scores, labels = sample(80)
    assert image_auroc(scores, labels, seed=3) == image_auroc(scores, labels, seed=3)
    assert image_auroc(scores, labels, seed=3) != image_auroc(scores, labels, seed=4)


def test_duplicated_images_of_a_patient_add_no_certainty():
    scores, labels = sample(60)
    once = image_auroc(scores, labels)
    patients = [f"{i:02}" for i in range(60)] * 5
    clustered = image_auroc(np.tile(scores, 5), np.tile(labels, 5), patients)
    naive = image_auroc(np.tile(scores, 5), np.tile(labels, 5))
    assert clustered.high - clustered.low == pytest.approx(once.high - once.low, rel=1e-9)
    assert naive.high - naive.low < 0.6 * (clustered.high - clustered.low)
    assert (clustered.n_images, clustered.n_patients, naive.n_patients) == (300, 60, 300)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    truth = 0.5 * (1 + math.erf(1 / 2))
    covered = 0
    for seed in range(200):
        scores, labels = sample(80, seed)
        estimate = image_auroc(scores, labels, n_resamples=200, seed=seed)
        covered += estimate.low <= truth <= estimate.high
    assert 0.88 <= covered / 200 <= 0.99


def test_clustered_interval_covers_where_patients_differ():
    truth = 0.5 * (1 + math.erf(1 / (2 * math.sqrt(5))))
    covered = {"clustered": 0, "naive": 0}
    for seed in range(150):
        rng = np.random.default_rng(seed)
        labels = np.repeat(np.arange(60) % 2, 8)
        # Four fifths of the variance belong to the patient.
        scores = labels + np.repeat(rng.normal(scale=2, size=60), 8) + rng.normal(size=480)
        patients = [str(i // 8) for i in range(480)]
        for name, ids in (("clustered", patients), ("naive", None)):
            estimate = image_auroc(scores, labels, ids, n_resamples=200)
            covered[name] += estimate.low <= truth <= estimate.high
    assert covered["clustered"] / 150 >= 0.88
    assert covered["naive"] / 150 < 0.75


def test_every_resample_has_both_classes():
    # One abnormal patient in fifty: unstratified draws would often miss both of the two.
    labels = np.arange(100) < 2
    drawn = resample_patients(labels, np.arange(100), 1000, seed=0)
    assert (drawn[:, labels].sum(axis=1) == 2).all()
    assert (drawn[:, ~labels].sum(axis=1) == 98).all()


def test_perfect_ranking_is_not_certain():
    # No resample differs, which does not mean that other patients would not.
    estimate = image_auroc(np.arange(20), np.arange(20) >= 10)
    assert (estimate.value, estimate.has_interval) == (1, False)


def test_one_patient_of_a_class_has_no_interval():
    scores, labels = sample(20)
    patients = ["only" if label else str(i) for i, label in enumerate(labels)]
    estimate = image_auroc(scores, labels, patients)
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)
    assert str(estimate).endswith("[no interval]")


def test_resamples_are_computed_together(monkeypatch):
    calls = []
    auroc = curves.auroc

    def counting(of_normal, of_abnormal):
        calls.append(len(of_normal))
        return auroc(of_normal, of_abnormal)

    monkeypatch.setattr(curves, "auroc", counting)
    image_auroc(*sample(600), n_resamples=1000)
    # The estimate itself, then all resamples at once: one by one they would take minutes.
    assert calls == [1, 1000]


def test_prints_value_and_interval():
    assert str(Estimate(0.8123, 0.78, 0.8412, 559, 34)) == "0.812 [0.780, 0.841]"


@pytest.mark.parametrize(
    ("scores", "labels", "patients", "message"),
    [
        ([0.1, 0.2], [0, 0], None, "2 normal and 0 abnormal"),
        ([0.1, 0.2], [1, 1], None, "0 normal and 2 abnormal"),
        ([0.1, float("nan")], [0, 1], None, "1 of 2 scores are nan or infinite"),
        ([0.1, float("inf")], [0, 1], None, "1 of 2 scores are nan or infinite"),
        ([0.1, 0.2, 0.3], [0, 1], None, "3 scores for 2 labels"),
        ([0.1, 0.2], [0, 2], None, "0 .normal. or 1 .abnormal."),
        ([], [], None, "0 normal and 0 abnormal"),
        ([0.1, 0.2], [0, 1], ["a"], "1 patient ids for 2 images"),
        ([0.1, 0.2], [0, 1], ["a", None], "1 of 2 images have no patient id"),
        ([0.1, 0.2], [0, 1], ["a", ""], "1 of 2 images have no patient id"),
    ],
)
def test_bad_input_is_named(scores, labels, patients, message):
    with pytest.raises(ValueError, match=message):
        image_auroc(scores, labels, patients)
