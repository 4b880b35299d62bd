"""Exported D2-4FAD models, with the support in them, against the engine: the same scores and maps."""

import copy

import numpy as np
import pytest
import torch

from anomalib_medical import D24fad
from anomalib_medical.deploy.few_shot_graphs import export_edge
from anomalib_medical.edge.few_shot_device import FewShotDevice
from tests.helpers.exports import NATIVE, ODD, TOLERANCE, assert_equal_results, by_engine, by_export, compiled, images

KINDS = [
    {},
    {"matching": "nearest", "window": 0.25, "features": "both"},
    # Less of the same.
    pytest.param({"matching": "nearest", "features": "teacher", "weighting": "none"}, marks=pytest.mark.slow),
]


def calibrated(**kind):
    """Untrained, but with the statistics of some images: with fresh ones all maps are alike."""
    d24fad = D24fad(backbone="resnet18", image_size=64, pre_trained=False, seed=0, **kind)
    with torch.no_grad():
        for _ in range(3):
            d24fad.model.train().encode(d24fad.pre_processor(images(NATIVE, count=8)))
    d24fad.set_support(torch.rand(3, 3, *ODD, generator=torch.Generator().manual_seed(2)))
    d24fad.recalibrate()
    return d24fad.eval()


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.get("features", "student"))
def model(request):
    return calibrated(**request.param)


@pytest.fixture(scope="module")
def uncalibrated():
    """Of one kind: matching comes before thresholds, and knows nothing of them."""
    chosen = calibrated()
    chosen.post_processor.invalidate()
    return chosen


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    return {"torch": model.to_torch(folder), "onnx": model.to_onnx(folder), "openvino": model.to_openvino(folder)}


@pytest.fixture(scope="module")
def exported_uncalibrated(uncalibrated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uncalibrated")
    return {"torch": uncalibrated.to_torch(folder), "onnx": uncalibrated.to_onnx(folder)}


@pytest.mark.parametrize("size", [NATIVE, ODD], ids=["native", "odd"])
@pytest.mark.parametrize("kind", ["torch", "onnx", "openvino"])
def test_exported_models_equal_the_engine(model, exported, kind, size):
    batch = images(size)
    expected = by_engine(model, batch)
    assert_equal_results(expected, by_export(exported, kind, batch))
    assert expected.anomaly_map.std() > 10 * TOLERANCE


@pytest.mark.parametrize("size", [NATIVE, ODD], ids=["native", "odd"])
@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_without_a_threshold_raw_scores_and_no_labels_come_out(uncalibrated, exported_uncalibrated, kind, size):
    batch = images(size)
    expected = by_engine(uncalibrated, batch)
    with torch.no_grad():
        raw = uncalibrated.model(uncalibrated.pre_processor(batch)).pred_score
    torch.testing.assert_close(expected.pred_score, raw)
    got = by_export(exported_uncalibrated, kind, batch)
    assert_equal_results(expected, got)
    assert got.get("pred_label") is got.get("pred_mask") is expected.pred_label is None


def test_a_device_binds_another_support_with_the_models_scores(model, tmp_path):
    export_edge(model, tmp_path)
    device, chosen = FewShotDevice(tmp_path), copy.deepcopy(model)
    for shots in (2, 4):
        support = torch.rand(shots, 3, *ODD, generator=torch.Generator().manual_seed(shots))
        device.bind(list(support.numpy()))
        chosen.set_support(support)
        chosen.recalibrate()
        score, anomaly_map = device.score(images(NATIVE, count=1)[0].numpy())
        with torch.no_grad():
            expected = chosen.model(chosen.pre_processor(images(NATIVE, count=1)))
        assert score == pytest.approx(float(expected.pred_score), abs=TOLERANCE)
        np.testing.assert_allclose(anomaly_map, expected.anomaly_map.squeeze().numpy(), rtol=0, atol=TOLERANCE)
        assert device.calibrate() == pytest.approx(float(chosen.post_processor.image_threshold), abs=TOLERANCE)


def test_the_exported_graph_takes_any_batch_and_has_the_four_outputs(exported):
    network = compiled(exported["openvino"])
    names = [output.get_any_name() for output in network.outputs]
    assert sorted(names) == ["anomaly_map", "pred_label", "pred_mask", "pred_score"]
    for count in (1, 5):
        assert np.size(network(images(ODD, count=count).numpy())["pred_score"]) == count
