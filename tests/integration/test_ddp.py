"""Two processes on the CPU, started as users start them: what they test is what one process tests."""

import csv
import re

import pytest
import torch

from tests.conftest import make_folder
from tests.helpers.commands import fail, succeed

pytestmark = pytest.mark.slow
SMALL = ["--model.backbone", "resnet18", "--model.image_size", "64", "--model.pre_trained", "false"]
LOADING = ["--data.train_batch_size", "4", "--data.eval_batch_size", "2", "--data.num_workers", "0"]
TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
ONE = ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
CSV = "--trainer.callbacks+=anomalib_medical.callbacks.PredictionsCSV"
HELD_OUT = 21  # of 40 training images


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eleven test images, one of which lacks its mask, and nine unlabeled ones."""
    root = make_folder(
        tmp_path_factory.mktemp("data") / "odd", 64, {"train/good": 40, "test/good": 6, "test/lesion": 5}
    )
    (root / "ground_truth" / "lesion" / "test_lesion_001.png").unlink()
    make_folder(root, 48, {"unlabeled": 9})
    return root


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Three tasks with seven test images each."""
    root = tmp_path_factory.mktemp("data") / "tasks"
    for name in ("brain", "lung", "skin"):
        make_folder(root / name, 64, {"train/good": 11, "test/good": 4, "test/lesion": 3})
    return root


def metrics_of(shown):
    """Test metrics in the table that Lightning prints."""
    found = {name: float(value) for name, value in re.findall(r"(\w+_(?:AUROC|F1Score))\W+?│\W+([\d.e-]+)", shown)}
    assert {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"} <= found.keys(), shown[-3000:]
    return found


def rows_of(run, name="predictions.csv"):
    with (run / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def check(model, data, images, held_out, cwd, epochs=2):
    """Train and test on two devices, test the checkpoint on one: all that is written and printed is the same."""
    training = [*TWO, "--trainer.max_epochs", epochs, CSV]
    shown = succeed("anomalib", "train", *model, *data, *LOADING, *training, cwd=cwd)
    (run,) = [path for path in cwd.glob("results/*/*/*") if path.name != "latest"]
    assert run.name == "v0"
    (checkpoint,) = run.rglob("*.ckpt")
    trained = torch.load(checkpoint, map_location="cpu", weights_only=True)
    assert trained["anomalib_post_processor_config"]["held_out"] == held_out

    two = rows_of(run)
    assert len({row["path"] for row in two}) == len(two) == images
    assert [path.name for path in run.glob("predictions*.csv")] == ["predictions.csv"]
    assert len(list((run / "images").rglob("*.png"))) == images

    again = succeed("anomalib", "test", *model, *data, *LOADING, *ONE, CSV, "--ckpt_path", checkpoint, cwd=cwd)
    one = rows_of(run, "predictions_1.csv")
    assert metrics_of(again) == pytest.approx(metrics_of(shown), abs=1e-6)
    for name in ("path", "label", "threshold", "gt_label", "patient"):
        assert [row[name] for row in one] == [row[name] for row in two], name
    # Other images in a batch round in another way.
    assert [float(row["raw_score"]) for row in one] == pytest.approx([float(row["raw_score"]) for row in two], rel=1e-5)
    print(f"one process  {metrics_of(again)}\ntwo          {metrics_of(shown)}")


def test_scrd_whose_score_is_fitted_to_held_out_normals(folder, tmp_path):
    model = ["--model", "anomalib_medical.Scrd", *SMALL]
    fitted = ["--model.score_reduction", "auto", "--model.map_normalization", "pixel"]
    data = ["--data", "anomalib_medical.MedicalFolder", "--data.root", folder]
    check([*model, *fitted], [*data, "--data.val_split_ratio", HELD_OUT / 40], 11, HELD_OUT, tmp_path)


@pytest.mark.parametrize("score", ["inter", pytest.param("refined", marks=pytest.mark.nightly)])
def test_ddad_with_unlabeled_images(folder, tmp_path, score):
    model = ["--model", "anomalib_medical.Ddad", "--model.image_size", "16", "--model.members", "2"]
    data = ["--data", "anomalib_medical.MedicalFolder", "--data.root", folder, "--data.val_split_ratio", HELD_OUT / 40]
    check([*model, "--model.score", score, "--model.refinement_epochs", "2"], data, 11, HELD_OUT, tmp_path, epochs=8)


def test_d24fad_with_the_support_of_a_task_that_is_left_out(tasks, tmp_path):
    model = ["--model", "anomalib_medical.D24fad", *SMALL]
    data = ["--data", "anomalib_medical.FewShotTasks", "--data.root", tasks, "--data.target", "skin"]
    # The threshold is the support's own.
    check(model, [*data, "--data.shots", "3"], 7, 3, tmp_path)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_notebook"])
def test_processes_that_give_back_half_a_model_are_refused(folder, capsys, strategy):
    data = ["--data", "anomalib_medical.MedicalFolder", "--data.root", folder]
    error = fail(capsys, "train", "--model", "anomalib_medical.Scrd", *SMALL, *data, *LOADING, *TWO[:-1], strategy)
    assert f"copies of this one ({strategy})" in error
    assert "--trainer.strategy ddp" in error
