"""Every model trained, tested, exported and trained again as one object in one process, as in a notebook."""

import pytest
import torch
from torch import nn
from torchmetrics import Metric

from anomalib_medical import D24fad, Ddad, FewShotTasks, Scrd
from tests.conftest import LAYOUT, make_folder
from tests.helpers.engines import datamodule, engine, weights_of
from tests.helpers.exports import ODD, assert_equal_results, by_engine, by_export, images
from tests.helpers.few_shot_tree import make_tasks

_RESNET = {"backbone": "resnet18", "image_size": 64, "pre_trained": False, "seed": 0}


def make(name, root):
    if name == "D24fad":
        data = FewShotTasks(
            "skin", make_tasks(root), shots=2, target_shots=3, train_batch_size=8, eval_batch_size=8, num_workers=0
        )
        return D24fad(**_RESNET), data
    data = datamodule(make_folder(root, layout=LAYOUT | {"unlabeled": 6}))
    if name == "Ddad":
        return Ddad(image_size=32, members=2, seed=0), data
    return Scrd(**_RESNET), data


def inference_tensors(value, where="model", seen=None):
    """Find the tensors, at any depth of a module's attributes, that autograd refuses: those of inference mode."""
    seen = set() if seen is None else seen
    # torchmetrics replaces its states and never changes them in place.
    if id(value) in seen or isinstance(value, Metric):
        return []
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        return [where] if value.is_inference() else []
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    elif isinstance(value, nn.Module) or type(value).__module__.startswith("anomalib_medical"):
        # The trainer and its loops are Lightning's.
        parts = [(key, part) for key, part in vars(value).items() if key not in {"_trainer", "_fabric"}]
    else:
        return []
    return [found for key, part in parts for found in inference_tensors(part, f"{where}.{key}", seen)]


@pytest.mark.parametrize("name", ["Scrd", "Ddad", "D24fad"])
def test_a_model_can_be_used_after_it_was_tested(tmp_path, name):
    model, data = make(name, tmp_path / "data")
    engine(tmp_path / "run", max_epochs=1).train(model, datamodule=data)
    assert inference_tensors(model) == []
    for stage in ("validate", "predict"):
        getattr(engine(tmp_path / stage), stage)(model, datamodule=data)
        assert inference_tensors(model) == [], stage

    # As a user calls it: with gradients on.
    model.eval()
    outputs = model(images(ODD))
    assert outputs.pred_score.isfinite().all()
    # OpenVINO's file is made from ONNX's.
    exported = {"torch": model.to_torch(tmp_path / "export"), "openvino": model.to_openvino(tmp_path / "export")}
    for kind in exported:
        assert_equal_results(by_engine(model, images(ODD)), by_export(exported, kind, images(ODD)))

    before = weights_of(model)
    results = engine(tmp_path / "again", max_epochs=1).train(model, datamodule=data)
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert any(key.endswith("weight") for key in moved)
    # Batch norm's statistics move in training mode only, which exporting has left.
    assert any(key.endswith("running_mean") for key in moved)
    assert "image_AUROC" in results[0]
