"""Exit codes, error messages and our own subcommands, without running a model."""

from types import SimpleNamespace

import pytest
from anomalib.cli.cli import AnomalibCLI
from anomalib.data import Avenue
from anomalib.pipelines.benchmark.generator import BenchmarkJobGenerator
from anomalib.pipelines.components.base import pipeline
from anomalib.visualization import ImageVisualizer

from anomalib_medical import MedicalFolder, Scrd
from anomalib_medical.callbacks import PredictionsCSV
from anomalib_medical.cli import main as cli
from anomalib_medical.cli.configs import list_configs
from anomalib_medical.cli.main import COMMANDS
from anomalib_medical.data import MedicalPredictDataset
from anomalib_medical.data.visualizer import MedicalVisualizer


@pytest.fixture(autouse=True)
def _keep_logging(monkeypatch):
    monkeypatch.setattr(cli, "configure_logger", lambda: None)
    monkeypatch.setattr(pipeline, "redirect_logs", lambda _: None)


@pytest.fixture
def failing(monkeypatch):
    """Adds a subcommand `fail` that raises what it is given."""

    def add(error: Exception) -> None:
        def run(_: object) -> int:
            raise error

        monkeypatch.setitem(
            COMMANDS, "fail", SimpleNamespace(DESCRIPTION="Fails.", add_arguments=lambda _: None, run=run)
        )

    return add


def test_help_lists_our_subcommands_beside_anomalibs(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(name in shown for name in (*COMMANDS, "train", "export", "benchmark"))


@pytest.mark.parametrize("name", COMMANDS)
def test_each_subcommand_has_its_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    assert "--" in capsys.readouterr().out


def test_usage_names_the_program(capsys):
    with pytest.raises(SystemExit):
        cli.main(["benchmark", "--help"])
    assert capsys.readouterr().out.startswith("usage: anomalib-medical benchmark ")


def test_version_names_both_packages(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert "anomalib 2." in capsys.readouterr().out


def test_configs_lists_the_files(capsys):
    cli.main(["configs"])
    shown = capsys.readouterr().out
    assert all(path.as_posix() in shown for path in list_configs())


def test_configs_copies_and_fails_if_a_file_differs(tmp_path, capsys):
    cli.main(["configs", "--copy", str(tmp_path)])
    cli.main(["configs", "--copy", str(tmp_path)])
    changed = tmp_path / "quickstart.yaml"
    changed.write_text("mine")
    with pytest.raises(SystemExit) as stop:
        cli.main(["configs", "--copy", str(tmp_path)])
    assert stop.value.code == 1
    assert f"{changed}: left alone" in capsys.readouterr().out
    assert changed.read_text() == "mine"


def test_a_user_error_is_one_line(failing, capsys):
    failing(FileNotFoundError("no folder x"))
    with pytest.raises(SystemExit) as stop:
        cli.main(["fail"])
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith("error: no folder x\n")


@pytest.mark.parametrize("by", ["option", "variable"])
def test_debug_shows_the_traceback_of_a_user_error(by, failing, monkeypatch):
    failing(FileNotFoundError("no folder x"))
    monkeypatch.setenv(cli.DEBUG_VARIABLE, "1" if by == "variable" else "0")
    with pytest.raises(FileNotFoundError):
        cli.main(["fail", "--debug"] if by == "option" else ["fail"])


@pytest.mark.parametrize("error", [TypeError("x"), KeyError("x"), ValueError("raised outside our packages")])
def test_a_programming_error_keeps_its_traceback(error, failing):
    failing(error)
    with pytest.raises(type(error)):
        cli.main(["fail"])


def test_the_benchmark_builds_our_classes(tiny_folder):
    config = {
        "seed": 0,
        "model": {"class_path": "Scrd", "init_args": {"backbone": "resnet18", "pre_trained": False}},
        "data": {"class_path": "MedicalFolder", "init_args": {"root": str(tiny_folder), "seed": {"grid": [0, 1]}}},
    }
    jobs = list(BenchmarkJobGenerator("cpu").generate_jobs(config, None))
    assert [type(job.model) for job in jobs] == [Scrd, Scrd]
    assert [type(job.datamodule) for job in jobs] == [MedicalFolder, MedicalFolder]
    assert [job.datamodule.seed for job in jobs] == [0, 1]


@pytest.mark.parametrize("asked", [False, True])
def test_scores_are_written_once_whether_asked_for_or_not(asked, tiny_folder, tmp_path):
    model = ["--model=Scrd", "--model.backbone=resnet18", "--model.pre_trained=false"]
    options = ["--trainer.callbacks+=anomalib_medical.callbacks.PredictionsCSV"] if asked else []
    arguments = [*model, f"--data={tiny_folder}", f"--default_root_dir={tmp_path}", *options]
    callbacks = cli.MedicalCLI(["predict", *arguments], run=False).config_init["predict"].trainer.callbacks
    assert [type(callback) for callback in callbacks].count(PredictionsCSV) == 1


@pytest.mark.parametrize("given", [None, True, False])
def test_predict_reads_folders_itself_and_keeps_no_batches(given, tiny_folder, tmp_path):
    model = ["--model=Scrd", "--model.backbone=resnet18", "--model.pre_trained=false"]
    options = [] if given is None else [f"--return_predictions={str(given).lower()}"]
    arguments = [*model, f"--data={tiny_folder}", f"--default_root_dir={tmp_path}", *options]
    parsed = cli.MedicalCLI(["predict", *arguments], run=False)
    kwargs = parsed._prepare_subcommand_kwargs("predict")
    assert isinstance(kwargs["dataset"], MedicalPredictDataset)
    assert "data_path" not in kwargs
    assert kwargs["return_predictions"] is bool(given)


@pytest.mark.parametrize(("datamodule", "expected"), [(None, MedicalVisualizer), (Avenue, ImageVisualizer)])
def test_our_visualizer_draws_for_every_model_of_images(monkeypatch, datamodule, expected):
    """The other one would stretch the map of a crop over the whole image."""
    monkeypatch.setattr(AnomalibCLI, "_prepare_subcommand_kwargs", lambda *_: {})
    command = object.__new__(cli.MedicalCLI)
    command.model = SimpleNamespace(visualizer=ImageVisualizer())
    command.datamodule = datamodule and object.__new__(datamodule)
    command._prepare_subcommand_kwargs("test")
    assert type(command.model.visualizer) is expected
