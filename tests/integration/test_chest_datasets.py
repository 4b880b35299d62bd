"""RSNA and VinDr-CXR, small trees of every layout, through the engine and the command line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import openvino
import pytest
from anomalib.engine import Engine

from anomalib_medical import RSNA, Ddad, Scrd, VinDrCXR
from anomalib_medical.cli import main as cli
from anomalib_medical.data import PublishedDataModule
from anomalib_medical.data.images import read_image
from tests.helpers.chest_trees import make_prepared, make_rsna, make_vindr, write_mapping

Maker = Callable[[Path], Path]
LAYOUTS = {
    "RSNA, DICOM": (RSNA, make_rsna),
    "RSNA, prepared": (RSNA, partial(make_prepared, folder="train_png_512")),
    "VinDr-CXR, DICOM": (VinDrCXR, make_vindr),
    "VinDr-CXR, resized": (VinDrCXR, partial(make_vindr, resized=True)),
    "VinDr-CXR, prepared": (VinDrCXR, make_prepared),
}


def scrd() -> Scrd:
    return Scrd(backbone="resnet18", image_size=64, pre_trained=False, seed=0)


def engine(folder: Path) -> Engine:
    options = {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}
    return Engine(default_root_dir=folder, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_train_and_test(layout: str, tmp_path: Path) -> None:
    cls, make = LAYOUTS[layout]
    data = cls(root=make(tmp_path / "data"), train_batch_size=4, num_workers=0)
    (results,) = engine(tmp_path / "run").train(scrd(), datamodule=data)
    assert 0 <= results["image_AUROC"] <= 1
    patients = [set(part.samples.patient_id) for part in (data.train_data, data.val_data, data.test_data)]
    assert all(patients)
    assert not patients[2] & (patients[0] | patients[1] | set(data.unlabeled_data.samples.patient_id))
    assert not patients[0] & patients[1]
    assert not set(data.test_data.samples.image_path) & set(data.unlabeled_data.samples.image_path)


@pytest.mark.parametrize("layout", ["RSNA, DICOM", "VinDr-CXR, prepared"])
def test_ddad_learns_from_the_unlabeled_pool(layout: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cls, make = LAYOUTS[layout]
    data = cls(root=make(tmp_path / "data"), train_batch_size=4, num_workers=0)
    with caplog.at_level("INFO"):
        (results,) = engine(tmp_path / "run").train(Ddad(image_size=16, members=2, seed=0), datamodule=data)
    assert 0 <= results["image_AUROC"] <= 1
    known, unlabeled = len(data.train_data), len(data.unlabeled_data)
    assert unlabeled
    assert f"{known} known normal and {unlabeled} unlabeled images" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["RSNA, DICOM", "VinDr-CXR, prepared"])
def test_export(layout: str, tmp_path: Path) -> None:
    cls, make = LAYOUTS[layout]
    data: PublishedDataModule = cls(root=make(tmp_path / "data"), train_batch_size=4, num_workers=0)
    model, run = scrd(), engine(tmp_path / "run")
    run.fit(model, datamodule=data)
    path = run.export(model, export_type="openvino", export_root=tmp_path / "export")
    image = read_image(data.test_data.samples.image_path.iloc[0])[None].numpy()
    outputs = openvino.Core().compile_model(path, "CPU")(image)
    assert np.isfinite(outputs["pred_score"]).all()
    assert outputs["anomaly_map"].shape[-2:] == (64, 64)


def test_every_option_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "configure_logger", lambda: None)
    monkeypatch.chdir(tmp_path)
    root = make_prepared(tmp_path / "rsna")
    mapping = write_mapping(tmp_path, {path.stem: number for number, path in enumerate((root / "images").iterdir())})
    arguments = [
        "train",
        "--model=anomalib_medical.Scrd",
        "--model.backbone=resnet18",
        "--model.image_size=64",
        "--model.pre_trained=false",
        "--data=anomalib_medical.RSNA",
        f"--data.root={root}",
        f"--data.mapping_file={mapping}",
        "--data.protocol=clean",
        "--data.unlabeled_count=5",
        "--data.unlabeled_anomaly_rate=0.4",
        "--data.num_workers=0",
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
        "--trainer.devices=1",
    ]
    cli.main(arguments)
    assert list((tmp_path / "results" / "Scrd" / "RSNA").glob("v0/weights/lightning/*.ckpt"))
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--data.protocol=published"])
    assert stop.value.code == 1
    shown = capsys.readouterr().err
    assert "protocol=published of RSNA is not possible with what is on disk: found train 24" in shown
    assert "Traceback" not in shown
