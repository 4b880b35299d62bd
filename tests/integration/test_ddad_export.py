"""Exported DDAD models against the engine: the same scores and maps, at every size, normalised and raw."""

import copy

import numpy as np
import pytest
import torch

from anomalib_medical import Ddad
from tests.conftest import LAYOUT, make_folder
from tests.helpers.engines import datamodule, engine
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

MAPS = ("reconstruction_map", "inter_map", "intra_map", "refined_map")


def train(folder, **arguments):
    root = make_folder(folder / "data", layout=LAYOUT | {"unlabeled": 6})
    model = Ddad(**{"image_size": 64, "members": 2, "seed": 0} | arguments)
    engine(folder).fit(model, datamodule=datamodule(root))
    return model.eval()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return train(tmp_path_factory.mktemp("inter"))


@pytest.fixture(scope="module")
def refined(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refined")
    return train(folder, score="refined", network="ae_u", refinement_epochs=1, all_maps=True)


@pytest.fixture(scope="module")
def normalised(model, tmp_path_factory):
    return model, export_all(model, tmp_path_factory.mktemp("normalised"))


@pytest.fixture(scope="module")
def raw(model, tmp_path_factory):
    without = copy.deepcopy(model)
    without.post_processor = None
    return without, export_all(without, tmp_path_factory.mktemp("raw"))


@pytest.mark.parametrize("size", [NATIVE, ODD, (224, 224)], ids=["native", "odd", "large"])
@pytest.mark.parametrize("kind", ["torch", "onnx", "openvino"])
@pytest.mark.parametrize("variant", ["normalised", "raw"])
def test_exported_models_equal_the_engine(request, variant, kind, size):
    model, exported = request.getfixturevalue(variant)
    batch = images(size)
    expected = by_engine(model, batch)
    assert_equal_results(expected, by_export(exported, kind, batch))
    assert expected.anomaly_map.std() > 10 * TOLERANCE


def test_the_default_graph_takes_any_batch_and_has_the_four_outputs(normalised):
    network = compiled(normalised[1]["openvino"])
    names = [output.get_any_name() for output in network.outputs]
    assert sorted(names) == ["anomaly_map", "pred_label", "pred_mask", "pred_score"]
    for count in (1, 5):
        assert np.size(network(images(ODD, count=count).numpy())["pred_score"]) == count


@pytest.fixture(scope="module")
def exported_with_maps(refined, tmp_path_factory):
    return export_all(refined, tmp_path_factory.mktemp("maps"))


@pytest.mark.parametrize("kind", ["torch", "onnx", "openvino"])
def test_all_maps_come_out_of_one_pass_where_asked(refined, exported_with_maps, kind):
    batch = images(ODD)
    results = by_export(exported_with_maps, kind, batch)
    with torch.no_grad():
        expected = refined.model.maps(refined.pre_processor.transform(batch))
    for name, wanted in zip(MAPS, expected, strict=True):
        np.testing.assert_allclose(np.asarray(results[name]), wanted.numpy(), rtol=1e-4, atol=TOLERANCE, err_msg=name)
    assert_equal_results(by_engine(refined, batch), results)


def test_all_maps_can_be_asked_for_when_a_checkpoint_is_loaded(model):
    path = model.trainer.checkpoint_callback.best_model_path
    loaded = Ddad.load_from_checkpoint(path, all_maps=True).eval()
    with torch.no_grad():
        outputs = loaded(images(ODD))
    assert outputs.refined_map is None
    assert outputs.inter_map.shape == outputs.intra_map.shape == outputs.reconstruction_map.shape == (3, 1, 64, 64)
    torch.testing.assert_close(outputs.pred_score, model(images(ODD)).pred_score)
