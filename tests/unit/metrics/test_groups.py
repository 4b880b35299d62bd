"""Groups of images, and patient scores against pandas."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_medical.metrics import aggregate_patients
from anomalib_medical.metrics.groups import class_members, group_members


@settings(max_examples=60)
@given(
    rows=st.lists(st.tuples(st.floats(-5, 5), st.booleans(), st.sampled_from("abcde")), min_size=1, max_size=30),
    k=st.integers(1, 4),
)
def test_equals_pandas(rows, k):
    scores, labels, patients = (list(column) for column in zip(*rows, strict=True))
    groups = pd.DataFrame({"score": scores, "label": labels, "patient": patients}).groupby("patient", sort=False)
    expected = {
        "mean": groups.score.mean(),
        "max": groups.score.max(),
        "top_k": groups.score.apply(lambda values: values.nlargest(k).mean()),
    }
    for how, values in expected.items():
        found, abnormal = aggregate_patients(scores, labels, patients, how, k)
        assert found == pytest.approx(values.to_numpy(), abs=1e-12)
        assert abnormal.tolist() == groups.label.max().astype(int).tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], [1], ["a"], "median"), "how must be 'mean', 'max' or 'top_k', got 'median'"),
        (([1.0], [1], ["a"], "top_k", 0), "k must be 1 or more, got 0"),
        (([1.0, 2.0], [1], ["a"]), "2 scores for 1 labels"),
        (([1.0, np.nan], [1, 0], ["a", "b"]), "1 of 2 scores"),
        (([1.0, 2.0], [1, 0], ["a", None]), "1 of 2 images have no patient id"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        aggregate_patients(*arguments)


def test_no_images_are_no_patients():
    scores, labels = aggregate_patients([], [], [])
    assert scores.size == labels.size == 0


def test_each_group_has_its_own_images():
    found = group_members(["a", "b", "a", ""])
    assert {name: members.tolist() for name, members in found.items()} == {
        "": [False, False, False, True],
        "a": [True, False, True, False],
        "b": [False, True, False, False],
    }


def test_each_class_is_told_from_all_normal_images():
    found = class_members([0, 1, 1, 0, 1], ["", "mass", "cyst", "x", "mass"])
    assert {name: members.tolist() for name, members in found.items()} == {
        "cyst": [True, False, True, True, False],
        "mass": [True, True, False, True, True],
    }


def test_labels_that_are_no_labels_make_no_group():
    with pytest.raises(ValueError, match=r"0 .normal. or 1 .abnormal."):
        class_members([0, 1, np.nan], ["a", "a", "a"])
