"""DeLong's test against its published example and a brute force over all pairs of images; Obuchowski's for patients."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from anomalib_medical.metrics import auroc_covariance, compare_auroc, holm, image_auroc

# Albumin, total protein, K-G score and survival of 43 patients: DeLong, DeLong and Clarke-Pearson (1988), table 1.
_TABLE = """3.0 5.8 10 0 3.2 6.3 5 1 3.9 6.8 3 1 2.8 4.8 6 0 3.2 5.8 3 1 0.9 4.0 5 0 2.5 5.7 8 0 1.6 5.6 5 1 3.8 5.7 5 1
3.7 6.7 6 1 3.2 5.4 4 1 3.8 6.6 6 1 4.1 6.6 5 1 3.6 5.7 5 1 4.3 7.0 4 1 3.6 6.7 4 0 2.3 4.4 6 1 4.2 7.6 4 0
4.0 6.6 6 0 3.5 5.8 6 1 3.8 6.8 7 1 3.0 4.7 8 0 4.5 7.4 5 1 3.7 7.4 5 1 3.1 6.6 6 1 4.1 8.2 6 1 4.3 7.0 5 1
4.3 6.5 4 1 3.2 5.1 5 1 2.6 4.7 6 1 3.3 6.8 6 0 1.7 4.0 7 0 3.7 6.1 5 1 3.3 6.3 7 1 4.2 7.7 6 1 3.5 6.2 5 1
2.9 5.7 9 0 2.1 4.8 7 1 2.8 6.2 8 0 4.0 7.0 7 1 3.3 5.7 6 1 3.7 6.9 5 1 3.6 6.6 5 1"""
OVARIAN = np.array(_TABLE.split(), dtype=float).reshape(-1, 4)


def clustered_sample(seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Three models, 40 patients with one to four images; some patients have both classes."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(40), rng.integers(1, 5, size=40))
    labels = np.where(patients % 4 == 3, rng.integers(0, 2, size=patients.size), patients % 2)
    shared = rng.normal(size=40)[patients] + labels
    scores = np.round(shared + rng.normal(size=(3, patients.size)), 1)
    return scores, labels, [str(each) for each in patients]


def brute_force(scores, labels, patients):
    """Obuchowski (1997), equations 3 to 6, written with loops over images and patients."""
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    models, ids = range(len(scores)), sorted(set(patients))
    wins = [[[(s[i] > s[j]) + (s[i] == s[j]) / 2 for j in negative] for i in positive] for s in scores]
    wins = np.array(wins, dtype=float)
    area = wins.mean(axis=(1, 2))
    v10, v01 = wins.mean(axis=2), wins.mean(axis=1)
    a = np.array(
        [
            [sum(v10[m][positive == i].sum() - area[m] for i in positive if patients[i] == p) for p in ids]
            for m in models
        ]
    )
    b = np.array(
        [
            [sum(v01[m][negative == j].sum() - area[m] for j in negative if patients[j] == p) for p in ids]
            for m in models
        ]
    )
    n10 = len({patients[i] for i in positive})
    n01 = len({patients[j] for j in negative})
    total = len(ids)
    covariance = np.empty((len(scores), len(scores)))
    for r in models:
        for s in models:
            s10 = n10 / ((n10 - 1) * len(positive)) * (a[r] * a[s]).sum()
            s01 = n01 / ((n01 - 1) * len(negative)) * (b[r] * b[s]).sum()
            s11 = total / (total - 1) * ((a[r] * b[s]).sum() + (a[s] * b[r]).sum())
            covariance[r, s] = s10 / len(positive) + s01 / len(negative) + s11 / (len(positive) * len(negative))
    return area, covariance


def test_published_example():
    # As printed in the SAS/STAT user's guide, LOGISTIC, "Comparing Receiver Operating Characteristic Curves".
    albumin, protein, score, died = -OVARIAN[:, 0], -OVARIAN[:, 1], OVARIAN[:, 2], OVARIAN[:, 3] == 0
    areas, covariance = auroc_covariance(np.stack([albumin, score, protein]), died)
    assert areas == pytest.approx([0.7366, 0.7258, 0.6478], abs=5e-5)
    assert np.sqrt(np.diag(covariance)) == pytest.approx([0.0927, 0.1028, 0.1000], abs=6e-5)
    first = compare_auroc(albumin, score, died)
    assert (first.difference, first.low, first.high) == pytest.approx((0.0108, -0.1761, 0.1976), abs=6e-5)
    assert first.p_value == pytest.approx(0.9102, abs=5e-5)
    assert compare_auroc(protein, score, died).p_value == pytest.approx(0.4561, abs=5e-5)


@pytest.mark.parametrize("clustered", [False, True])
def test_equals_a_brute_force_with_ties(clustered):
    scores, labels, patients = clustered_sample()
    ids = patients if clustered else [str(i) for i in range(labels.size)]
    areas, covariance = auroc_covariance(scores, labels, ids)
    expected_areas, expected = brute_force(scores, labels, ids)
    assert areas == pytest.approx([roc_auc_score(labels, row) for row in scores], abs=1e-12)
    assert areas == pytest.approx(expected_areas, abs=1e-12)
    assert covariance == pytest.approx(expected, abs=1e-12)
    assert np.allclose(auroc_covariance(scores, labels)[1], covariance) == (not clustered)


def test_repeated_images_of_a_patient_add_no_certainty():
    scores, labels, _ = clustered_sample()
    ids = [str(i) for i in range(labels.size)]
    once = compare_auroc(scores[0], scores[1], labels)
    many = compare_auroc(np.tile(scores[0], 5), np.tile(scores[1], 5), np.tile(labels, 5), ids * 5)
    naive = compare_auroc(np.tile(scores[0], 5), np.tile(scores[1], 5), np.tile(labels, 5))
    assert many.p_value == pytest.approx(once.p_value, abs=1e-9)
    assert naive.p_value < many.p_value


def test_patients_keep_the_size_of_the_test_where_images_do_not():
    rejected = {"patients": 0, "images": 0}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        patients = np.repeat(np.arange(60), 8)
        scores = rng.normal(size=(2, 60))[:, patients] * 2 + rng.normal(size=(2, 480)) + patients % 2
        for name, ids in (("patients", [str(p) for p in patients]), ("images", None)):
            rejected[name] += compare_auroc(scores[0], scores[1], patients % 2, ids).p_value < 0.05
    assert rejected["patients"] / 200 <= 0.10
    assert rejected["images"] / 200 > 0.3


def test_agrees_with_the_bootstrap():
    scores, labels, patients = clustered_sample(3)
    _, covariance = auroc_covariance(scores[:1], labels, patients)
    estimate = image_auroc(scores[0], labels, patients)
    assert (estimate.high - estimate.low) / 3.92 == pytest.approx(math.sqrt(covariance[0, 0]), rel=0.15)


def test_trainings_are_averaged():
    scores, labels, patients = clustered_sample()
    found = compare_auroc(scores[:2], scores[2], labels, patients)
    areas, covariance = auroc_covariance(scores, labels, patients)
    assert found.first == pytest.approx(areas[:2].mean())
    contrast = np.array([0.5, 0.5, -1])
    assert (found.high - found.low) / 2 == pytest.approx(
        1.959964 * math.sqrt(contrast @ covariance @ contrast), rel=1e-6
    )


def test_equal_scores_do_not_differ():
    scores, labels, patients = clustered_sample()
    found = compare_auroc(scores[0], scores[0] * 2, labels, patients)
    assert (found.difference, found.p_value) == (0, 1)


def test_one_patient_of_a_class_has_no_test():
    found = compare_auroc([0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0, 0, 1])
    assert math.isnan(found.p_value)
    assert found.difference == 1


def test_holm_of_a_worked_example():
    # Holm (1979) steps down: 0.01 * 4, 0.02 * 3, 0.03 * 2 kept at 0.06, 0.04 * 1 kept at 0.06.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    adjusted = holm([0.2, math.nan, 0.9])
    assert adjusted[0] == pytest.approx(0.4)
    assert math.isnan(adjusted[1])


def test_different_images_are_refused():
    with pytest.raises(ValueError, match="scores of 2 and of 3 images"):
        compare_auroc([0.1, 0.2], [0.1, 0.2, 0.3], [0, 1])
    with pytest.raises(ValueError, match="2 normal and 0 abnormal"):
        compare_auroc([0.1, 0.2], [0.1, 0.2], [0, 0])
