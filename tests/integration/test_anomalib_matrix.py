"""What anomalib's own tests do with each of its models, done with ours, by name and on a folder like MVTec AD."""

from pathlib import Path

import pytest
from anomalib.data import MVTecAD
from anomalib.deploy import ExportType
from anomalib.engine import Engine
from anomalib.models import get_model

import anomalib_medical  # noqa: F401 - names the models to anomalib
from tests.conftest import make_folder

pytestmark = pytest.mark.slow
# DDAD's main score compares with unlabeled images, which MVTec AD does not have.
# Smaller teachers than the models' own, which only take longer.
ARGUMENTS = {"scrd": {"backbone": "resnet18"}, "ddad": {"score": "intra"}, "d24fad": {"backbone": "resnet18"}}
SUFFIX = {ExportType.TORCH: "pt", ExportType.ONNX: "onnx", ExportType.OPENVINO: "xml"}


@pytest.fixture(autouse=True, scope="module")
def no_hub():
    """Leave teachers with random weights instead of asking the hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anomalib_medical.models.components.Teacher.load_pretrained", lambda teacher: teacher.backbone)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_folder(root / "dummy", layout={"train/good": 5, "test/good": 3, "test/lesion": 3})
    return lambda: MVTecAD(root=root, category="dummy", train_batch_size=2, num_workers=0)


@pytest.fixture(scope="module", params=ARGUMENTS)
def trained(request, data, tmp_path_factory):
    """A model's name, how to make a run of its own, and the checkpoint of its training."""
    folder = tmp_path_factory.mktemp(request.param)

    def run():
        engine = Engine(default_root_dir=folder, max_epochs=1, devices=1, accelerator="cpu", logger=False)
        return get_model(request.param, **ARGUMENTS[request.param]), engine

    model, engine = run()
    engine.fit(model, datamodule=data())
    return run, Path(engine.trainer.checkpoint_callback.best_model_path)


def test_fit_test_and_validate(trained, data):
    run, checkpoint = trained
    assert checkpoint.name == "model.ckpt"
    for step in ("test", "validate"):
        model, engine = run()
        getattr(engine, step)(model, datamodule=data(), ckpt_path=checkpoint)
        metrics = engine.trainer.callback_metrics
        assert 0 <= metrics["image_AUROC"] <= 1 if step == "test" else True


def test_train_from_a_checkpoint(trained, data):
    run, checkpoint = trained
    model, engine = run()
    (results,) = engine.train(model, datamodule=data(), ckpt_path=checkpoint)
    assert {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"} <= results.keys()


def test_predict(trained, data):
    run, checkpoint = trained
    model, engine = run()
    batches = engine.predict(model, datamodule=data(), ckpt_path=checkpoint)
    assert sum(len(batch.pred_score) for batch in batches) == 6
    assert all(batch.pred_label is not None and batch.anomaly_map is not None for batch in batches)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", list(ExportType), ids=str)
def test_export(trained, kind, tmp_path):
    run, checkpoint = trained
    model, engine = run()
    path = engine.export(model, kind, export_root=tmp_path, ckpt_path=checkpoint)
    assert path.suffix == f".{SUFFIX[kind]}"
    assert path.stat().st_size > 0
