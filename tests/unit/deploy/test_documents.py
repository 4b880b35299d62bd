"""The model card and the README say what is known, and what is not."""

import numpy as np
import pytest

from anomalib_medical.deploy.documents import CardFacts, model_card, readme
from anomalib_medical.deploy.measure import summarize
from anomalib_medical.edge.geometry import Step
from anomalib_medical.edge.manifest import Calibration, Manifest, ModelFacts, PostProcessing, Reading, SelfTest

MANIFEST = Manifest(
    created="2026-01-02T03:04:05+00:00",
    model=ModelFacts("Scrd", (128, 96)),
    precision="int8",
    post_processing=PostProcessing("softsign", Calibration(0.3, 0.1, 0.5, 0.5), Calibration(0.4, 0, 1, 0.5), 0.95),
    reading=Reading("lung", modality="CT"),
    self_test=SelfTest("self_test/noise.png", 0.25, 0.4, 1e-4),
    versions={"openvino": "2026.4.1"},
)
LABELS = np.array([0, 0, 0, 1, 1, 1])
FP32 = np.array([0.1, 0.2, 0.35, 0.25, 0.6, 0.7])
INT8 = np.array([0.1, 0.2, 0.35, 0.25, 0.5, 0.9])


def card(**facts):
    return model_card(MANIFEST, CardFacts("ab" * 32, difference=3e-7, **facts))


def test_a_card_without_a_test_set_says_that_nothing_is_known():
    text = card()
    assert "**Not a medical device.**" in text
    assert "**not known**" in text
    assert "Not said when the bundle was made (`--trained_on`)" in text
    assert "128x96 (height x width)" in text
    assert "window lung" in text
    assert "modality CT" in text
    assert "raw score above 0.3 are called abnormal. Set so that 95% of held-out normal images" in text


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (
            0.75,
            "above 0.7 are called abnormal. The sensitivity moved it from 0.3, which was set so that 95%",
        ),
        (0.0, "Its sensitivity is set so that every image is called abnormal."),
        (1.0, "Its sensitivity is set so that no image is called abnormal."),
    ],
)
def test_a_card_says_what_the_sensitivity_does(limit, text):
    processing = PostProcessing("softsign", Calibration(0.3, 0.1, 0.5, limit), target_specificity=0.95)
    sensitive = Manifest(**vars(MANIFEST) | {"post_processing": processing})
    assert text in model_card(sensitive, CardFacts("ab" * 32, difference=3e-7))


def test_a_card_says_what_a_crop_leaves_out():
    steps = (Step("resize", (256, 256)), Step("center_crop", (224, 192)))
    cropping = Manifest(**vars(MANIFEST) | {"model": ModelFacts("Dinomaly", (256, 256), geometry=steps)})
    text = model_card(cropping, CardFacts("ab" * 32, difference=3e-7))
    assert "resize 256x256, then center crop 224x192; nothing is marked in what this leaves out" in text


def test_the_measured_figures_are_in_the_card():
    measured = summarize(INT8, FP32, LABELS, ["a", "a", "b", "c", "c", "d"], threshold=0.3)
    # 8 of 9 pairs in order; at 0.3 one normal image is above and one abnormal one below.
    assert measured.auroc.value == pytest.approx(8 / 9)
    assert (measured.specificity, measured.sensitivity) == pytest.approx((2 / 3, 2 / 3))
    assert measured.largest_difference == pytest.approx(0.2)
    text = card(measured=measured, test_name="chests", trained_on="Chests & more")
    assert "3 normal and 3 abnormal images of 4 patients in the test set `chests`" in text
    assert "| this bundle (INT8) | 0.889 [" in text
    assert "| change | +0.0000 |" in text
    assert "specificity 0.667, sensitivity 0.667" in text
    assert "Chests & more" in text


def test_a_score_on_the_threshold_is_normal():
    measured = summarize(INT8, FP32, LABELS, list("abcdef"), threshold=0.35)
    assert (measured.specificity, measured.sensitivity) == pytest.approx((1, 2 / 3))
    measured = summarize(INT8, FP32, LABELS, list("abcdef"), threshold=0.25)
    assert (measured.specificity, measured.sensitivity) == pytest.approx((2 / 3, 2 / 3))


def test_where_no_patients_are_known_the_card_speaks_of_images():
    measured = summarize(INT8, FP32, LABELS, list("abcdef"), threshold=None)
    assert measured.specificity is None
    text = card(measured=measured, test_name="x")
    assert "of 6 images in the test set" in text
    assert "specificity" not in text


def test_the_readme_names_support_only_where_there_is_one():
    assert "edge support" not in readme(MANIFEST)
    few_shot = Manifest(**vars(MANIFEST) | {"model": ModelFacts("D24fad", few_shot=True)})
    assert "python -m edge support FOLDER" in readme(few_shot)
    assert "threshold 0.3," in readme(MANIFEST)
