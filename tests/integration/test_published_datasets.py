"""Small trees of the published datasets, in every layout, through the engine and the command line."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anomalib.data
import numpy as np
import openvino
import pytest
from anomalib.engine import Engine

import anomalib_medical
from anomalib_medical import Ddad, Scrd
from anomalib_medical.cli import main as cli
from anomalib_medical.data import PublishedDataModule
from anomalib_medical.data.images import read_image
from anomalib_medical.data.published.dataset import PublishedCounts
from tests.helpers.chest_trees import make_prepared, make_rsna, make_vindr, write_mapping
from tests.helpers.published_trees import ORIGINALS, write_anomalib_bmad, write_prepared

SIZE = 64
PREPARED = PublishedCounts(train=8, test_normal=3, test_abnormal=3, unlabeled_normal=2, unlabeled_abnormal=2)
LAYOUTS: dict[str, Callable[[Path], Path]] = {
    **{f"{name}, original": partial(make, size=SIZE) for name, make in ORIGINALS.items()},
    **{f"{name}, prepared": partial(write_prepared, counts=PREPARED, size=SIZE) for name in ORIGINALS},
    "RSNA, original": make_rsna,
    "RSNA, prepared": partial(make_prepared, folder="train_png_512"),
    "VinDrCXR, original": make_vindr,
    "VinDrCXR, resized": partial(make_vindr, resized=True),
    "VinDrCXR, prepared": make_prepared,
}
NAMES = sorted({layout.partition(",")[0] for layout in LAYOUTS})


def datamodule(layout: str, root: Path, **kwargs) -> PublishedDataModule:
    arguments = {"train_batch_size": 4, "eval_batch_size": 4, "num_workers": 0, "seed": 0}
    return getattr(anomalib_medical, layout.partition(",")[0])(LAYOUTS[layout](root), **arguments | kwargs)


def engine(folder: Path) -> Engine:
    options = {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}
    return Engine(default_root_dir=folder, **options)


def scrd() -> Scrd:
    return Scrd(backbone="resnet18", image_size=SIZE, pre_trained=False, seed=0)


def train_on_the_command_line(data: str, *arguments: str) -> None:
    cli.main(
        [
            "train",
            "--model=anomalib_medical.Scrd",
            "--model.backbone=resnet18",
            f"--model.image_size={SIZE}",
            "--model.pre_trained=false",
            f"--data=anomalib_medical.{data}",
            "--data.num_workers=0",
            "--trainer.max_epochs=1",
            "--trainer.accelerator=cpu",
            "--trainer.devices=1",
            *arguments,
        ]
    )


@pytest.fixture
def folder_of_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_are_registered() -> None:
    for name in NAMES:
        assert getattr(anomalib.data, name) is getattr(anomalib_medical, name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_prepare_setup_train_and_test(layout: str, tmp_path: Path) -> None:
    data = datamodule(layout, tmp_path / "data")
    run = engine(tmp_path / "run")
    (results,) = run.train(scrd(), datamodule=data)
    assert 0 <= results["image_AUROC"] <= 1
    train, val, test = (part.samples for part in (data.train_data, data.val_data, data.test_data))
    pool = set(data.unlabeled_data.samples.patient_id) if hasattr(data, "unlabeled_data") else set()
    assert not set(test.patient_id) & {*train.patient_id, *val.patient_id, *pool}
    assert not set(train.patient_id) & set(val.patient_id)
    assert not train.label_index.any()
    assert not val.label_index.any()
    assert set(test.label_index) == {0, 1}
    # Images with and without a mask are in batches of their own.
    masked = sum(data.test_data.has_mask)
    assert run.trainer.num_test_batches == [math.ceil(masked / 4) + math.ceil((len(test) - masked) / 4)]


@pytest.mark.parametrize("name", NAMES)
def test_the_pool_comes_without_labels(name: str, tmp_path: Path) -> None:
    data = datamodule(f"{name}, prepared", tmp_path, unlabeled_count=2, unlabeled_anomaly_rate=0.5)
    data.setup()
    pool = data.unlabeled_data.samples
    assert len(pool) == 2
    assert set(pool.label_index) == {0}
    assert set(pool.label) == {"unlabeled"}
    assert not pool.known_normal.any()


@pytest.mark.parametrize("layout", ["RSNA, original", "VinDrCXR, prepared"])
def test_ddad_learns_from_the_unlabeled_pool(layout: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = datamodule(layout, tmp_path / "data")
    with caplog.at_level("INFO"):
        (results,) = engine(tmp_path / "run").train(Ddad(image_size=16, members=2, seed=0), datamodule=data)
    assert 0 <= results["image_AUROC"] <= 1
    known, unlabeled = len(data.train_data), len(data.unlabeled_data)
    assert unlabeled
    assert f"{known} known normal and {unlabeled} unlabeled images" in caplog.text


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize(
    "layout", ["ISIC2018, original", "Camelyon16, original", "RSNA, original", "VinDrCXR, prepared"]
)
def test_export(layout: str, tmp_path: Path) -> None:
    """What was trained on a small tree scores an image of it from the exported file."""
    data = datamodule(layout, tmp_path / "data")
    model, run = scrd(), engine(tmp_path / "run")
    run.fit(model, datamodule=data)
    path = run.export(model, export_type="openvino", export_root=tmp_path / "export")
    image = read_image(data.test_data.samples.image_path.iloc[0])[None].numpy()
    outputs = openvino.Core().compile_model(path, "CPU")(image)
    assert np.isfinite(outputs["pred_score"]).all()
    assert outputs["anomaly_map"].shape[-2:] == (SIZE, SIZE)


def test_class_path_and_root_on_the_command_line(folder_of_results: Path) -> None:
    """The layout that anomalib's own BMAD reads, and then crashes on: there are no masks."""
    root = write_anomalib_bmad(folder_of_results / "BMAD", size=SIZE)
    train_on_the_command_line("Camelyon16", f"--data.root={root}")
    (checkpoint,) = (folder_of_results / "results" / "Scrd" / "Camelyon16").glob("v0/weights/lightning/*.ckpt")
    assert checkpoint.is_file()


def test_every_option_on_the_command_line(folder_of_results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_prepared(folder_of_results / "rsna")
    images = sorted((root / "images").iterdir())
    mapping = write_mapping(folder_of_results, {path.stem: number for number, path in enumerate(images)})
    arguments = [
        f"--data.root={root}",
        f"--data.mapping_file={mapping}",
        "--data.protocol=clean",
        "--data.unlabeled_count=5",
        "--data.unlabeled_anomaly_rate=0.4",
    ]
    train_on_the_command_line("RSNA", *arguments)
    assert list((folder_of_results / "results" / "Scrd" / "RSNA").glob("v0/weights/lightning/*.ckpt"))
    with pytest.raises(SystemExit) as stop:
        train_on_the_command_line("RSNA", *arguments, "--data.protocol=published")
    assert stop.value.code == 1
    shown = capsys.readouterr().err
    assert "protocol=published of RSNA is not possible with what is on disk: found train 24" in shown
    assert "Traceback" not in shown


@pytest.mark.usefixtures("folder_of_results")
@pytest.mark.parametrize("name", NAMES)
def test_missing_data_is_one_error_on_the_command_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--model=Padim", "--model.pre_trained=false", f"--data=anomalib_medical.{name}"])
    assert stop.value.code == 1
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert f"is not in datasets/{name}: there is no such folder." in shown
    assert "Licence: " in shown
