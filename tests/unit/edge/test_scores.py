"""The runtime's normalisation, in numpy, against the post-processors of the training."""

import math

import numpy as np
import pytest
import torch
from anomalib.data import InferenceBatch
from anomalib.post_processing import PostProcessor

from anomalib_medical import MedicalPostProcessor
from anomalib_medical.edge.manifest import Calibration
from anomalib_medical.edge.scores import above, normalize, order_statistic, raw_threshold
from anomalib_medical.post_processing import device_facts
from anomalib_medical.post_processing import raw_threshold as raw_threshold_of_training

RAW = torch.tensor([-3.0, 0.0, 0.1, 0.3, 0.31, 0.5, 0.9, 40.0])
RANGES = {"usual": (0.3, 0.1, 0.5), "no range": (0.3, math.nan, math.nan), "constant": (0.3, 0.3, 0.3)}


def post_processor(kind, ranges, **kwargs):
    made = PostProcessor(**kwargs) if kind == "anomalib" else MedicalPostProcessor(threshold=kind, **kwargs)
    for part in ("image", "pixel"):
        for name, value in zip((f"_{part}_threshold", f"{part}_min", f"{part}_max"), ranges, strict=True):
            getattr(made, name).fill_(value)
    return made


@pytest.mark.parametrize("sensitivity", [0.5, 0.3, 0.0, 1.0])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("ranges", RANGES.values(), ids=RANGES)
@pytest.mark.parametrize("kind", ["specificity", "f1", "anomalib"])
def test_scores_maps_and_labels_are_those_of_the_training(kind, ranges, normalized, sensitivity):
    made = post_processor(
        kind, ranges, enable_normalization=normalized, image_sensitivity=sensitivity, pixel_sensitivity=sensitivity
    )
    expected = made(InferenceBatch(pred_score=RAW, anomaly_map=RAW[None, None, None]))
    facts = device_facts(made)
    scores = normalize(RAW.numpy(), facts.image, facts.normalization)
    maps = normalize(RAW[None, None, None].numpy(), facts.pixel, facts.normalization)
    np.testing.assert_allclose(scores, expected.pred_score.numpy(), rtol=0, atol=1e-7)
    np.testing.assert_allclose(maps, expected.anomaly_map.numpy(), rtol=0, atol=1e-7)
    np.testing.assert_array_equal(above(scores, facts.image), expected.pred_label.numpy())
    np.testing.assert_array_equal(above(maps, facts.pixel), expected.pred_mask.numpy())
    for of, labels in (("image", expected.pred_label), ("pixel", expected.pred_mask.flatten())):
        np.testing.assert_array_equal(labels.numpy(), RAW.double().numpy() > raw_threshold_of_training(made, of))
        assert raw_threshold(getattr(facts, of), facts.normalization) == raw_threshold_of_training(made, of)


def test_without_a_threshold_scores_stay_raw_and_nothing_is_called_abnormal():
    made = MedicalPostProcessor()
    facts = device_facts(made)
    np.testing.assert_array_equal(normalize(RAW.numpy(), facts.image, facts.normalization), RAW.numpy())
    assert above(RAW.numpy(), facts.image) is None
    assert raw_threshold(facts.image, facts.normalization) is None
    assert math.isnan(raw_threshold_of_training(made))


@pytest.mark.parametrize("kind", ["none", "invalidated", "no thresholds"])
def test_a_model_that_gives_no_labels_gives_none_on_the_device(kind):
    made = None
    if kind == "invalidated":
        made = post_processor("specificity", RANGES["usual"])
        made.invalidate()
    elif kind == "no thresholds":
        made = post_processor("specificity", RANGES["usual"], enable_thresholding=False)
    facts = device_facts(made)
    assert above(RAW.numpy(), facts.image) is None
    assert raw_threshold(facts.image, facts.normalization) is None
    assert math.isnan(raw_threshold_of_training(made))


@pytest.mark.parametrize(("sensitivity", "expected"), [(0.25, 6.0), (0.5, 2.0), (0.75, -2.0)])
def test_our_raw_threshold_undoes_our_normalisation(sensitivity, expected):
    # Scores of 0.5 * (1 + z / (1 + |z|)) reach 0.75 at z = 1, one range (of 4) above the threshold (of 2).
    made = post_processor("specificity", (2.0, 0.0, 4.0), image_sensitivity=sensitivity)
    assert raw_threshold_of_training(made) == pytest.approx(expected)


@pytest.mark.parametrize(("sensitivity", "abnormal"), [(0.0, False), (1.0, True)])
def test_at_either_end_of_the_sensitivity_all_images_are_judged_alike(sensitivity, abnormal):
    made = post_processor("specificity", RANGES["usual"], image_sensitivity=sensitivity)
    labels = made(InferenceBatch(pred_score=RAW, anomaly_map=RAW[None, None, None])).pred_label
    assert labels.tolist() == (RAW.double() > raw_threshold_of_training(made)).tolist() == [abnormal] * len(RAW)


@pytest.mark.parametrize(
    ("count", "share", "rank"), [(99, 0.95, 95), (19, 0.95, 19), (40, 0.95, 39), (3, 0.95, 3), (1, 0.5, 1)]
)
def test_the_order_statistic_is_that_of_split_conformal_prediction(count, share, rank):
    assert order_statistic(np.random.default_rng(0).permutation(count) + 1, share) == rank


def test_constant_normals_give_the_thresholds_own_size_as_unit():
    # At a limit of 0.75 a score is one unit above the threshold.
    assert raw_threshold(Calibration(-2.0, 1.0, 1.0, 0.75), "softsign") == 0.0
