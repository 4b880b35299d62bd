"""What of a graph is quantized, and with which images."""

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops
from PIL import Image

from anomalib_medical.data import MedicalPredictDataset
from anomalib_medical.deploy.graph import BundleExportError
from anomalib_medical.deploy.quantize import (
    NormalImages,
    check_count,
    determination,
    floating_point_scope,
    quantize,
)

PADS = {"strides": [1, 1], "pads_begin": [1, 1], "pads_end": [1, 1], "dilations": [1, 1]}


def convolution(data, kernel, name):
    made = ops.convolution(data, ops.constant(kernel), **PADS)
    made.set_friendly_name(name)
    return made


def network(learnt=True):
    """Two learnt convolutions, then a ratio and a blur of one channel, as maps are made."""
    rng = np.random.default_rng(0)
    image = ops.parameter([1, 3, -1, -1], np.float32, name="input")
    if learnt:
        first = ops.relu(convolution(image, rng.normal(size=(8, 3, 3, 3)).astype("f"), "first"))
        second = convolution(first, rng.normal(size=(8, 8, 3, 3)).astype("f"), "second")
    else:
        second = image
    norm = ops.reduce_l2(second, ops.constant([1]), keep_dims=True)
    ratio = ops.divide(ops.reduce_sum(ops.multiply(second, second), ops.constant([1]), keep_dims=True), norm)
    blurred = convolution(ratio, np.full((1, 1, 3, 3), 1 / 9, "f"), "blur")
    score = ops.reduce_mean(blurred, ops.constant([1, 2, 3]), keep_dims=False)
    score.output(0).set_names({"pred_score"})
    return openvino.Model([score], [image])


def images(count):
    return [np.zeros((3, 24, 20), "f")] * count


def test_blurs_and_ratios_stay_in_floating_point_and_learnt_convolutions_do_not():
    scope = floating_point_scope(network())
    assert scope.names == ["blur"]
    assert {"Divide", "Multiply", "ReduceL2", "ReduceMean", "ReduceSum"} == set(scope.types)


def test_a_graph_without_learnt_convolutions_is_refused():
    with pytest.raises(BundleExportError, match=r"nothing to quantize.*Use --precision fp16"):
        quantize(network(learnt=False), images(10))


def test_a_handful_of_images_is_refused():
    check_count(10)
    with pytest.raises(BundleExportError, match="Got 9 normal images for INT8, expected at least 10, better 300"):
        check_count(9)


def test_agreement_is_the_coefficient_of_determination():
    expected = np.array([1.0, 2.0, 3.0, 4.0])
    assert determination(expected, expected) == 1
    assert determination(expected, np.full(4, 2.5)) == pytest.approx(0)
    # Scores that are all shifted have the same order, and another meaning at the threshold.
    assert determination(expected, expected + 1) == pytest.approx(1 - 1 / 1.25)


def test_large_images_are_thinned_and_small_ones_left_alone(tmp_path):
    Image.effect_noise((1600, 40), 50).save(tmp_path / "a_large.png")
    Image.effect_noise((90, 40), 50).save(tmp_path / "b_small.png")
    normals = NormalImages(MedicalPredictDataset(tmp_path))
    assert [image.shape for image in normals] == [(3, 20, 800), (3, 40, 90)]
