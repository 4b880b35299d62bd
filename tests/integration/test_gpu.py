"""What the other tests do on the CPU, on a GPU: train, resume, predict and export.

python -m pytest -m gpu
"""

import math

import pytest
import torch

from anomalib_medical import D24fad, Ddad, Scrd
from anomalib_medical.callbacks import PredictionsCSV
from anomalib_medical.callbacks.predictions_file import read_predictions
from tests.conftest import LAYOUT, make_folder
from tests.helpers.engines import datamodule, engine
from tests.helpers.exports import by_engine, by_export, images
from tests.helpers.few_shot_tree import make_tasks
from tests.helpers.graphs import TRAINING
from tests.integration.test_d24fad_engine import tasks_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device on this machine"),
]
TEACHER = {"backbone": "resnet18", "image_size": 64, "pre_trained": False, "seed": 0}
ARGUMENTS = {Scrd: TEACHER, D24fad: TEACHER, Ddad: {"image_size": 32, "members": 2, "seed": 0}}
EVERY = pytest.mark.parametrize("kind", ARGUMENTS)


@pytest.fixture(scope="module")
def data_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    pooled = make_folder(folder / "pooled", layout=LAYOUT | {"unlabeled": 9})
    tasks = make_tasks(folder / "tasks")
    return lambda kind: tasks_of(tasks) if kind is D24fad else datamodule(pooled)


def gpu_engine(folder, **options):
    return engine(folder, **{"accelerator": "gpu"} | options)


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Convolutions in float32, as on the CPU."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@EVERY
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_training_checkpoint_resume_prediction(kind, precision, data_of, tmp_path):
    writer = PredictionsCSV()
    first = gpu_engine(tmp_path / "first", callbacks=[writer], precision=precision)
    model = kind(**ARGUMENTS[kind])
    (results,) = first.train(model, datamodule=data_of(kind))
    assert model.device.type == "cuda"
    checkpoint = first.trainer.checkpoint_callback.best_model_path
    rows = read_predictions(writer.path)
    assert rows
    assert all(math.isfinite(float(row.score)) for row in rows)
    assert results

    # What the checkpoint scores is the same on the CPU.
    scores = []
    for where in (gpu_engine, engine):
        model = kind(**ARGUMENTS[kind])
        batches = where(tmp_path / "predicted").predict(model, datamodule=data_of(kind), ckpt_path=checkpoint)
        scores.append(torch.cat([batch.pred_score.cpu() for batch in batches]))
    assert scores[0].dtype == torch.float32
    torch.testing.assert_close(*scores, rtol=0, atol=1e-3)

    further = kind(**ARGUMENTS[kind])
    resumed = gpu_engine(tmp_path / "resumed", max_epochs=3, precision=precision)
    resumed.fit(further, datamodule=data_of(kind), ckpt_path=checkpoint)
    assert resumed.trainer.current_epoch == 3
    assert all(parameter.isfinite().all() for parameter in further.parameters())


@EVERY
def test_a_training_step_does_not_wait(kind, data_of, tmp_path):
    """As `test_gpu_steps`, with a real GPU and the way back; the first two steps may, for what is made once."""
    watched = []

    class Watched(kind):
        def training_step(self, *args):
            torch.cuda.set_sync_debug_mode("error" if self.global_step > 1 else "default")
            return super().training_step(*args)

        def on_after_backward(self):
            watched.append(torch.cuda.get_sync_debug_mode())
            torch.cuda.set_sync_debug_mode("default")

    options = {"max_epochs": 4, "limit_val_batches": 0, "log_every_n_steps": 1000}
    # torchvision's Normalize, which prepares the support, makes mean and deviation on the host.
    arguments = ARGUMENTS[kind] | ({"normalize": False} if kind is D24fad else {})
    try:
        gpu_engine(tmp_path, **options).fit(Watched(**arguments), datamodule=data_of(kind))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum(watched) > 1


@EVERY
@pytest.mark.parametrize("kind_of_file", ["torch", "onnx", "openvino"])
def test_an_export_from_the_gpu_scores_as_the_engine(kind, kind_of_file, data_of, tmp_path):
    model = kind(**ARGUMENTS[kind])
    gpu_engine(tmp_path, max_epochs=1).train(model, datamodule=data_of(kind))
    model.to("cuda").eval()
    path = getattr(model, f"to_{kind_of_file}")(tmp_path / "exported")
    batch = images((64, 64))
    expected = by_engine(model.to("cpu"), batch)
    got = by_export({kind_of_file: path}, kind_of_file, batch)
    score = torch.as_tensor(got["pred_score"]).flatten().cpu()
    torch.testing.assert_close(score, expected.pred_score.flatten(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", TRAINING)
def test_losses_of_a_step_are_the_cpus(name):
    model, function, tensors = TRAINING[name]()
    expected = function(*tensors).item()
    model, function, tensors = TRAINING[name]()
    model.to("cuda")
    loss = function(*(each if each is None else each.to(torch.device("cuda")) for each in tensors))
    assert loss.item() == pytest.approx(expected, rel=1e-3)
