"""What of a graph is quantized, and with which images."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops
from PIL import Image

from anomalib_medical.data import MedicalPredictDataset
from anomalib_medical.deploy import quantize as module
from anomalib_medical.deploy.quantize import (
    NormalImages,
    check_quantizable,
    determination,
    floating_point_scope,
    learnt_numbers,
    quantize,
)
from anomalib_medical.errors import MedicalError

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


def noise(count):
    """Images of all contrasts, each with a white stripe: nncf takes ranges from the mean of their maxima."""
    rng = np.random.default_rng(0)
    made = [rng.random((3, 24, 20), np.float32) * rng.random() for _ in range(count)]
    for image in made:
        image[:, :4] = 1
    return made


def test_blurs_and_ratios_stay_in_floating_point_and_learnt_convolutions_do_not():
    scope = floating_point_scope(network())
    assert scope.names == ["blur"]
    assert {"Divide", "Multiply", "ReduceL2", "ReduceMean", "ReduceSum"} == set(scope.types)


def test_a_graph_without_learnt_convolutions_is_refused():
    with pytest.raises(MedicalError, match=r"nothing to quantize.*no layers with learnt.*Use --precision fp16"):
        quantize(network(learnt=False), images(10))


def test_where_no_layer_can_stay_int8_it_is_refused(monkeypatch):
    monkeypatch.setattr(module, "MAX_LOSS", -0.01)  # better than FP32: whatever is put back, it is not enough
    with pytest.raises(MedicalError, match=r"too much: no layer is left for it.*Use --precision fp16"):
        quantize(network(), noise(10))


def test_convolutions_are_quantized_where_scores_stay_and_the_graph_is_left_as_it_is(caplog):
    rng = np.random.default_rng(0)
    image = ops.parameter([1, 3, -1, -1], np.float32, name="input")
    hidden = ops.relu(convolution(image, rng.random((8, 3, 3, 3), np.float32), "first"))
    second = convolution(hidden, rng.random((8, 8, 3, 3), np.float32), "second")
    score = ops.reduce_mean(second, ops.constant([1, 2, 3]), keep_dims=False)
    score.output(0).set_names({"pred_score"})
    graph = openvino.Model([score], [image])
    with caplog.at_level("INFO"):
        quantized = quantize(graph, noise(15))
    assert "ranges of 2 convolutions from 12 images" in caplog.text
    assert "compared on 6, half of them with synthetic anomalies. At " in caplog.text
    assert (quantized.what, quantized.calibrated, quantized.compared) == ("convolutions", 12, 6)
    assert quantized.agreement >= 0.99
    kinds = [operation.get_type_name() for operation in quantized.graph.get_ops()]
    assert "FakeQuantize" in kinds
    assert "FakeQuantize" not in [operation.get_type_name() for operation in graph.get_ops()]


def full_layers():
    """A convolution that halves the picture, then two full layers, as DDAD's networks have."""
    rng = np.random.default_rng(0)
    image = ops.parameter([1, 3, 24, 20], np.float32, name="input")
    first = convolution(image, rng.normal(size=(2, 3, 3, 3)).astype("f"), "first")
    flat = ops.reshape(first, ops.constant([1, 960]), special_zero=False)
    hidden = ops.relu(ops.matmul(flat, ops.constant(rng.normal(size=(960, 64)).astype("f")), False, False))
    restored = ops.matmul(hidden, ops.constant(rng.normal(size=(64, 960)).astype("f")), False, False)
    score = ops.reduce_mean(ops.absolute(ops.subtract(restored, flat)), ops.constant([0, 1]), keep_dims=False)
    score.output(0).set_names({"pred_score"})
    return openvino.Model([score], [image])


def test_of_full_layers_the_weights_are_stored_in_8_bits():
    graph = full_layers()
    assert learnt_numbers(graph) == (54, 2 * 960 * 64)
    quantized = quantize(graph, noise(15))
    assert (quantized.what, quantized.calibrated, quantized.compared) == ("weights", 0, 6)
    assert 0.99 <= quantized.agreement < 1
    stored = [one.get_element_type() for one in quantized.graph.get_ops() if one.get_type_name() == "Constant"]
    assert openvino.Type.u8 in stored
    assert openvino.Type.u8 not in [one.get_element_type() for one in graph.get_ops()]


def test_a_stack_of_matrices_is_no_full_layer():
    image = ops.parameter([1, 5, 4, 4], np.float32, name="input")
    rows = ops.reshape(image, ops.constant([5, 1, 16]), special_zero=False)
    product = ops.matmul(rows, ops.constant(np.ones((5, 16, 16), "f")), False, False)
    assert learnt_numbers(openvino.Model([product], [image])) == (0, 0)


def test_weights_of_8_bits_that_change_scores_are_refused(monkeypatch):
    monkeypatch.setattr(module, "MAX_LOSS", 0.0)
    with pytest.raises(MedicalError, match=r"agree with FP32 to [01]\.\d+ .*expected 1.00. Use --precision fp16"):
        quantize(full_layers(), noise(10))


def test_a_handful_of_images_is_refused():
    check_quantizable(10)
    with pytest.raises(MedicalError, match="Got 9 normal images for INT8, expected at least 10, better 300"):
        check_quantizable(9)


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


def test_signals_have_a_stack_when_nncf_is_done():
    """In a process of its own, which the fault ends: nncf ends OpenVINO's plug-in, and a child's end is a signal."""
    code = """
import signal, subprocess, sys
from anomalib_medical.deploy import quantize as module
from tests.unit.deploy.test_quantize import network, noise
signal.signal(signal.SIGCHLD, lambda *_: None)
module.MAX_LOSS = -0.01
try:
    module.quantize(network(), noise(10))
except module.MedicalError:
    subprocess.run([sys.executable, "-S", "-c", ""], check=True)
    print("alive")
"""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert result.stdout.endswith("alive\n"), result.stderr[-2000:]
