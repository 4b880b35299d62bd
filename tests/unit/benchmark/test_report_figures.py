"""What the report computes from scores: metrics, comparisons, groups, faults."""

import base64
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from anomalib_medical.benchmark.report.compare import contrasts, group_columns, groups
from anomalib_medical.benchmark.report.evaluate import METRICS, effects, evaluate
from anomalib_medical.benchmark.report.figures import Picture, raincloud, spread
from anomalib_medical.benchmark.report.results import align, load_run
from anomalib_medical.benchmark.run_folder import RunFolder
from tests.helpers.run_folders import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("run"))


def test_a_far_image_does_not_hide_the_others(run):
    model = load_run(run).datasets[0].models[0]
    training = model.trainings[0]
    training.test.loc[0, "raw_score"] = 1000.0
    assert "1 of 60 images lies outside, from " in raincloud(model).caption


def test_faults_are_measured_on_the_same_scores(run):
    model = load_run(run).datasets[0].models[0]
    found = effects(model)
    test = model.first.test
    blurred = roc_auc_score(test.label, test.raw_score + test.label) - roc_auc_score(test.label, test.raw_score)
    assert found["batch_blur"].added.trainings[0] == pytest.approx(blurred)
    assert found["batch_blur"].added.estimate.low > 0
    assert found["checkpoint"].added.estimate.value == pytest.approx(0.1)
    best = max(
        (2 * (test.label[test.raw_score >= level]).sum()) / ((test.raw_score >= level).sum() + test.label.sum())
        for level in test.raw_score
    )
    assert found["test_threshold"].published.trainings[0] == pytest.approx(best)
    accuracy = found["same_as_test_threshold"]
    assert accuracy.added.estimate.value == pytest.approx(
        accuracy.published.estimate.value - accuracy.clean.estimate.value
    )


def test_a_trivial_score_has_no_maps_and_says_so(run):
    models = {model.name: model for model in load_run(run).datasets[0].models}
    by_key = {metric.key: metric for metric in METRICS}
    value = evaluate(models["sharpness"], by_key["aupro"])
    assert (value.estimate, value.reason) == (None, "no maps, or abnormal images without masks")
    assert evaluate(models["scrd"], by_key["aupro"]).estimate.low > 0


def test_an_extreme_rate_has_an_interval(run):
    model = load_run(run).datasets[0].models[0]
    for training in model.trainings:
        training.test["raw_score"] = training.test.label * 10.0
    value = evaluate(model, next(metric for metric in METRICS if metric.key == "sensitivity"))
    assert value.estimate.value == 1
    assert value.estimate.high == pytest.approx(1)
    # Wilson, 15 of 15 patients.
    assert value.estimate.low == pytest.approx(0.796, abs=1e-3)
    perfect = evaluate(model, METRICS[0]).estimate
    assert perfect.value == 1
    assert math.isnan(perfect.low)


def test_models_are_compared_on_the_images_both_have(run):
    models = load_run(run).datasets[0].models
    shorter = models[0].trainings[0].take(np.arange(59, 9, -1))
    first, second = align([shorter, models[1].trainings[0]])
    assert list(first.test.path_hash) == list(second.test.path_hash) == [f"i{i:03}" for i in range(59, 9, -1)]
    assert first.test.image_blur.equals(first.test.raw_score)
    assert len(first.pixels.true_positive) == 50
    found = contrasts(models, models[1])
    assert set(found) == {"scrd", "sharpness"}
    assert found["scrd"].significant
    # Holm's method: the smaller of two p-values counts twice.
    smaller = min(found.values(), key=lambda contrast: contrast.result.p_value)
    assert smaller.adjusted == pytest.approx(2 * smaller.result.p_value, abs=0)
    assert smaller.adjusted > smaller.result.p_value


def test_columns_of_one_value_or_of_too_many_are_no_grouping(run):
    model = load_run(run).datasets[0].models[0]
    training = replace(model.first, test=model.first.test.assign(meta_site="one"))
    assert group_columns(replace(model, trainings=[training])) == (["meta_view"], ["meta_age"])


def test_groups_say_how_many_patients_they_are_of(run):
    models = load_run(run).datasets[0].models
    rows = {row.group: row for row in groups(models[:1], "meta_view")}
    test = models[0].first.test
    assert rows["AP"].n_patients == test[test.meta_view == "AP"].patient_hash.nunique()
    assert rows["AP"].n_normal + rows["AP"].n_abnormal == (test.meta_view == "AP").sum()


def test_labels_of_close_points_do_not_overlap():
    places = spread([0.1, 0.11, 0.5, 0.97, 0.98, 0.99], 0.065)
    assert all(after - before >= 0.065 - 1e-9 for before, after in itertools.pairwise(places))
    assert places[0] == 0.1
    assert places[2] == 0.5
    assert max(places) <= 1


def test_numbers_of_an_axis_stay_whole():
    def draw(axes):
        axes.plot([0.123456, 1], [0, 0.123456])
        axes.set_yticks([0.00125, 0.00375])

    svg = base64.b64decode(Picture("x", "", draw).address().partition(",")[2]).decode()
    assert "0.00125" in svg
    assert "0.00375" in svg
