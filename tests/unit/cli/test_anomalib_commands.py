"""anomalib's subcommands as we change them, without running a model."""

from types import SimpleNamespace

import pytest
from anomalib.cli.cli import AnomalibCLI
from anomalib.data import Avenue
from anomalib.visualization import ImageVisualizer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar

from anomalib_medical.callbacks import PredictionsCSV, RunProgress
from anomalib_medical.cli.anomalib_commands import MedicalCLI
from anomalib_medical.data import MedicalPredictDataset
from anomalib_medical.data.visualizer import MedicalVisualizer


@pytest.mark.parametrize("asked", [False, True])
def test_scores_are_written_once_whether_asked_for_or_not(asked, tiny_folder, tmp_path):
    model = ["--model=Scrd", "--model.backbone=resnet18", "--model.pre_trained=false"]
    options = ["--trainer.callbacks+=anomalib_medical.callbacks.PredictionsCSV"] if asked else []
    arguments = [*model, f"--data={tiny_folder}", f"--default_root_dir={tmp_path}", *options]
    callbacks = MedicalCLI(["predict", *arguments], run=False).config_init["predict"].trainer.callbacks
    assert [type(callback) for callback in callbacks].count(PredictionsCSV) == 1


@pytest.mark.parametrize("given", [None, True, False])
def test_predict_reads_folders_itself_and_keeps_no_batches(given, tiny_folder, tmp_path):
    model = ["--model=Scrd", "--model.backbone=resnet18", "--model.pre_trained=false"]
    options = [] if given is None else [f"--return_predictions={str(given).lower()}"]
    arguments = [*model, f"--data={tiny_folder}", f"--default_root_dir={tmp_path}", *options]
    parsed = MedicalCLI(["predict", *arguments], run=False)
    kwargs = parsed._prepare_subcommand_kwargs("predict")
    assert isinstance(kwargs["dataset"], MedicalPredictDataset)
    assert "data_path" not in kwargs
    assert kwargs["return_predictions"] is bool(given)


@pytest.mark.parametrize(
    ("options", "bar"),
    [
        ([], RunProgress),
        (["--trainer.enable_progress_bar=false"], None),
        (["--trainer.callbacks+=TQDMProgressBar"], TQDMProgressBar),
        (["--part=1", "--parts=2"], None),
    ],
)
def test_there_is_one_progress_bar_unless_it_is_not_wanted(options, bar, tiny_folder, tmp_path):
    model = ["--model=Scrd", "--model.backbone=resnet18", "--model.pre_trained=false"]
    arguments = [*model, f"--data={tiny_folder}", f"--default_root_dir={tmp_path}", *options]
    trainer = MedicalCLI(["predict", *arguments], run=False).engine._cache.args
    bars = [type(each) for each in trainer["callbacks"] if isinstance(each, ProgressBar)]
    assert bars == ([] if bar is None else [bar])
    assert trainer["enable_progress_bar"] is not (bar is None)


@pytest.mark.parametrize("asked", [None, True, False])
@pytest.mark.parametrize("verbose", [True, False])
def test_the_table_of_layers_is_for_who_asks(asked, verbose, tiny_folder, tmp_path):
    model = ["--model=Scrd", "--model.backbone=resnet18", "--model.pre_trained=false"]
    options = [] if asked is None else [f"--trainer.enable_model_summary={str(asked).lower()}"]
    arguments = [*model, f"--data={tiny_folder}", f"--default_root_dir={tmp_path}", *options]
    trainer = MedicalCLI(["predict", *arguments], run=False, verbose=verbose).engine._cache.args
    assert trainer["enable_model_summary"] is (verbose if asked is None else asked)


@pytest.mark.parametrize(("datamodule", "expected"), [(None, MedicalVisualizer), (Avenue, ImageVisualizer)])
def test_our_visualizer_draws_for_every_model_of_images(monkeypatch, datamodule, expected):
    """The other one would stretch the map of a crop over the whole image."""
    monkeypatch.setattr(AnomalibCLI, "_prepare_subcommand_kwargs", lambda *_: {})
    command = object.__new__(MedicalCLI)
    command.model = SimpleNamespace(visualizer=ImageVisualizer())
    command.datamodule = datamodule and object.__new__(datamodule)
    command._prepare_subcommand_kwargs("test")
    assert type(command.model.visualizer) is expected
