"""The quickstart's reuse of finished runs and its check of the export; training is another test's matter."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops
from PIL import Image

from anomalib_medical.callbacks.predictions_file import PartialFile, Prediction, publish
from anomalib_medical.cli import quickstart as module
from anomalib_medical.cli.quickstart import STAMP, FinishedRun, quickstart
from anomalib_medical.errors import MedicalError


def write_run(output: Path, made_by: str, error: float = 0.0) -> FinishedRun:
    """A run whose model scores an image by its mean, with `error` added to the scores on file."""
    run = output / "Scrd" / "Phantom" / "v0"
    run.mkdir(parents=True)
    partial = PartialFile.first_free(run)
    for index, value in enumerate((0, 51, 204, 255)):
        Image.fromarray(np.full((8, 8), value, np.uint8)).save(run / f"{index}.png")
        truth = "abnormal" if index > 1 else "normal"
        score = str(value / 255 + error)
        partial.write([Prediction(str(run / f"{index}.png"), score, score, truth, "0.5", truth)])
    partial.close()
    image = ops.parameter([-1, 3, -1, -1], np.float32)
    score = ops.reduce_mean(image, [1, 2, 3])
    score.output(0).get_tensor().set_names({"pred_score"})
    openvino.save_model(openvino.Model([score], [image]), run / "model.xml", compress_to_fp16=False)
    relative = run.relative_to(output)
    return FinishedRun(
        made_by=made_by,
        run=str(relative),
        predictions=str(publish(partial.path).relative_to(output)),
        model=str(relative / "model.xml"),
        pixel_auroc=0.75,
    )


@pytest.fixture
def trainings(monkeypatch) -> list[Path]:
    """Replaces the training; lists the outputs it was called for."""
    calls: list[Path] = []

    def train(_: Path, output: Path, made_by: str) -> FinishedRun:
        calls.append(output)
        folder = str(len(calls))
        run = write_run(output / folder, made_by)
        return replace(
            run,
            run=f"{folder}/{run.run}",
            predictions=f"{folder}/{run.predictions}",
            model=f"{folder}/{run.model}",
        )

    monkeypatch.setattr(module, "_train_and_export", train)
    return calls


def test_the_summary_names_results_and_files(trainings, tmp_path, capsys):
    quickstart(tmp_path)
    shown = capsys.readouterr().out
    assert len(trainings) == 1
    assert re.search(r"^Image AUROC +1\.000 \[.*\] \(4 images: 2 normal, 2 abnormal\)$", shown, re.MULTILINE)
    assert re.search(r"^Pixel AUROC +0\.750$", shown, re.MULTILINE)
    for name in ("images", "predictions.csv", "model.xml"):
        assert str(tmp_path / "1" / "Scrd" / "Phantom" / "v0" / name) in shown


def test_a_finished_run_is_used_again_unless_fresh(trainings, tmp_path):
    for fresh in (False, False, True, False):
        quickstart(tmp_path, fresh=fresh)
    assert len(trainings) == 2


@pytest.mark.parametrize("change", ["version", "file", "stamp"])
def test_a_changed_or_incomplete_run_is_not_used(change, trainings, tmp_path):
    quickstart(tmp_path)
    stamp = tmp_path / STAMP
    content = json.loads(stamp.read_text())
    if change == "version":
        stamp.write_text(json.dumps({**content, "made_by": "another version"}))
    elif change == "file":
        (tmp_path / content["model"]).unlink()
    else:
        stamp.write_text("{")
    quickstart(tmp_path)
    assert len(trainings) == 2


def test_an_export_with_other_scores_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_train_and_export", lambda _, output, made_by: write_run(output, made_by, error=0.01))
    with pytest.raises(MedicalError, match=r"differ by up to 0\.01"):
        quickstart(tmp_path)
    assert not (tmp_path / STAMP).exists()
