"""Small trees of five published datasets through the engine and the command line."""

from __future__ import annotations

import math
from pathlib import Path

import anomalib.data
import numpy as np
import openvino
import pytest
from anomalib.engine import Engine

import anomalib_medical
from anomalib_medical import Scrd
from anomalib_medical.cli import main as cli
from anomalib_medical.data.images import read_image
from anomalib_medical.data.published.datamodule import PublishedDataModule
from anomalib_medical.data.published.description import PublishedCounts
from tests.helpers.published_trees import ORIGINALS, write_anomalib_bmad, write_prepared

SIZE = 64
PREPARED = PublishedCounts(train=8, test_normal=3, test_abnormal=3, unlabeled_normal=2, unlabeled_abnormal=2)


def datamodule(name: str, root: Path, **kwargs) -> PublishedDataModule:
    arguments = {"train_batch_size": 4, "eval_batch_size": 4, "num_workers": 0, "seed": 0}
    return getattr(anomalib_medical, name)(root, **arguments | kwargs)


def make_tree(name: str, layout: str, root: Path) -> Path:
    return write_prepared(root, PREPARED, size=SIZE) if layout == "prepared" else ORIGINALS[name](root, size=SIZE)


def engine(folder: Path) -> Engine:
    return Engine(
        default_root_dir=folder,
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
    )


def scrd() -> Scrd:
    return Scrd(backbone="resnet18", image_size=SIZE, pre_trained=False, seed=0)


def test_all_are_registered() -> None:
    for name in ORIGINALS:
        assert getattr(anomalib.data, name) is getattr(anomalib_medical, name)


@pytest.mark.parametrize("layout", ["original", "prepared"])
@pytest.mark.parametrize("name", ORIGINALS)
def test_prepare_setup_train_and_test(name: str, layout: str, tmp_path: Path) -> None:
    data = datamodule(name, make_tree(name, layout, tmp_path / "data"))
    run = engine(tmp_path / "run")
    (results,) = run.train(scrd(), datamodule=data)
    assert 0 <= results["image_AUROC"] <= 1
    parts = [data.train_data.samples, data.val_data.samples, data.test_data.samples]
    parts += [data.unlabeled_data.samples] if hasattr(data, "unlabeled_data") else []
    patients = [set(part.patient_id) for part in parts]
    assert not patients[2] & (patients[0] | patients[1] | set().union(*patients[3:]))
    assert not patients[0] & patients[1]
    assert not parts[0].label_index.any()
    assert not parts[1].label_index.any()
    assert set(parts[2].label_index) == {0, 1}
    assert run.trainer.num_test_batches == [math.ceil(len(parts[2]) / 4)]


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_pool_comes_without_labels(name: str, tmp_path: Path) -> None:
    data = datamodule(name, write_prepared(tmp_path, PREPARED), unlabeled_count=2, unlabeled_anomaly_rate=0.5)
    data.setup()
    pool = data.unlabeled_data.samples
    assert len(pool) == 2
    assert set(pool.label_index) == {0}
    assert set(pool.label) == {"unlabeled"}
    assert not pool.known_normal.any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ISIC2018", "Camelyon16"])
def test_export(name: str, tmp_path: Path) -> None:
    """What was trained on a small tree scores an image of it from the exported file."""
    data = datamodule(name, ORIGINALS[name](tmp_path / "data", size=SIZE))
    model, run = scrd(), engine(tmp_path / "run")
    run.fit(model, datamodule=data)
    path = run.export(model, export_type="openvino", export_root=tmp_path / "export")
    image = read_image(data.test_data.samples.image_path.iloc[0])[None].numpy()
    outputs = openvino.Core().compile_model(path, "CPU")(image)
    assert np.isfinite(outputs["pred_score"]).all()
    assert outputs["anomaly_map"].shape[-2:] == (SIZE, SIZE)


def test_class_path_and_root_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout that anomalib's own BMAD reads, and then crashes on: there are no masks."""
    monkeypatch.setattr(cli, "configure_logger", lambda: None)
    monkeypatch.chdir(tmp_path)
    root = write_anomalib_bmad(tmp_path / "BMAD", size=SIZE)
    cli.main(
        [
            "train",
            "--model=anomalib_medical.Scrd",
            "--model.backbone=resnet18",
            f"--model.image_size={SIZE}",
            "--model.pre_trained=false",
            "--data=anomalib_medical.Camelyon16",
            f"--data.root={root}",
            "--data.num_workers=0",
            "--trainer.max_epochs=1",
            "--trainer.accelerator=cpu",
            "--trainer.devices=1",
        ],
    )
    (checkpoint,) = (tmp_path / "results" / "Scrd" / "Camelyon16").glob("v0/weights/lightning/*.ckpt")
    assert checkpoint.is_file()


@pytest.mark.parametrize("name", ORIGINALS)
def test_missing_data_is_one_error_on_the_command_line(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "configure_logger", lambda: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--model=Padim", "--model.pre_trained=false", f"--data=anomalib_medical.{name}"])
    assert stop.value.code == 1
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert f"is not in datasets/{name}: there is no such folder." in shown
    assert "Licence: " in shown
