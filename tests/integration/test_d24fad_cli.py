"""D2-4FAD by the commands of its README, each a process of its own in an empty folder; and on two processes."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from anomalib_medical.callbacks.predictions_file import read_predictions
from tests.helpers.few_shot_tree import make_normals, make_tasks

pytestmark = pytest.mark.slow

MODEL = ["--model.backbone", "resnet18", "--model.image_size", "64"]
SCORES = "--trainer.callbacks+=anomalib_medical.callbacks.PredictionsCSV"


def command(folder, program, *arguments):
    """Run a command of this environment in a folder."""
    path = Path(sys.executable).with_name(program)
    run = subprocess.run(
        [path, *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stdout[-1500:] + run.stderr[-1500:]
    return run.stdout


def test_train_retarget_predict_and_export(tmp_path):
    root = make_tasks(tmp_path / "tasks")
    support = make_normals(tmp_path / "support", 3)
    normals = make_normals(tmp_path / "normals", 20, first_seed=300)
    queries = make_normals(tmp_path / "queries", 2, first_seed=200)
    here = tmp_path / "empty"
    here.mkdir()
    data = ["--data", "anomalib_medical.FewShotTasks", "--data.root", root, "--data.target", "skin"]
    data += ["--data.shots", 2, "--data.num_workers", 0]
    training = ["--model.pre_trained", "false", "--trainer.max_epochs", 1, "--trainer.accelerator", "cpu", SCORES]
    command(here, "anomalib", "train", "--model", "anomalib_medical.D24fad", *MODEL, *data, *training)
    checkpoint = here / "results/D24fad/FewShotTasks_skin/v0/weights/lightning/model.ckpt"
    tested = checkpoint.parents[2] / "predictions.csv"
    assert {row.label for row in read_predictions(tested)} <= {"normal", "abnormal"}

    predict = ["predict", "--model", "anomalib_medical.D24fad", *MODEL, "--data", queries, SCORES]
    predict += ["--trainer.accelerator", "cpu", "--default_root_dir"]
    command(here, "anomalib", *predict, "raw", "--ckpt_path", checkpoint, "--model.support_dir", support)
    raw = read_predictions(next((here / "raw").rglob("predictions.csv")))
    assert {(row.score, row.label, row.threshold) for row in raw} == {("", "", "")}

    retarget = ["retarget", "--ckpt_path", checkpoint, "--support_dir", support, "--normals_dir", normals]
    assert "3 support images, image threshold" in command(here, "anomalib-medical", *retarget, "--output", "new.ckpt")
    command(here, "anomalib", *predict, "new", "--ckpt_path", "new.ckpt")
    labelled = read_predictions(next((here / "new").rglob("predictions.csv")))
    assert all(row.label and row.score and row.threshold for row in labelled)
    assert [float(row.raw_score) for row in labelled] == pytest.approx([float(row.raw_score) for row in raw], abs=1e-5)

    export = ["--ckpt_path", "new.ckpt", "--export_type", "openvino", "--export_root", "exported"]
    command(here, "anomalib", "export", "--model", "anomalib_medical.D24fad", *MODEL, *export)
    assert list((here / "exported").rglob("model.xml"))


def test_two_processes_train_and_test(tmp_path):
    """Distributed data parallel on two CPU processes; parameters without a gradient would make it fail."""
    root = make_tasks(tmp_path / "tasks")
    script = tmp_path / "ddp.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import json
            from pathlib import Path

            from anomalib.engine import Engine
            from anomalib_medical import D24fad, FewShotTasks

            if __name__ == "__main__":
                data = FewShotTasks("skin", {str(root)!r}, shots=2, train_batch_size=2, num_workers=0)
                model = D24fad(backbone="resnet18", image_size=64, pre_trained=False, seed=0)
                engine = Engine(accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, logger=False,
                                enable_progress_bar=False, default_root_dir={str(tmp_path / "out")!r})
                result = engine.train(model, datamodule=data)
                found = [float(model.post_processor.image_threshold),
                         float(model.model.decoder.layer1[0].conv1.weight.sum()), result[0]["image_AUROC"]]
                # A file a process: what two of them print at once comes out mixed.
                Path(f"{{engine.trainer.global_rank}}.json").write_text(json.dumps(found))
            """,
        ),
    )
    run = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    # Both have the same weights, and with them the same threshold.
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
