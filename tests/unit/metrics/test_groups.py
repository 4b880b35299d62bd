"""Metrics within groups."""

import numpy as np

from anomalib_medical.metrics import by_class, by_group, image_auroc

SCORES = np.array([0.1, 0.2, 0.9, 0.8, 0.5, 0.4, 0.3])
LABELS = [0, 0, 1, 1, 0, 1, 0]


def metric(members):
    return image_auroc(SCORES[members], np.array(LABELS)[members], n_resamples=0)


def test_each_group_has_its_own_metric():
    found = by_group(metric, LABELS, ["a", "a", "a", "a", "b", "b", ""])
    assert [(each.group, each.n_normal, each.n_abnormal) for each in found] == [("", 1, 0), ("a", 2, 2), ("b", 1, 1)]
    assert [each.estimate.value for each in found[1:]] == [1, 0]
    assert (found[0].estimate, found[0].reason) == (None, "no abnormal images")


def test_each_class_is_told_from_all_normal_images():
    found = by_class(metric, LABELS, ["", "", "mass", "mass", "x", "cyst", ""])
    assert [(each.group, each.n_normal, each.n_abnormal) for each in found] == [("cyst", 4, 1), ("mass", 4, 2)]
    assert [each.estimate.value for each in found] == [0.75, 1]
