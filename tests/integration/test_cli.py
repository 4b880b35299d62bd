"""anomalib's commands on Scrd from an empty folder, in fresh processes with nothing imported first."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino
import pytest
import yaml

from anomalib_medical.callbacks.predictions_file import Prediction, read_predictions
from anomalib_medical.data.io import read_image

SIZE = 64
SCRD = {"backbone": "resnet18", "image_size": SIZE, "pre_trained": False, "seed": 0}
MODEL = [f"--model.{name}={str(value).lower()}" for name, value in SCRD.items()]
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1"]
CSV = "--trainer.callbacks+=anomalib_medical.callbacks.PredictionsCSV"


def start(program: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a console script of the environment the tests run in."""
    command = [str(Path(sys.executable).with_name(program)), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def succeed(program: str, *arguments: object, cwd: Path) -> str:
    """Run a console script that must succeed; returns all it printed."""
    result = start(program, *arguments, cwd=cwd)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout + result.stderr


@dataclass
class Trained:
    """One training, shared by the tests of this file; none of them writes into `run`."""

    config: Path
    run: Path

    @property
    def checkpoint(self) -> Path:
        return self.run / "weights" / "lightning" / "model.ckpt"

    @property
    def predictions(self) -> list[Prediction]:
        return read_predictions(self.run / "predictions.csv")


@pytest.fixture(scope="session")
def trained(tiny_folder, tmp_path_factory) -> Trained:
    """`anomalib train` with a configuration file and class paths."""
    folder = tmp_path_factory.mktemp("trained")
    config = folder / "config.yaml"
    content = {
        "model": {"class_path": "anomalib_medical.Scrd", "init_args": SCRD},
        "data": {
            "class_path": "anomalib_medical.MedicalFolder",
            "init_args": {"root": str(tiny_folder), "name": "tiny", "train_batch_size": 4, "num_workers": 0},
        },
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 1,
            "callbacks": [{"class_path": "anomalib_medical.callbacks.PredictionsCSV"}],
        },
    }
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    succeed("anomalib", "train", "--config", config, cwd=folder)
    return Trained(config, folder / "results" / "Scrd" / "tiny" / "v0")


def raw_scores(rows: list[Prediction]) -> dict[str, float]:
    return {Path(row.path).name: float(row.raw_score) for row in rows}


def test_train_writes_weights_heatmaps_and_scores(trained, tiny_folder):
    assert trained.checkpoint.is_file()
    names = sorted(path.name for path in (tiny_folder / "test").rglob("*.png"))
    assert sorted(path.name for path in (trained.run / "images").rglob("*.png")) == names
    assert sorted(Path(row.path).name for row in trained.predictions) == names
    for row in trained.predictions:
        assert row.gt_label == ("abnormal" if "lesion" in row.path else "normal")
        assert (float(row.raw_score) > float(row.threshold)) == (row.label == "abnormal")
        assert (float(row.score) > 0.5) == (row.label == "abnormal")


def test_test_by_short_names_repeats_the_scores(trained, tiny_folder, tmp_path):
    data = ["--data=MedicalFolder", f"--data.root={tiny_folder}", "--data.name=tiny", "--data.num_workers=0"]
    checkpoint = f"--ckpt_path={trained.checkpoint}"
    printed = succeed("anomalib-medical", "test", "--model=Scrd", *MODEL, *data, *CPU, checkpoint, cwd=tmp_path)
    assert "image_AUROC" in printed
    (written,) = tmp_path.rglob("predictions.csv")
    # Written without asking for it: on by default in anomalib-medical.
    assert raw_scores(read_predictions(written)) == pytest.approx(raw_scores(trained.predictions), abs=1e-6)


def test_fit_and_validate_by_class_path(trained, tiny_folder, tmp_path):
    model = ["--model=anomalib_medical.Scrd", *MODEL]
    data = ["--data=anomalib_medical.MedicalFolder", f"--data.root={tiny_folder}", "--data.num_workers=0"]
    succeed("anomalib", "fit", *model, *data, *CPU, "--trainer.max_epochs=1", cwd=tmp_path)
    (checkpoint,) = tmp_path.glob(f"results/Scrd/{tiny_folder.name}/v0/weights/lightning/model.ckpt")
    assert checkpoint.stat().st_size > 0
    succeed("anomalib", "validate", "--config", trained.config, f"--ckpt_path={checkpoint}", cwd=tmp_path)


def test_predict_of_a_folder_saves_scores_and_heatmaps(trained, tiny_folder, tmp_path):
    # A link, because anomalib's predict refuses a folder with a non-ASCII name.
    lesions = tmp_path / "lesions"
    lesions.symlink_to(tiny_folder / "test" / "lesion", target_is_directory=True)
    model = ["--model=anomalib_medical.Scrd", *MODEL, f"--ckpt_path={trained.checkpoint}"]
    succeed("anomalib", "predict", *model, f"--data={lesions}", *CPU, CSV, cwd=tmp_path)
    (written,) = tmp_path.rglob("predictions.csv")
    names = {path.name for path in lesions.iterdir()}
    assert {path.name for path in (written.parent / "images").rglob("*.png")} == names
    expected = {name: score for name, score in raw_scores(trained.predictions).items() if name in names}
    assert raw_scores(read_predictions(written)) == pytest.approx(expected, abs=1e-5)


def test_export_gives_the_scores_of_the_test(trained, tmp_path):
    arguments = ["--export_type=openvino", f"--ckpt_path={trained.checkpoint}", f"--export_root={tmp_path}"]
    succeed("anomalib-medical", "export", "--model=Scrd", *MODEL, *arguments, cwd=tmp_path)
    model = tmp_path / "weights" / "openvino" / "model.xml"
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    scores = [
        float(np.squeeze(compiled(read_image(row.path).numpy()[None])["pred_score"])) for row in trained.predictions
    ]
    assert scores == pytest.approx([float(row.score) for row in trained.predictions], abs=1e-4)


def test_a_missing_folder_is_one_clear_line(tmp_path):
    data = ["--data=MedicalFolder", f"--data.root={tmp_path / 'nowhere'}"]
    result = start("anomalib-medical", "train", "--model=Scrd", *MODEL, *data, *CPU, cwd=tmp_path)
    assert result.returncode == 1
    error = next(line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert str(tmp_path / "nowhere") in error
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("root", "code"), [pytest.param("tiny", 0, marks=pytest.mark.slow), ("nowhere", 1)])
def test_benchmark_takes_our_classes_and_fails_honestly(root, code, tiny_folder, tmp_path):
    init_args = {"root": str(tiny_folder if root == "tiny" else tmp_path / root), "num_workers": 0}
    config = {
        "accelerator": "cpu",
        "benchmark": {
            "seed": 0,
            "model": {"class_path": "Padim", "init_args": {"backbone": "resnet18", "pre_trained": False}},
            "data": {"class_path": "MedicalFolder", "init_args": init_args},
        },
    }
    (tmp_path / "benchmark.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    result = start("anomalib-medical", "benchmark", "--config=benchmark.yaml", cwd=tmp_path)
    assert result.returncode == code, result.stderr[-4000:]
    assert len(list(tmp_path.rglob("results.csv"))) == 1 - code
    if code:
        assert f"error: The benchmark failed. The log with the reasons is {tmp_path}" in result.stderr
