"""A bundle that would judge otherwise than the engine is not made."""

from types import SimpleNamespace

import pytest
import torch
from anomalib.models.image.super_add import SuperADDPostProcessor
from anomalib.post_processing import MEBinPostProcessor, PostProcessor

from anomalib_medical.deploy.self_test import compare_post_processing
from anomalib_medical.errors import MedicalError
from anomalib_medical.post_processing import MedicalPostProcessor, device_facts


def model(post_processor):
    if post_processor is not None:
        for name, value in (
            ("_image_threshold", 1.5),
            ("_pixel_threshold", 0.7),
            ("image_min", 1.0),
            ("image_max", 2.0),
            ("pixel_min", 0.0),
            ("pixel_max", 1.0),
        ):
            post_processor.get_buffer(name).fill_(value)
    return SimpleNamespace(post_processor=post_processor)


def name_of(post_processor):
    return "none" if post_processor is None else type(post_processor).__name__


@pytest.mark.parametrize(
    "post_processor",
    [
        PostProcessor(),
        PostProcessor(image_sensitivity=0.3, pixel_sensitivity=0.8),
        PostProcessor(enable_normalization=False),
        PostProcessor(enable_thresholding=False),
        SuperADDPostProcessor(),
        MedicalPostProcessor(),
        MedicalPostProcessor(image_sensitivity=0.3, pixel_sensitivity=0.8),
        MedicalPostProcessor(enable_normalization=False),
        MedicalPostProcessor(enable_thresholding=False),
        MedicalPostProcessor(threshold="f1", image_sensitivity=0.6),
        None,
    ],
    ids=name_of,
)
def test_what_a_bundle_makes_of_raw_scores_is_what_the_engine_makes(post_processor):
    trained = model(post_processor)
    compare_post_processing(trained, device_facts(trained.post_processor))


@pytest.mark.parametrize(
    "other",
    [
        PostProcessor(),
        MedicalPostProcessor(image_sensitivity=0.6),
        MedicalPostProcessor(enable_normalization=False),
        MedicalPostProcessor(enable_thresholding=False),
        None,
    ],
    ids=name_of,
)
def test_another_threshold_or_normalisation_is_found(other):
    with pytest.raises(MedicalError, match="would not judge as the engine does"):
        compare_post_processing(model(MedicalPostProcessor()), device_facts(model(other).post_processor))


def test_masks_that_the_runtime_cannot_make_are_refused():
    trained = model(MEBinPostProcessor())
    with pytest.raises(MedicalError, match=r"MEBinPostProcessor makes another normalised map .* another mask"):
        compare_post_processing(trained, device_facts(trained.post_processor))


def test_the_rule_and_the_count_are_told():
    calibrated = MedicalPostProcessor(target_specificity=0.9)
    calibrated.calibrate(torch.arange(20.0))
    found = device_facts(calibrated)
    assert (found.threshold_rule, found.held_out, found.target_specificity) == ("specificity", 20, 0.9)
    restored = MedicalPostProcessor()
    restored.load_checkpoint_config(calibrated.checkpoint_config())
    assert restored.held_out == 20
    theirs = device_facts(PostProcessor())
    assert (theirs.threshold_rule, theirs.held_out, theirs.target_specificity) == ("f1", None, None)
    assert device_facts(SuperADDPostProcessor()).threshold_rule == "percentile"
