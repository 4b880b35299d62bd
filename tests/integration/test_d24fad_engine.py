"""D2-4FAD through anomalib's engine and the command line: training, new organs, checkpoints, wrong input."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from anomalib.engine import Engine
from PIL import Image

from anomalib_medical import D24fad, FewShotTasks, MedicalFolder
from anomalib_medical.callbacks import PredictionsCSV
from anomalib_medical.callbacks.predictions_file import read_predictions
from anomalib_medical.cli import main as cli
from anomalib_medical.data.dataset import MedicalPredictDataset
from anomalib_medical.data.few_shot.support import read_normals
from anomalib_medical.io import ImageReadError, Window
from tests.conftest import make_folder
from tests.helpers.few_shot_tree import make_normals, make_tasks

ARGUMENTS = {"backbone": "resnet18", "image_size": 64, "pre_trained": False, "seed": 0}


def tasks_of(root, target="skin", **kwargs):
    options = {"shots": 2, "train_batch_size": 8, "eval_batch_size": 8, "num_workers": 0, "val_split_ratio": 0.2}
    return FewShotTasks(target, root, **options | kwargs)


def engine(folder, **kwargs):
    options = {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}
    return Engine(default_root_dir=folder, **options | kwargs)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def new_organ(tmp_path_factory):
    return make_normals(tmp_path_factory.mktemp("new") / "support", 3)


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    """A model that has learnt brain and lung, with the support of skin, tested on skin."""
    writer = PredictionsCSV()
    trained = engine(tmp_path_factory.mktemp("run"), callbacks=[writer])
    model = D24fad(**ARGUMENTS)
    results = trained.train(model, datamodule=tasks_of(root))
    return model, trained.trainer.checkpoint_callback.best_model_path, results[0], writer.path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def score(model, images):
    with torch.no_grad():
        return model.eval().model(model.pre_processor(images)).pred_score


PICTURES = torch.rand(2, 3, 70, 64, generator=torch.Generator().manual_seed(0))


# Training


def test_training_moves_student_and_weighting_and_not_the_teacher(run):
    model = run[0]
    fresh, now = D24fad(**ARGUMENTS).state_dict(), model.state_dict()
    moved = {key for key in fresh if fresh[key].shape == now[key].shape and not torch.equal(fresh[key], now[key])}
    assert any(key.startswith("model.decoder") for key in moved)
    assert any(key.startswith("model.attention") for key in moved)
    assert not any(key.startswith("model.teacher") for key in moved)


def test_train_tests_the_target_against_its_support(run, root):
    model, path, results, predictions = run
    assert {"image_AUROC", "image_F1Score", "pixel_AUROC"} <= results.keys()
    saved = torch.load(path, weights_only=True)
    support = tasks_of(root)
    support.setup()
    files = {digest(root.joinpath(file)) for file in support.support_data.samples.image_path}
    assert {image["sha256"] for image in saved["support_record"]["images"]} == files
    assert len(files) == 2
    # The threshold is that of the support's images against each other, not of the tasks that trained.
    left_out = model.model.leave_one_out().pred_score
    torch.testing.assert_close(model.post_processor.image_threshold, left_out.max())
    record = json.loads(predictions.with_name("predictions_support.json").read_text())
    assert record == saved["support_record"]
    assert len(read_predictions(predictions)) == 6


def test_names_of_support_images_are_hashed(run):
    record = torch.load(run[1], weights_only=True)["support_record"]
    names = [image["name"] for image in record["images"]]
    assert all(name.startswith("s-") for name in names)
    assert len(set(names)) == record["count"] == 2
    assert "train_good" not in json.dumps(record)


def test_a_checkpoint_needs_no_network_no_teacher_and_no_folder(run, root, monkeypatch, tmp_path):
    def fail(*_, **__):
        pytest.fail("the network was touched")

    monkeypatch.setattr("socket.socket.connect", fail)
    monkeypatch.setattr("anomalib_medical.models.components.teacher.Teacher.load_pretrained", fail)
    monkeypatch.setattr("anomalib_medical.models.components.teacher.Teacher.load_file", fail)
    checkpoint = torch.load(run[1], weights_only=True)
    checkpoint["hyper_parameters"] |= {"pre_trained": True, "teacher_weights": "/gone/weights.pth"}
    path = tmp_path / "pretrained.ckpt"
    torch.save(checkpoint, path)
    loaded = D24fad.load_from_checkpoint(path)
    torch.testing.assert_close(score(loaded, PICTURES), score(run[0], PICTURES))
    assert loaded.post_processor.image_threshold == run[0].post_processor.image_threshold
    # Without any support folder: images of nobody's target.
    single = MedicalPredictDataset(root / "lung" / "test" / "good")
    predictions = engine(tmp_path).predict(D24fad(**ARGUMENTS), dataset=single, ckpt_path=path)
    assert all(batch.pred_label is not None for batch in predictions)


def test_one_support_image_trains_and_tests_without_a_threshold(root, tmp_path, caplog):
    run = engine(tmp_path, callbacks=[writer := PredictionsCSV()])
    results = run.train(D24fad(**ARGUMENTS), datamodule=tasks_of(root, shots=3, target_shots=1))[0]
    assert 0 <= results["image_AUROC"] <= 1
    assert "There is no threshold for this support" in caplog.text
    rows = read_predictions(writer.path)
    assert {(row.score, row.label, row.threshold) for row in rows} == {("", "", "")}
    assert all(float(row.raw_score) > 0 for row in rows)


def one_task(root, **kwargs):
    return MedicalFolder(root / "brain", num_workers=0, val_split_ratio=0.3, **{"train_batch_size": 4} | kwargs)


def test_data_of_one_task_trains_within_it(root, tmp_path, caplog):
    """The support is four training images, and the threshold that of the held-out ones against them."""
    model, data = D24fad(**ARGUMENTS), one_task(root)
    run = engine(tmp_path, max_epochs=2)
    results = run.train(model, datamodule=data)[0]
    assert caplog.text.count("The data is of one task, without episodes") == 1
    assert "and test images with 4 of the training images" in caplog.text
    assert {"image_AUROC", "pixel_AUROC"} <= results.keys()
    path = run.trainer.checkpoint_callback.best_model_path
    record = torch.load(path, weights_only=True)["support_record"]
    assert record["count"] == len(model.model.support) == 4
    assert {image["sha256"] for image in record["images"]} <= {
        digest(Path(p)) for p in data.train_data.samples.image_path
    }
    loaded = D24fad.load_from_checkpoint(path).eval()
    normals = torch.stack([torch.Tensor(data.val_data[row].image) for row in range(len(data.val_data))])
    torch.testing.assert_close(loaded.post_processor.image_threshold, score(loaded, normals).max(), rtol=0, atol=1e-5)
    torch.testing.assert_close(score(loaded, PICTURES), score(model, PICTURES))
    # Another seed, another support.
    other = D24fad(**ARGUMENTS | {"seed": 1})
    engine(tmp_path / "other").fit(other, datamodule=one_task(root))
    assert other.support_record["sha256"] != record["sha256"]


@pytest.mark.parametrize("score", [{"score_reduction": "auto"}, {"map_normalization": "pixel"}], ids=["auto", "pixel"])
def test_on_data_of_one_task_the_score_is_fitted_to_its_held_out_images(tmp_path, score):
    images = make_folder(tmp_path / "data", layout={"train/good": 26, "test/good": 1, "test/lesion": 1})
    model = D24fad(**ARGUMENTS, **score)
    data = MedicalFolder(images, num_workers=0, val_split_ratio=0.8, train_batch_size=4)
    engine(tmp_path, max_epochs=1).fit(model, datamodule=data)
    assert model.model.map_score.is_fitted == ("map_normalization" in score)
    assert torch.isfinite(model.post_processor.image_threshold)


def test_a_support_that_is_given_wins_over_the_only_tasks_images(root, new_organ, tmp_path, caplog):
    model = D24fad(**ARGUMENTS, support_dir=str(new_organ))
    engine(tmp_path).fit(model, datamodule=one_task(root))
    assert "and test images with the support that was given" in caplog.text
    assert {image["sha256"] for image in model.support_record["images"]} == {
        digest(each) for each in new_organ.iterdir()
    }
    assert not model.post_processor.awaits_calibration


def test_batches_of_one_patient_are_refused_in_the_end(root, tmp_path, caplog):
    data = one_task(root, train_batch_size=1)
    with pytest.raises(ValueError, match=r"has 1 image and no two patients.*larger --data\.train_batch_size"):
        engine(tmp_path).fit(D24fad(**ARGUMENTS), datamodule=data)
    caplog.clear()
    engine(tmp_path).fit(D24fad(**ARGUMENTS), datamodule=one_task(root, train_batch_size=5))
    assert caplog.text.count("Batches like it are left out") == 1


@pytest.mark.parametrize("of_one_task", [True, False])
def test_the_teachers_features_are_fitted_without_training(root, tmp_path, of_one_task):
    model = D24fad(**ARGUMENTS, matching="nearest", window=0.25, features="teacher")
    before = {key: value.clone() for key, value in model.model.teacher.state_dict().items()}
    run = engine(tmp_path, max_epochs=50)
    run.fit(model, datamodule=one_task(root) if of_one_task else tasks_of(root))
    assert run.trainer.current_epoch == run.trainer.global_step == 1
    assert len(model.model.support) == (4 if of_one_task else 2)
    assert all(torch.equal(value, before[key]) for key, value in model.model.teacher.state_dict().items())
    loaded = D24fad.load_from_checkpoint(run.trainer.checkpoint_callback.best_model_path).eval()
    assert loaded(PICTURES).pred_label is not None


def test_bf16_training_is_finite_and_scores_are_float32(root, tmp_path):
    model = D24fad(**ARGUMENTS)
    run = engine(tmp_path, precision="bf16-mixed")
    run.fit(model, datamodule=tasks_of(root))
    assert torch.isfinite(run.trainer.callback_metrics["train_loss"])
    assert all(value.isfinite().all() for value in model.model.state_dict().values())
    scores = torch.cat([batch.pred_score for batch in run.predict(model, datamodule=tasks_of(root))])
    assert not torch.equal(scores, scores.bfloat16().float())


# Another organ


def test_the_support_folder_wins_over_the_checkpoint_and_the_data(run, root, new_organ, tmp_path):
    model = D24fad(**ARGUMENTS, support_dir=str(new_organ))
    writer = PredictionsCSV()
    engine(tmp_path, callbacks=[writer]).test(model, datamodule=tasks_of(root), ckpt_path=run[1])
    assert {image["sha256"] for image in model.support_record["images"]} == {
        digest(file) for file in new_organ.iterdir()
    }
    assert len(model.model.support) == 3
    assert score(model, PICTURES).ne(score(run[0], PICTURES)).all()
    rows = read_predictions(writer.path)
    assert {(row.score, row.label, row.threshold) for row in rows} == {("", "", "")}
    record = json.loads(writer.path.with_name("predictions_support.json").read_text())
    assert record["count"] == 3
    assert all(image["name"].startswith("s-") for image in record["images"])
    assert "PATIENT" not in json.dumps(record)


def test_the_support_folder_is_no_hyper_parameter(run, new_organ, tmp_path):
    model = D24fad.load_from_checkpoint(run[1], support_dir=str(new_organ), support_shots=2)
    assert len(model.model.support) == 2
    for name in ("support_dir", "support_shots", "support_window"):
        assert model.hparams.get(name) is model.hparams_initial.get(name) is None
    trainer = engine(tmp_path, max_epochs=0)
    trainer.predict(model, dataset=MedicalPredictDataset(make_query(tmp_path)))
    trainer.trainer.save_checkpoint(tmp_path / "new.ckpt")
    assert str(new_organ).encode() not in (tmp_path / "new.ckpt").read_bytes()
    again = D24fad.load_from_checkpoint(tmp_path / "new.ckpt")
    torch.testing.assert_close(score(again, PICTURES), score(model, PICTURES))
    assert again.post_processor.awaits_calibration
    assert again(PICTURES).pred_label is None


def make_query(folder):
    return make_normals(folder / "query", 2, first_seed=200)


def test_set_support_wins_over_a_checkpoint_that_is_loaded_later(run, tmp_path):
    expected = D24fad.load_from_checkpoint(run[1])
    expected.set_support(PICTURES)
    model = D24fad(**ARGUMENTS)
    model.set_support(PICTURES)
    predictions = engine(tmp_path).predict(model, dataset=MedicalPredictDataset(make_query(tmp_path)), ckpt_path=run[1])
    torch.testing.assert_close(score(model, PICTURES), score(expected, PICTURES))
    assert all(batch.pred_label is None for batch in predictions)
    assert model.post_processor.image_threshold.isnan()


def test_the_data_of_another_target_brings_its_support(run, root, tmp_path):
    model = D24fad(**ARGUMENTS)
    results = engine(tmp_path).test(model, datamodule=tasks_of(root, "brain"), ckpt_path=run[1])[0]
    assert model.post_processor.awaits_calibration
    assert 0 <= results["image_AUROC"] <= 1
    same = D24fad(**ARGUMENTS)
    engine(tmp_path).test(same, datamodule=tasks_of(root), ckpt_path=run[1])
    assert same.post_processor.image_threshold == run[0].post_processor.image_threshold


def test_calibrating_from_a_datamodule_or_a_validation_run(run, root, tmp_path):
    model = D24fad.load_from_checkpoint(run[1])
    brain = MedicalFolder(root / "brain", num_workers=0, val_split_ratio=0.5)
    model.set_support(PICTURES)
    model.recalibrate(read_normals(brain, model.support_record))
    threshold = model.post_processor.image_threshold.clone()
    assert threshold.isfinite()
    assert not model.post_processor.awaits_calibration
    model.post_processor.invalidate()
    engine(tmp_path).validate(model, datamodule=brain)
    torch.testing.assert_close(model.post_processor.image_threshold, threshold)
    assert not model.post_processor.awaits_calibration
    with pytest.raises(ValueError, match="FewShotTasks validates on other tasks than the target's"):
        read_normals(tasks_of(root), model.support_record)


def test_validating_on_episodes_leaves_the_targets_threshold(run, root, tmp_path):
    model = D24fad.load_from_checkpoint(run[1])
    threshold = model.post_processor.image_threshold.clone()
    engine(tmp_path).validate(model, datamodule=tasks_of(root))
    torch.testing.assert_close(model.post_processor.image_threshold, threshold)


def test_diverse_support_images_are_chosen_from_the_pool(run, root, tmp_path):
    chosen = []
    for selection in ("random", "diverse"):
        datamodule = tasks_of(root, target_shots=3)
        model = D24fad(**ARGUMENTS, support_selection=selection)
        engine(tmp_path).test(model, datamodule=datamodule, ckpt_path=run[1])
        chosen.append(set(model.support_names))
    assert len(chosen[0]) == len(chosen[1]) == 3
    assert chosen[0] != chosen[1]


# The command line


def retarget(*arguments):
    cli.main(["retarget", *(str(argument) for argument in arguments)])


def test_retarget_gives_a_checkpoint_for_the_new_organ(run, new_organ, tmp_path, capsys):
    path = tmp_path / "new.ckpt"
    retarget("--ckpt_path", run[1], "--support_dir", new_organ, "--output", path)
    assert "3 support images, image threshold" in capsys.readouterr().out
    loaded = D24fad.load_from_checkpoint(path)
    torch.testing.assert_close(loaded.post_processor.image_threshold, loaded.model.leave_one_out().pred_score.max())
    # As the engine restores it, which puts the state of callbacks back too.
    model = D24fad(**ARGUMENTS)
    predictions = engine(tmp_path).predict(model, dataset=MedicalPredictDataset(make_query(tmp_path)), ckpt_path=path)
    assert model.post_processor.image_threshold == loaded.post_processor.image_threshold
    assert all(batch.pred_label is not None for batch in predictions)
    saved = torch.load(path, weights_only=True)
    # Of the training run nothing is left: it was another organ's.
    assert not {"callbacks", "optimizer_states", "loops"} & saved.keys()
    names = {image["name"] for image in saved["support_record"]["images"]}
    assert len(names) == 3
    assert all(name.startswith("s-") for name in names)
    assert saved["reading"] == {"window": None}


def test_retarget_calibrates_from_held_out_normals(run, new_organ, tmp_path, capsys):
    normals = make_normals(tmp_path / "normals", 20, first_seed=300)
    path = tmp_path / "new.ckpt"
    arguments = ("--ckpt_path", run[1], "--support_dir", new_organ, "--shots", 1, "--normals_dir", normals)
    retarget(*arguments, "--output", path, "--window", "bone")
    assert torch.load(path, weights_only=True)["reading"] == {"window": "bone"}  # another organ, another window
    assert "1 support image, image threshold" in capsys.readouterr().out
    model = D24fad.load_from_checkpoint(path).eval()
    images = torch.stack([torch.Tensor(item.image) for item in MedicalPredictDataset(normals)])
    # 95% of 20 images: rank ceil(21 * 0.95) = 20.
    torch.testing.assert_close(model.post_processor.image_threshold, score(model, images).max(), atol=1e-5, rtol=0)
    with pytest.raises(SystemExit):
        retarget(*arguments, "--output", path)
    assert "is there already, and nothing is overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"--ckpt_path": "none.ckpt"}, "There is no checkpoint none.ckpt"),
        ({"--shots": "4"}, r"support_shots is 4, and .* holds 3 images: add images, or ask for fewer"),
        ({"--support_dir": "."}, "support_dir is .: it holds 0 images. Expected a folder with at least 1"),
        ({"--normals_dir": "support"}, "in the support too, such as"),
    ],
)
def test_retarget_refuses(run, new_organ, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    defaults = {"--ckpt_path": run[1], "--support_dir": str(new_organ), "--output": "new.ckpt"}
    chosen = defaults | {key: str(new_organ) if value == "support" else value for key, value in options.items()}
    with pytest.raises(SystemExit):
        retarget(*(part for pair in chosen.items() for part in pair))
    error = capsys.readouterr().err.casefold()
    assert all(part.strip().casefold() in error for part in message.split(".*"))
    assert not (tmp_path / "new.ckpt").exists()


def test_exporting_another_support_is_refused_as_it_would_be_lost(run, new_organ, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--model", "D24fad", "--ckpt_path", str(run[1]), "--export_type", "torch"]
    with pytest.raises(SystemExit):
        cli.main(["export", *arguments, "--model.support_dir", str(new_organ)])
    assert "anomalib-medical retarget" in capsys.readouterr().err


# Wrong input


def test_images_that_are_in_the_support_are_not_scored(run, new_organ, tmp_path):
    query = make_query(tmp_path)
    shutil.copy(sorted(new_organ.iterdir())[1], query / "copy_under_another_name.png")
    model = D24fad(**ARGUMENTS, support_dir=str(new_organ))
    with pytest.raises(ValueError, match=r"1 of the 3 images to score is in the support too, such as .*another_name"):
        engine(tmp_path).predict(model, dataset=MedicalPredictDataset(query), ckpt_path=run[1])


def test_a_support_that_is_read_with_another_window_is_refused(run, new_organ, tmp_path):
    dataset = MedicalPredictDataset(make_query(tmp_path), Window.of("lung"))
    model = D24fad(**ARGUMENTS, support_dir=str(new_organ))
    with pytest.raises(ValueError, match=r"window Window.*set --model\.support_window to the same"):
        engine(tmp_path).predict(model, dataset=dataset, ckpt_path=run[1])
    alike = D24fad(**ARGUMENTS, support_dir=str(new_organ), support_window="lung")
    assert engine(tmp_path).predict(alike, dataset=dataset, ckpt_path=run[1])


def test_a_damaged_support_file_is_named(run, tmp_path):
    folder = make_normals(tmp_path / "support", 2)
    broken = folder / "broken.png"
    broken.write_bytes((folder / "PATIENT_0.png").read_bytes()[:200])
    with pytest.raises(ImageReadError, match=r"broken\.png"):
        D24fad.load_from_checkpoint(run[1], support_dir=str(folder))


def test_the_torch_export_holds_neither_names_nor_pixels_of_the_support(run, tmp_path):
    folder = tmp_path / "support"
    folder.mkdir()
    Image.new("L", (64, 64), 77).save(folder / "SECRET_NAME.png")
    model = D24fad.load_from_checkpoint(run[1], support_dir=str(folder))
    path = model.to_torch(tmp_path)
    assert b"SECRET_NAME" not in path.read_bytes()
    exported = torch.load(path, weights_only=False)["model"]
    assert exported.explicit_support is exported.support_dir is None
    assert model.explicit_support is not None
    torch.testing.assert_close(score(exported, PICTURES), score(model, PICTURES))
