"""SCRD through anomalib's engine: training, checkpoints without a network, determinism, precision, processes."""

import copy
import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.metrics import AUPRO, AUROC, Evaluator
from anomalib.models import get_model
from anomalib.post_processing import PostProcessor

from anomalib_medical import MedicalFolder, Scrd
from anomalib_medical.deploy.checkpoint import load_model
from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components.checkpoints import MedicalCheckpointIO
from tests.conftest import make_folder
from tests.helpers.engines import assert_same, datamodule, engine, weights_of

ARGUMENTS = {"backbone": "resnet18", "image_size": 64, "pre_trained": False, "seed": 0}


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory):
    model = Scrd(**ARGUMENTS)
    run = engine(tmp_path_factory.mktemp("run"))
    run.fit(model, datamodule=datamodule(tiny_folder))
    return model, run.trainer.checkpoint_callback.best_model_path


@pytest.fixture
def no_network(monkeypatch):
    """Any attempt to get weights fails the test."""

    def fail(*_, **__):
        pytest.fail("the network was touched")

    monkeypatch.setattr("anomalib_medical.models.components.teacher.Teacher.load_pretrained", fail)
    monkeypatch.setattr("anomalib_medical.models.components.teacher.Teacher.load_file", fail)
    monkeypatch.setattr("socket.socket.connect", fail)


def test_training_moves_the_student_and_not_the_teacher(trained):
    model, _ = trained
    fresh = weights_of(Scrd(**ARGUMENTS))
    now = weights_of(model)
    moved = {key for key in fresh if not torch.equal(fresh[key], now[key])}
    assert any(key.startswith("model.decoder") for key in moved)
    assert any(key.startswith("model.scale_adaptation") for key in moved)
    assert not any(key.startswith("model.teacher") for key in moved)
    assert now["post_processor._image_threshold"].isfinite()


def test_after_a_test_where_nothing_was_trained_training_works_and_both_stay(tiny_folder, tmp_path):
    run = engine(tmp_path, max_epochs=1)
    run.test(Scrd(**ARGUMENTS), datamodule=datamodule(tiny_folder))
    versions = tmp_path / "Scrd" / tiny_folder.name
    assert list((versions / "v0" / "images").rglob("*.png"))
    again = engine(tmp_path, max_epochs=1)
    again.fit(Scrd(**ARGUMENTS), datamodule=datamodule(tiny_folder))
    assert list((versions / "v0" / "images").rglob("*.png"))
    assert (versions / "latest").resolve() == versions / "v1"
    assert (versions / "v1" / "weights" / "lightning" / "model.ckpt").is_file()
    # A full disk must not cost the checkpoint that is there.
    assert isinstance(again.trainer.strategy.checkpoint_io, MedicalCheckpointIO)


def test_same_seed_same_weights_other_seed_other_weights(tiny_folder, tmp_path, trained):
    model, _ = trained
    torch.manual_seed(123)  # must not matter
    again = Scrd(**ARGUMENTS)
    engine(tmp_path / "again").fit(again, datamodule=datamodule(tiny_folder))
    assert_same(weights_of(model), weights_of(again))
    other = Scrd(**ARGUMENTS | {"seed": 1})
    engine(tmp_path / "other").fit(other, datamodule=datamodule(tiny_folder))
    key = "model.decoder.layer1.0.conv1.weight"
    assert not torch.equal(weights_of(model)[key], weights_of(other)[key])


@pytest.mark.usefixtures("no_network")
def test_resuming_goes_on_from_the_checkpoint(tiny_folder, tmp_path, trained):
    model, path = trained
    resumed = Scrd(**ARGUMENTS | {"pre_trained": True})
    run = engine(tmp_path, max_epochs=3)
    run.fit(resumed, datamodule=datamodule(tiny_folder), ckpt_path=path)
    assert run.trainer.global_step == model.trainer.global_step * 3 // 2
    assert_same(resumed.model.teacher.state_dict(), model.model.teacher.state_dict())


def test_the_contrast_sets_in_after_the_warm_up_in_a_resumed_run_too(tiny_folder, tmp_path, monkeypatch):
    steps = []

    def add_noise(self, images, batch_idx):
        del batch_idx
        steps.append(self.global_step)
        return images + 1

    monkeypatch.setattr(Scrd, "add_noise", add_noise)
    arguments = ARGUMENTS | {"contrast": "local", "warmup_steps": 3}
    run = engine(tmp_path / "first", max_epochs=-1, max_steps=2)
    run.fit(Scrd(**arguments), datamodule=datamodule(tiny_folder))
    assert steps == []
    resumed = engine(tmp_path / "second", max_epochs=-1, max_steps=5)
    checkpoint = run.trainer.checkpoint_callback.best_model_path
    resumed.fit(Scrd(**arguments), datamodule=datamodule(tiny_folder), ckpt_path=checkpoint)
    assert steps == [3, 4]


@pytest.mark.parametrize(("had", "contrast"), [(True, "ratio"), (False, "none")])
def test_a_checkpoint_of_a_version_whose_contrast_was_a_bool_can_be_loaded(trained, tmp_path, had, contrast):
    content = torch.load(trained[1], weights_only=False)
    content["hyper_parameters"]["contrast"] = had
    del content["hyper_parameters"]["warmup_steps"]
    torch.save(content, tmp_path / "older.ckpt")
    # As a bundle does.
    model = load_model(tmp_path / "older.ckpt")
    assert model.contrast == contrast
    assert_same(weights_of(model.model), weights_of(trained[0].model))


@pytest.mark.usefixtures("no_network")
def test_a_checkpoint_needs_no_network_and_no_file(tiny_folder, tmp_path, trained):
    """Built as a user of pretrained weights would, with a file that is gone by now."""
    trained_model, path = trained
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"] |= {"pre_trained": True, "teacher_weights": "/gone/weights.pth"}
    path = tmp_path / "pretrained.ckpt"
    torch.save(checkpoint, path)

    loaded = Scrd.load_from_checkpoint(path)
    assert_same(weights_of(trained_model), weights_of(loaded))

    arguments = ARGUMENTS | {"pre_trained": True, "teacher_weights": None}
    run = engine(tmp_path)
    results = run.test(Scrd(**arguments), datamodule=datamodule(tiny_folder), ckpt_path=path)
    assert 0 <= results[0]["image_AUROC"] <= 1
    predictions = run.predict(Scrd(**arguments), datamodule=datamodule(tiny_folder), ckpt_path=path)
    assert sum(len(batch.pred_score) for batch in predictions) == 8
    exported = run.export(Scrd(**arguments), "onnx", export_root=tmp_path / "export", ckpt_path=path)
    assert exported.exists()


@pytest.mark.usefixtures("no_network")
def test_training_further_from_a_loaded_model_needs_no_network(tiny_folder, tmp_path, trained):
    _, path = trained
    model = Scrd.load_from_checkpoint(path, pre_trained=True)
    engine(tmp_path, max_epochs=1).fit(model, datamodule=datamodule(tiny_folder))


def test_no_network_with_pre_trained_is_one_error_with_the_ways_out(tiny_folder, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("offline")

    model = Scrd(**ARGUMENTS | {"pre_trained": True})
    monkeypatch.setattr("anomalib_medical.models.components.weights.timm.create_model", refuse)
    with pytest.raises(MedicalError, match="Four ways out"):
        engine(tmp_path).fit(model, datamodule=datamodule(tiny_folder))


def test_a_checkpoint_of_another_backbone_is_refused(trained, tmp_path, tiny_folder):
    _, path = trained
    model = Scrd(**ARGUMENTS | {"backbone": "resnet34"})
    with pytest.raises(
        ValueError, match=r"backbone: checkpoint 'resnet18', this model 'resnet34'.*--model.backbone resnet18"
    ):
        engine(tmp_path).test(model, datamodule=datamodule(tiny_folder), ckpt_path=path)


def test_a_checkpoint_with_other_weighting_is_refused(trained):
    _, path = trained
    with pytest.raises(ValueError, match="weighting: checkpoint 'scale_aware', this model 'none'"):
        Scrd(**ARGUMENTS, weighting="none").on_load_checkpoint(torch.load(path, weights_only=True))


@pytest.mark.parametrize(("name", "value"), [("score_reduction", "max"), ("image_size", 96)])
def test_a_checkpoint_whose_threshold_would_not_hold_is_refused(trained, name, value):
    _, path = trained
    model = Scrd(**ARGUMENTS | {name: value})
    with pytest.raises(ValueError, match=f"{name}: checkpoint .*--model.{name}"):
        model.on_load_checkpoint(torch.load(path, weights_only=True))


def test_without_a_post_processor_a_checkpoint_gives_raw_scores(trained):
    model, path = trained
    raw = Scrd.load_from_checkpoint(path, post_processor=False).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.eval().model(model.pre_processor(images)).pred_score
        torch.testing.assert_close(raw(images).pred_score, expected)
    assert raw(images).pred_label is None


def test_a_model_from_a_configuration_can_be_loaded_again(tiny_folder, tmp_path):
    """Anomalib's get_model passes OmegaConf's lists, which a safe checkpoint cannot hold."""
    arguments = ARGUMENTS | {"image_size": [64, 96], "noise_size": [0.1, 0.2]}
    model = get_model({"class_path": "anomalib_medical.Scrd", "init_args": arguments})
    run = engine(tmp_path, max_epochs=1)
    run.fit(model, datamodule=datamodule(tiny_folder))
    loaded = Scrd.load_from_checkpoint(run.trainer.checkpoint_callback.best_model_path)
    assert loaded.hparams["image_size"] == (64, 96)
    assert loaded.noise_size == (0.1, 0.2)


def test_an_evaluator_of_ones_own_does_not_break_the_checkpoint(tiny_folder, tmp_path):
    def evaluator():
        return Evaluator(
            test_metrics=[
                AUROC(fields=["pred_score", "gt_label"], prefix="image_"),
                AUPRO(fields=["anomaly_map", "gt_mask"], prefix="pixel_", strict=False),
            ],
        )

    run = engine(tmp_path, max_epochs=1)
    run.fit(Scrd(**ARGUMENTS, evaluator=evaluator()), datamodule=datamodule(tiny_folder))
    path = run.trainer.checkpoint_callback.best_model_path
    saved = torch.load(path, weights_only=True)
    assert not any(key.startswith("evaluator.") for key in saved["state_dict"])
    Scrd.load_from_checkpoint(path)
    results = engine(tmp_path).test(
        Scrd(**ARGUMENTS, evaluator=evaluator()),
        datamodule=datamodule(tiny_folder),
        ckpt_path=path,
    )
    assert {"image_AUROC", "pixel_AUPRO"} <= results[0].keys()


def test_anomalibs_own_post_processor_survives_a_checkpoint(tiny_folder, tmp_path):
    run = engine(tmp_path, max_epochs=1)
    data = datamodule(tiny_folder, val_split_mode="same_as_test")
    model = Scrd(**ARGUMENTS, post_processor=PostProcessor())
    run.fit(model, datamodule=data)
    loaded = Scrd.load_from_checkpoint(run.trainer.checkpoint_callback.best_model_path).eval()
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images).pred_score, loaded(images).pred_score)


def test_the_teachers_file_is_recorded(tiny_folder, tmp_path):
    source = Scrd(**ARGUMENTS | {"seed": 9}).model.teacher.extractor.feature_extractor.state_dict()
    path = tmp_path / "teacher.pth"
    torch.save(source, path)
    model = Scrd(**ARGUMENTS, teacher_weights=str(path))
    run = engine(tmp_path, max_epochs=1)
    run.fit(model, datamodule=datamodule(tiny_folder))
    assert torch.equal(model.model.teacher.extractor.feature_extractor.conv1.weight, source["conv1.weight"])
    path.unlink()
    loaded = Scrd.load_from_checkpoint(run.trainer.checkpoint_callback.best_model_path)
    assert loaded.teacher_source.startswith("sha256:")
    assert loaded.teacher_source == model.teacher_source


def test_bf16_training_stays_finite_and_scores_are_float32(tiny_folder, tmp_path):
    model = Scrd(**ARGUMENTS)
    run = engine(tmp_path, precision="bf16-mixed", max_epochs=2)
    run.fit(model, datamodule=datamodule(tiny_folder))
    assert torch.isfinite(run.trainer.callback_metrics["train_loss"])
    assert all(value.isfinite().all() for value in model.model.state_dict().values() if value.is_floating_point())
    predictions = run.predict(model, datamodule=datamodule(tiny_folder))
    scores = torch.cat([batch.pred_score for batch in predictions])
    assert scores.isfinite().all()
    assert not torch.equal(scores, scores.bfloat16().float()), "scores must not be rounded to bf16"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_step_in_half_precision_is_finite(trained, dtype):
    """On a CPU Lightning turns 16-mixed into bf16-mixed, so float16 is tried without it."""
    model = copy.deepcopy(trained[0]).train()
    batch = ImageBatch(image=torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    with torch.autocast("cpu", dtype):
        loss = model.training_step(batch, 0)
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", dtype):
        result = model.model(batch.image)
    assert result.pred_score.dtype == result.anomaly_map.dtype == torch.float32
    assert not torch.equal(result.anomaly_map, result.anomaly_map.to(dtype).float())


def test_scale_weights_are_logged(trained):
    model, _ = trained
    logged = model.trainer.callback_metrics
    weights = [float(logged[f"scale_weight_layer{layer}"]) for layer in (1, 2, 3)]
    assert sum(weights) == pytest.approx(1, abs=1e-4)


def test_one_training_image_and_a_batch_of_one(tmp_path):
    root = make_folder(tmp_path / "data", layout={"train/good": 2, "test/good": 1, "test/lesion": 1})
    model = Scrd(**ARGUMENTS)
    run = engine(tmp_path, max_epochs=1)
    run.fit(model, datamodule=MedicalFolder(root=root, train_batch_size=1, eval_batch_size=1, num_workers=0))
    assert torch.isfinite(run.trainer.callback_metrics["train_loss"])


def test_two_processes_train_and_test(tiny_folder, tmp_path):
    """Distributed data parallel on two CPU processes; parameters without a gradient would make it fail."""
    script = tmp_path / "ddp.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import json
            from pathlib import Path

            from anomalib.engine import Engine
            from anomalib_medical import MedicalFolder, Scrd

            if __name__ == "__main__":
                data = MedicalFolder(root={str(tiny_folder)!r}, train_batch_size=2, eval_batch_size=2, num_workers=0,
                                     val_split_ratio=0.25)  # an image for each process at least
                model = Scrd(backbone="resnet18", image_size=64, pre_trained=False, seed=0)
                engine = Engine(accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, logger=False,
                                enable_progress_bar=False, default_root_dir={str(tmp_path / "out")!r})
                engine.fit(model, datamodule=data)
                result = engine.test(model, datamodule=data)
                if engine.trainer.is_global_zero:
                    threshold = float(model.post_processor.image_threshold)
                    found = [engine.trainer.global_step, threshold, result[0]["image_AUROC"]]
                    Path("found.json").write_text(json.dumps(found))
            """,
        ),
    )
    run = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    steps, *rest = json.loads((tmp_path / "found.json").read_text())
    assert steps > 0
    assert np.isfinite(rest).all()
