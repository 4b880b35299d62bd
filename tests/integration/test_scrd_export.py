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
from tests.exports import (
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
    return scrd.eval()


@pytest.fixture(scope="module", params=["normalised", "raw"])
def variant(request, model):
    chosen = copy.deepcopy(model)
    if request.param == "raw":
        chosen.post_processor = None
    return chosen


@pytest.fixture(scope="module")
def exported(variant, tmp_path_factory):
    return export_all(variant, tmp_path_factory.mktemp("export"))


def test_an_export_that_succeeds_reports_no_failed_conversion(model, tmp_path, caplog):
    path = model.to_onnx(tmp_path)
    assert not [record for record in caplog.records if record.exc_info or record.name.startswith("onnxscript")]
    opsets = {each.domain: each.version for each in onnx.load(path, load_external_data=False).opset_import}
    assert opsets[""] == OPSET


@pytest.mark.parametrize("size", [NATIVE, ODD], ids=["native", "odd"])
@pytest.mark.parametrize("kind", ["torch", "onnx", "openvino"])
def test_exported_models_equal_the_engine(variant, exported, kind, size):
    batch = images(size)
    expected = by_engine(variant, batch)
    assert_equal_results(expected, by_export(exported, kind, batch))
    assert expected.pred_score.std() > 10 * TOLERANCE or expected.anomaly_map.std() > 10 * TOLERANCE


def test_the_exported_graph_takes_any_batch_and_size_and_has_the_four_outputs(model, tmp_path):
    path = model.to_openvino(tmp_path)
    network = compiled(path)
    names = [output.get_any_name() for output in network.outputs]
    assert sorted(names) == ["anomaly_map", "pred_label", "pred_mask", "pred_score"]
    one = network(images(ODD, count=1).numpy())["pred_score"]
    many = network(images(ODD, count=5).numpy())["pred_score"]
    assert np.size(one) == 1
    assert np.size(many) == 5


def test_the_threshold_is_part_of_the_graph(model, tmp_path):
    """The label is that of the raw score against the raw threshold, on both sides of it."""
    batch = images(NATIVE, count=6)
    with torch.no_grad():
        raw = model.model(model.pre_processor(batch)).pred_score
    third, fourth = raw.sort().values[2:4]
    threshold = (third + fourth) / 2  # on none of the scores: rounding must not decide
    chosen = copy.deepcopy(model)
    chosen.post_processor._image_threshold.copy_(threshold)
    result = compiled(chosen.to_openvino(tmp_path))(batch.numpy())
    expected = (raw > threshold).numpy()
    assert 0 < expected.sum() < len(expected)
    np.testing.assert_array_equal(np.asarray(result["pred_label"]).squeeze(), expected)
    np.testing.assert_array_equal(np.asarray(result["pred_mask"]), np.asarray(result["anomaly_map"]) > 0.5)


def test_fp16_stays_close(model, tmp_path):
    batch = images(ODD)
    score = compiled(model.to_openvino(tmp_path, compression_type=CompressionType.FP16))(batch.numpy())["pred_score"]
    np.testing.assert_allclose(np.asarray(score).squeeze(), by_engine(model, batch).pred_score, rtol=0, atol=2e-2)
