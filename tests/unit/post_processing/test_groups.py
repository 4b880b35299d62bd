"""Series and patients from images: the same scores as `series.csv` and `patients.csv` have, and their labels."""

import numpy as np
import pytest

from anomalib_medical.edge.manifest import PostProcessing
from anomalib_medical.edge.series_rows import PatientRows, SliceScore, series_row
from anomalib_medical.post_processing.groups import GroupedScore, patients_of, series_of, wholes_of


@pytest.mark.parametrize("top", [1, 3])
def test_scores_are_those_of_the_tables(top):
    """The device, which cannot import this, has the rule too."""
    rng = np.random.default_rng(0)
    images = [
        GroupedScore(f"s{number}", f"p{number // 2}", score, False)
        for number in range(8)
        for score in rng.normal(size=rng.integers(1, 6)).tolist()
    ]
    facts = PostProcessing(series_top=top)
    rows, patients = [], PatientRows(facts)
    for name in dict.fromkeys(image.series for image in images):
        slices = [SliceScore("", image.score) for image in images if image.series == name]
        patient = next(image.patient for image in images if image.series == name)
        rows.append(series_row(name, patient, slices, facts))
        patients.add(rows[-1])
    found = series_of(images, top)
    assert [(each.name, each.score, each.images) for each in found] == [
        (row.series, row.raw_score, row.slices) for row in rows
    ]
    assert [(each.name, each.score, each.images) for each in patients_of(found)] == [
        (row.patient, row.raw_score, row.slices) for row in patients
    ]


def test_one_abnormal_image_makes_its_series_and_its_patient_abnormal():
    images = [GroupedScore(*each) for each in (("a", "p", 9.0, False), ("a", "p", 1.0, True), ("b", "p", 2.0, False))]
    series = series_of(images)
    assert [(each.score, each.abnormal) for each in series] == [(9.0, True), (2.0, False)]
    assert [(each.score, each.abnormal, each.images) for each in patients_of(series)] == [(9.0, True, 3)]


@pytest.mark.parametrize(
    ("series", "patients", "units"),
    [
        ("abcd", "wxyz", set()),  # one image each
        (["", "", "", ""], "wxyz", set()),
        (["", "", "", ""], "wwxy", {"patients"}),  # plain pictures of patients
        ("aabb", "wwxx", {"patients"}),  # a series a patient: nothing new
        ("aabc", "wwwx", {"patients", "series"}),
        ("abcd", "wwxx", {"patients"}),  # an image a series: nothing new
        ("aabb", ["", "", "", ""], {"series"}),  # patients unknown
        ("aabb", ["w", "w", "x", ""], {"series"}),
        (["a", "a", "", ""], "wwxx", {"patients", "series"}),
    ],
)
def test_what_says_nothing_new_is_left_out(series, patients, units):
    images = [GroupedScore(one, patient, 0.0, False) for one, patient in zip(series, patients, strict=True)]
    assert wholes_of(images).keys() == units


def test_nothing_is_made_of_nothing():
    assert wholes_of([]) == {}
