"""Exported SCRD models against the engine: the same scores and maps, at every size, normalised and raw."""

import copy

import numpy as np
import onnx
import pytest
import torch
from anomalib.deploy import CompressionType
from anomalib.engine import Engine

from anomalib_medical import MedicalFolder, Scrd
from anomalib_medical.models.components import OPSET
from tests.helpers.exports import (
    NATIVE,
    ODD,
    TOLERANCE,
    assert_equal_results,
    by_engine,
    by_export,
    compiled,
    export_all,
    images,
)


@pytest.fixture(scope="module")
def model(tiny_folder, tmp_path_factory):
    scrd = Scrd(backbone="resnet18", image_size=64, pre_trained=False, seed=0)
    engine = Engine(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path_factory.mktemp("run"),
    )
    engine.fit(scrd, datamodule=MedicalFolder(root=tiny_folder, train_batch_size=4, eval_batch_size=4, num_workers=0))
    scrd.eval()
    with torch.no_grad():
        raw = scrd.model(scrd.pre_processor(images(NATIVE, count=6))).pred_score
    # Between two of the scores and on none of them: rounding must not decide.
    scrd.post_processor._image_threshold.copy_(raw.sort().values[2:4].mean())
    return scrd


@pytest.fixture(scope="module")
def normalised(model, tmp_path_factory):
    return model, export_all(model, tmp_path_factory.mktemp("normalised"))


@pytest.fixture(scope="module")
def raw(model, tmp_path_factory):
    without = copy.deepcopy(model)
    without.post_processor = None
    return without, export_all(without, tmp_path_factory.mktemp("raw"))


def test_an_export_that_succeeds_reports_no_failed_conversion(model, tmp_path, caplog):
    path = model.to_onnx(tmp_path)
    assert not [record for record in caplog.records if record.exc_info or record.name.startswith("onnxscript")]
    opsets = {each.domain: each.version for each in onnx.load(path, load_external_data=False).opset_import}
    assert opsets[""] == OPSET


@pytest.mark.parametrize("size", [NATIVE, ODD], ids=["native", "odd"])
@pytest.mark.parametrize("kind", ["torch", "onnx", "openvino"])
@pytest.mark.parametrize("variant", ["normalised", "raw"])
def test_exported_models_equal_the_engine(request, variant, kind, size):
    model, exported = request.getfixturevalue(variant)
    batch = images(size)
    expected = by_engine(model, batch)
    assert_equal_results(expected, by_export(exported, kind, batch))
    assert expected.pred_score.std() > 10 * TOLERANCE or expected.anomaly_map.std() > 10 * TOLERANCE


def test_the_exported_graph_takes_any_batch_and_size_and_has_the_four_outputs(normalised):
    network = compiled(normalised[1]["openvino"])
    names = [output.get_any_name() for output in network.outputs]
    assert sorted(names) == ["anomaly_map", "pred_label", "pred_mask", "pred_score"]
    one = network(images(ODD, count=1).numpy())["pred_score"]
    many = network(images(ODD, count=5).numpy())["pred_score"]
    assert np.size(one) == 1
    assert np.size(many) == 5


def test_the_threshold_is_part_of_the_graph(normalised):
    """The label is that of the raw score against the raw threshold, on both sides of it."""
    model, exported = normalised
    batch = images(NATIVE, count=6)
    with torch.no_grad():
        raw = model.model(model.pre_processor(batch)).pred_score
    result = compiled(exported["openvino"])(batch.numpy())
    expected = (raw > model.post_processor._image_threshold).numpy()
    assert 0 < expected.sum() < len(expected)
    np.testing.assert_array_equal(np.asarray(result["pred_label"]).squeeze(), expected)
    np.testing.assert_array_equal(np.asarray(result["pred_mask"]), np.asarray(result["anomaly_map"]) > 0.5)


def test_fp16_stays_close(model, tmp_path):
    batch = images(ODD)
    score = compiled(model.to_openvino(tmp_path, compression_type=CompressionType.FP16))(batch.numpy())["pred_score"]
    np.testing.assert_allclose(np.asarray(score).squeeze(), by_engine(model, batch).pred_score, rtol=0, atol=2e-2)
