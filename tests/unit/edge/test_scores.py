"""The runtime's normalisation, in numpy, against the post-processors of the training."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import InferenceBatch
from anomalib.post_processing import PostProcessor

from anomalib_medical import MedicalPostProcessor
from anomalib_medical.callbacks.predictions_csv import raw_threshold as raw_threshold_of_training
from anomalib_medical.deploy.facts import post_processing_of
from anomalib_medical.edge.scores import above, normalize, raw_threshold

RAW = torch.tensor([-3.0, 0.0, 0.1, 0.3, 0.31, 0.5, 0.9, 40.0])
RANGES = {"usual": (0.3, 0.1, 0.5), "no range": (0.3, math.nan, math.nan), "constant": (0.3, 0.3, 0.3)}


def post_processor(kind, ranges, **kwargs):
    made = PostProcessor(**kwargs) if kind == "anomalib" else MedicalPostProcessor(threshold=kind, **kwargs)
    for part in ("image", "pixel"):
        for name, value in zip((f"_{part}_threshold", f"{part}_min", f"{part}_max"), ranges, strict=True):
            getattr(made, name).fill_(value)
    return made


def facts_of(made):
    return post_processing_of(SimpleNamespace(post_processor=made))


@pytest.mark.parametrize("sensitivity", [0.5, 0.3])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("ranges", RANGES.values(), ids=RANGES)
@pytest.mark.parametrize("kind", ["specificity", "f1", "anomalib"])
def test_scores_maps_and_labels_are_those_of_the_training(kind, ranges, normalized, sensitivity):
    made = post_processor(
        kind, ranges, enable_normalization=normalized, image_sensitivity=sensitivity, pixel_sensitivity=sensitivity
    )
    expected = made(InferenceBatch(pred_score=RAW, anomaly_map=RAW[None, None, None]))
    facts = facts_of(made)
    scores = normalize(RAW.numpy(), facts.image, facts.normalization)
    maps = normalize(RAW[None, None, None].numpy(), facts.pixel, facts.normalization)
    np.testing.assert_allclose(scores, expected.pred_score.numpy(), rtol=0, atol=1e-7)
    np.testing.assert_allclose(maps, expected.anomaly_map.numpy(), rtol=0, atol=1e-7)
    np.testing.assert_array_equal(above(scores, facts.image), expected.pred_label.numpy())
    np.testing.assert_array_equal(above(maps, facts.pixel), expected.pred_mask.numpy())
    np.testing.assert_array_equal(expected.pred_label.numpy(), RAW.double().numpy() > raw_threshold(facts))
    if not math.isnan(raw_threshold_of_training(made)):
        assert raw_threshold(facts) == pytest.approx(raw_threshold_of_training(made), abs=1e-6)


def test_without_a_threshold_scores_stay_raw_and_nothing_is_called_abnormal():
    made = MedicalPostProcessor()
    facts = facts_of(made)
    np.testing.assert_array_equal(normalize(RAW.numpy(), facts.image, facts.normalization), RAW.numpy())
    assert above(RAW.numpy(), facts.image) is None
    assert raw_threshold(facts) is None


@pytest.mark.parametrize("kind", ["none", "invalidated", "no thresholds"])
def test_a_model_that_gives_no_labels_gives_none_on_the_device(kind):
    made = None
    if kind == "invalidated":
        made = post_processor("specificity", RANGES["usual"])
        made.invalidate()
    elif kind == "no thresholds":
        made = post_processor("specificity", RANGES["usual"], enable_thresholding=False)
    facts = facts_of(made)
    assert above(RAW.numpy(), facts.image) is None
    assert raw_threshold(facts) is None
