"""anomalib's commands on Scrd from an empty folder.

What may depend on imports runs in fresh processes with nothing imported first; the rest, for speed, in this one.
"""

import errno
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
import yaml
from anomalib.models.components import AnomalibModule
from PIL import Image

from anomalib_medical import Scrd
from anomalib_medical.callbacks.predictions_file import Prediction, read_predictions
from anomalib_medical.cli import main as cli
from anomalib_medical.data.images import read_image
from anomalib_medical.io import locked
from tests.conftest import make_folder
from tests.helpers.commands import fail, start, succeed
from tests.helpers.dicom_files import write_dicom

SIZE = 64
SCRD = {"backbone": "resnet18", "image_size": SIZE, "pre_trained": False, "seed": 0}
MODEL = [f"--model.{name}={str(value).lower()}" for name, value in SCRD.items()]
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1"]
CSV = "--trainer.callbacks+=anomalib_medical.callbacks.PredictionsCSV"


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


def test_test_repeats_the_scores_and_is_not_told_the_model(trained, tiny_folder, tmp_path):
    data = ["--data=MedicalFolder", f"--data.root={tiny_folder}", "--data.name=tiny", "--data.num_workers=0"]
    checkpoint = f"--ckpt_path={trained.checkpoint}"
    printed = succeed("anomalib-medical", "test", *data, *CPU, checkpoint, cwd=tmp_path)
    assert "image_AUROC" in printed
    (written,) = tmp_path.rglob("predictions.csv")
    # Where nothing was trained too, `latest` is what the next training can take over.
    assert written.parent == tmp_path / "results" / "Scrd" / "tiny" / "v0"
    assert (tmp_path / "results" / "Scrd" / "tiny" / "latest").resolve() == written.parent
    # Written without asking for it: on by default in anomalib-medical.
    assert raw_scores(read_predictions(written)) == pytest.approx(raw_scores(trained.predictions), abs=1e-6)


def test_fit_and_validate_by_class_path(trained, tiny_folder, tmp_path):
    model = ["--model=anomalib_medical.Scrd", *MODEL]
    data = ["--data=anomalib_medical.MedicalFolder", f"--data.root={tiny_folder}", "--data.num_workers=0"]
    succeed("anomalib", "fit", *model, *data, *CPU, "--trainer.max_epochs=1", cwd=tmp_path)
    (checkpoint,) = tmp_path.glob(f"results/Scrd/{tiny_folder.name}/v0/weights/lightning/model.ckpt")
    assert checkpoint.stat().st_size > 0
    succeed("anomalib", "validate", "--config", trained.config, f"--ckpt_path={checkpoint}", cwd=tmp_path)


@pytest.mark.parametrize("subcommand", ["train", "fit", "test", "validate", "predict", "export"])
def test_a_checkpoint_of_another_class_is_named_before_anything_is_built(here, capsys, monkeypatch, subcommand):
    monkeypatch.setattr(
        "anomalib_medical.cli.anomalib_commands.AnomalibCLI.instantiate_classes", lambda _: pytest.fail("built")
    )
    torch.save({"state_dict": {}, "model_class": "Ddad"}, here / "other.ckpt")
    options = ["--export_type=onnx"] if subcommand == "export" else ["--data=."] if subcommand == "predict" else []
    options += ["--data=Phantom"] if subcommand in {"train", "fit", "test", "validate"} else []
    assert "other.ckpt is a checkpoint of another class: of Ddad, not of Scrd." in fail(
        capsys, subcommand, "--model=Scrd", *options, "--ckpt_path=other.ckpt"
    )
    (here / "cut.ckpt").write_bytes((here / "other.ckpt").read_bytes()[:-300])
    assert "cut.ckpt could not be read as a checkpoint: its end is missing" in fail(
        capsys, subcommand, "--model=Scrd", *options, "--ckpt_path=cut.ckpt"
    )


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


def test_predict_of_a_non_ascii_folder_with_16_bit_images(trained, tiny_folder, tmp_path):
    folder = tmp_path / "Größe_脑"
    (folder / "16").mkdir(parents=True)
    images = sorted((tiny_folder / "test" / "lesion").iterdir())
    for path in images:
        Image.open(path).save(folder / path.name)
        Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 257).save(folder / "16" / path.name)
    model = ["--model=Scrd", *MODEL, f"--ckpt_path={trained.checkpoint}"]
    printed = succeed("anomalib-medical", "predict", *model, f"--data={folder}", *CPU, cwd=tmp_path)
    assert f"Wrote the scores of {2 * len(images)} images" in printed
    (written,) = tmp_path.rglob("predictions.csv")
    rows = read_predictions(written)
    deep, shallow = ([row for row in rows if (Path(row.path).parent.name == "16") == is_16] for is_16 in (True, False))
    assert raw_scores(shallow) == pytest.approx(
        {path.name: raw_scores(trained.predictions)[path.name] for path in images}, abs=1e-5
    )
    assert raw_scores(deep) == pytest.approx(raw_scores(shallow), abs=1e-5)
    assert len(list((written.parent / "images").rglob("*.png"))) == len(rows)


def test_predict_of_a_datamodule_by_its_short_name(trained, tiny_folder, here):
    data = ["--data=MedicalFolder", f"--data.root={tiny_folder}", "--data.num_workers=0"]
    cli.main(["predict", "--model=Scrd", *MODEL, *data, *CPU, f"--ckpt_path={trained.checkpoint}"])
    (written,) = here.rglob("predictions.csv")
    assert raw_scores(read_predictions(written)) == pytest.approx(raw_scores(trained.predictions), abs=1e-6)


def test_the_window_of_a_folder_of_dicom_files(trained, here):
    pixels = np.random.default_rng(0).integers(-200, 800, (48, 40)).astype(np.int16)
    path = write_dicom(here / "scans" / "IM0001", pixels, WindowCenter=0, WindowWidth=50)
    common = ["predict", "--model=Scrd", *MODEL, *CPU, f"--ckpt_path={trained.checkpoint}"]
    data = ["--data=MedicalFolder", f"--data.root={path.parent}", "--data.name=b", "--data.num_workers=0"]
    for window in (["--data=scans"], ["--data=scans", "--window=bone"], [*data, "--data.window=[300, 1500]"]):
        cli.main([*common, *window])
    written = [*sorted(here.rglob("Scrd/latest/predictions*.csv")), *here.rglob("Scrd/b/latest/predictions.csv")]
    plain, bone, by_datamodule = ([float(row.raw_score) for row in read_predictions(file)] for file in written)
    assert bone == pytest.approx(by_datamodule, abs=1e-6)
    assert bone != pytest.approx(plain, abs=1e-3)


def predict(trained, data, *options):
    cli.main(["predict", f"--ckpt_path={trained.checkpoint}", f"--data={data}", *CPU, *options])


def part(number, parts=3):
    return [f"--part={number}", f"--parts={parts}", "--default_root_dir=out"]


@pytest.fixture
def archive(here):
    """Files of one picture and of several, and others that a folder may hold."""
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64), np.uint8)
        path = here / "in" / f"{number // 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    cine = np.random.default_rng(9).integers(0, 256, (3, 64, 64), np.uint8)
    write_dicom(here / "in" / "cine", cine, NumberOfFrames=3, PatientID="Doe")
    write_dicom(here / "in" / "still.dcm", cine[0], PatientID="Doe")
    (here / "in" / "notes").write_text("text")
    return here / "in"


def test_the_predictions_of_parts_are_those_of_one_run(trained, archive, here):
    predict(trained, archive)
    (one,) = (here / "results").rglob("predictions.csv")
    for number in (3, 1, 2):
        predict(trained, archive, *part(number))
    files = [here / "out" / f"predictions_part-{number}-of-3.csv" for number in (1, 2, 3)]
    rows = [row for file in files for row in read_predictions(file)]
    # One salt for all parts, another than that of the run.
    patients, series = {}, {}
    for row, expected in zip(rows, read_predictions(one), strict=True):
        assert row._replace(patient="", series="") == expected._replace(patient="", series="")
        assert patients.setdefault(expected.patient, row.patient) == row.patient
        assert series.setdefault(expected.series, row.series) == row.series
    assert len(set(patients.values())) == len(patients) == 6
    heatmaps = [
        path.name for number in (1, 2, 3) for path in (here / "out" / f"images_part-{number}-of-3").rglob("*.png")
    ]
    assert sorted(heatmaps) == sorted(path.name for path in one.with_name("images").rglob("*.png"))
    predict(trained, archive, *part(2), "--resume")  # complete
    assert [row for file in files for row in read_predictions(file)] == rows


@pytest.mark.parametrize("stop", [1, 6])
def test_a_stopped_prediction_of_a_part_goes_on(stop, trained, archive, here, monkeypatch, caplog):
    (archive / "0" / "2.png").write_text("no image")
    monkeypatch.setattr("anomalib_medical.io.archive._PROGRESS_SECONDS", 0.0)
    with pytest.raises(SystemExit):
        predict(trained, archive, *part(1, 1), "--default_root_dir=whole")
    steps = []

    def stopping(self, batch, batch_idx):
        steps.append(batch.image_path)
        if len(steps) == stop:
            raise OSError(errno.ENOSPC, "No space left on device", "somewhere")
        return AnomalibModule.predict_step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Scrd, "predict_step", stopping, raising=False)
        with pytest.raises(SystemExit):
            predict(trained, archive, *part(1, 1))
    partial = here / "out" / "predictions_part-1-of-1_partial.csv"
    with partial.open("ab") as file:
        file.write(b'"torn, row')
    with pytest.raises(SystemExit) as status:
        predict(trained, archive, *part(1, 1), "--resume")
    assert status.value.code == 1
    assert "Some files could not be read: out/failed_part-1-of-1.csv says why." in caplog.text
    for name in ("predictions_part-1-of-1.csv", "failed_part-1-of-1.csv"):
        found, whole = ([line.split(",")[0] for line in (here / folder / name).open()] for folder in ("out", "whole"))
        assert found == whole
    assert not partial.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--part=4", "--parts=3"], "Got part 4 of 3, expected a part from 1"),
        (["--part=0", "--parts=3"], "Got part 0 of 3, expected a part from 1"),
        (["--resume"], "expected --part K --parts N, with or without --resume"),
        (["--parts=3"], "expected --part K --parts N, with or without --resume"),
        (["--part=1", "--parts=3", "--trainer.devices=2"], "Got --trainer.devices 2 for a part, expected one"),
    ],
)
def test_a_part_that_cannot_be_scored_is_one_clear_line(options, message, archive, trained, capsys):
    with pytest.raises(SystemExit):
        predict(trained, archive, *options)
    assert message in capsys.readouterr().err


def test_two_predictions_of_one_part_are_refused(trained, archive, here, capsys):
    (here / "out").mkdir()
    with locked(here / "out" / ".part-1-of-3.lock"), pytest.raises(SystemExit):
        predict(trained, archive, *part(1))
    assert "Another process is at part 1 of 3 in out: wait for its end" in capsys.readouterr().err
    predict(trained, archive, *part(1))
    with pytest.raises(SystemExit):
        predict(trained, archive, *part(1))
    assert "predictions_part-1-of-3.csv is there, and complete" in capsys.readouterr().err


def test_a_second_predict_overwrites_nothing(trained, tiny_folder, here):
    image = tiny_folder / "test" / "lesion" / "test_lesion_000.png"
    for _ in range(2):
        cli.main(
            ["predict", "--model=Scrd", *MODEL, f"--data={image}", *CPU, f"--ckpt_path={trained.checkpoint}"],
        )
    names = {"images", "images_1", "predictions.csv", "predictions_1.csv"}
    assert names <= {path.name for path in (here / "results" / "Scrd" / "latest").iterdir()}


def test_arguments_reach_the_model_and_its_post_processor(here, capsys):
    model = ["--model=Scrd", "--model.image_size=[64,96]", "--model.noise_size=[0.1,0.2]"]
    post_processor = ["--model.post_processor=anomalib_medical.MedicalPostProcessor"]
    post_processor += ["--model.post_processor.threshold=f1"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", *model, *post_processor, "--print_config"])
    assert stop.value.code == 0
    arguments = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert arguments["image_size"] == [64, 96]
    assert arguments["noise_size"] == [0.1, 0.2]
    assert arguments["post_processor"]["class_path"].rpartition(".")[2] == "MedicalPostProcessor"
    assert arguments["post_processor"]["init_args"]["threshold"] == "f1"
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_other_exports_give_the_scores_of_the_test(kind, trained, here):
    arguments = [f"--export_type={kind}", f"--ckpt_path={trained.checkpoint}", f"--export_root={here}"]
    cli.main(["export", "--model=Scrd", *MODEL, *arguments])
    images = [read_image(row.path)[None] for row in trained.predictions]
    if kind == "torch":
        model = torch.load(here / "weights" / "torch" / "model.pt", weights_only=False)["model"].eval()
        with torch.no_grad():
            scores = [float(model(image).pred_score) for image in images]
    else:
        path = here / "weights" / "onnx" / "model.onnx"
        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        scores = [float(np.squeeze(compiled(image.numpy())["pred_score"])) for image in images]
    assert scores == pytest.approx([float(row.score) for row in trained.predictions], abs=1e-4)


def test_export_gives_the_scores_of_the_test(trained, tmp_path):
    arguments = ["--export_type=openvino", f"--ckpt_path={trained.checkpoint}", f"--export_root={tmp_path}"]
    printed = succeed("anomalib-medical", "export", *arguments, cwd=tmp_path)
    assert printed.split() == ["Exported", "weights/openvino/model.xml"]
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


def test_missing_teacher_weights_are_one_clear_line(tiny_folder, capsys):
    data = ["--data=MedicalFolder", f"--data.root={tiny_folder}", "--data.num_workers=0"]
    error = fail(capsys, "train", "--model=Scrd", *MODEL, "--model.teacher_weights=nowhere.pth", *data, *CPU)
    assert "nowhere.pth" in error


def test_a_broken_training_image_is_one_clear_line(here, capsys):
    folder = make_folder(here / "data")
    for path in (folder / "train" / "good").iterdir():
        # The header is whole, so that the pixels fail in a worker.
        path.write_bytes(path.read_bytes()[:-40])
    data = ["--data=MedicalFolder", f"--data.root={folder}", "--data.num_workers=1"]
    error = fail(capsys, "fit", "--model=Scrd", *MODEL, *data, *CPU)
    assert error.startswith(f"error: Cannot read the image {folder / 'train' / 'good'}")


@pytest.mark.parametrize("results", ["file", "file/results"])
def test_unusable_results_come_with_a_way_out(results, tiny_folder, here, capsys):
    (here / "file").touch()
    data = ["--data=MedicalFolder", f"--data.root={tiny_folder}", "--data.num_workers=0"]
    error = fail(capsys, "fit", "--model=Scrd", *MODEL, *data, *CPU, f"--default_root_dir={results}")
    assert str(here / results) in error
    assert "--default_root_dir" in error


def test_a_folder_without_images_to_predict_is_one_clear_line(trained, here, capsys):
    (here / "empty").mkdir()
    model = ["--model=Scrd", *MODEL, f"--ckpt_path={trained.checkpoint}"]
    assert "no image to predict in empty: expected PNG" in fail(capsys, "predict", *model, "--data=empty", *CPU)


def command(subcommand, root, *options):
    data = ["--data=MedicalFolder", f"--data.root={root}", "--data.num_workers=1", "--data.train_batch_size=4"]
    model = [option for option in MODEL if "seed" not in option]
    cli.main([subcommand, "--model=Scrd", *model, *data, *CPU, *options])


def scores_of(run: Path) -> dict[str, float]:
    return raw_scores(read_predictions(run / "predictions.csv"))


def test_equal_commands_give_equal_scores_and_training_further_tests_the_new_weights(tiny_folder, here):
    """Without a seed on the command line; `anomalib train --ckpt_path` tests the checkpoint that it was given."""
    runs = here / "results" / "Scrd" / tiny_folder.name
    for _ in range(2):
        command("train", tiny_folder, "--trainer.max_epochs=1")
    assert scores_of(runs / "v0") == scores_of(runs / "v1")
    checkpoint = Path("weights/lightning/model.ckpt")
    command("train", tiny_folder, "--trainer.max_epochs=3", f"--ckpt_path={runs / 'v0' / checkpoint}")
    further = scores_of(runs / "v2")
    assert further != scores_of(runs / "v0")
    command("test", tiny_folder, "--default_root_dir=again", f"--ckpt_path={runs / 'v2' / checkpoint}")
    (tested,) = (here / "again").rglob("predictions.csv")
    assert scores_of(tested.parent) == pytest.approx(further, abs=1e-6)
    assert sorted(path.name for path in runs.glob("v*")) == ["v0", "v1", "v2"]


@pytest.mark.slow
def test_a_training_that_stopped_goes_on_in_its_folder(tiny_folder, here, monkeypatch, capsys):
    runs = here / "results" / "Scrd" / tiny_folder.name
    epochs = []

    def stop(model: Scrd) -> None:
        epochs.append(model.current_epoch)
        if epochs == [0, 1]:
            raise KeyboardInterrupt

    monkeypatch.setattr(Scrd, "on_train_epoch_end", stop)
    with pytest.raises(SystemExit):
        command("train", tiny_folder, "--trainer.max_epochs=3")
    assert not list(runs.rglob("predictions.csv"))
    command("train", tiny_folder, "--trainer.max_epochs=3", "--resume")
    # The checkpoint is of the first epoch; what was done after it is done again.
    assert epochs == [0, 1, 1, 2]
    assert [path.name for path in runs.glob("v*")] == ["v0"]
    assert len(scores_of(runs / "v0")) == 8
    assert [path.name for path in runs.rglob("v0/**/*.ckpt")] == ["model.ckpt"]
    # The copy of the configuration is one that other commands take.
    assert "resume" not in yaml.safe_load((runs / "v0" / "config.yaml").read_text())
    again = ["--data=MedicalFolder", f"--data.root={tiny_folder}", "--trainer.max_epochs=3", "--resume"]
    assert "had ended (--trainer.max_epochs 3)" in fail(capsys, "train", "--model=Scrd", *MODEL, *again)


@pytest.mark.parametrize(
    "precision", ["64", "bf16-true", "16-true", "transformer-engine", "transformer-engine-float16"]
)
@pytest.mark.parametrize("subcommand", ["train", "test"])
def test_precisions_of_other_weights_are_refused(subcommand, precision, tiny_folder, here, capsys):
    options = [f"--data.root={tiny_folder}", *CPU, f"--trainer.precision={precision}"]
    error = fail(capsys, subcommand, "--model=Scrd", *MODEL, "--data=MedicalFolder", *options)
    assert f"got {precision}" in error
    assert "expected 32-true, 16-mixed or bf16-mixed" in error
    assert not (here / "results").exists()


@pytest.mark.usefixtures("here")
def test_a_gpu_without_memory_says_which_batch_size_to_try(tiny_folder, capsys, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("anomalib_medical.Scrd.training_step", full)
    options = [f"--data.root={tiny_folder}", "--data.num_workers=0", "--data.train_batch_size=4", *CPU]
    error = fail(capsys, "train", "--model=Scrd", *MODEL, "--data=MedicalFolder", *options)
    assert "ran out of memory in training with batches of 4 images" in error
    assert "--data.train_batch_size 2 --trainer.accumulate_grad_batches 2" in error


def test_anomalibs_own_models_show_no_number_of_one_class_either(here, capsys, caplog):
    root = make_folder(here / "normal", layout={"train/good": 8, "test/good": 4})
    model = ["--model=Padim", "--model.backbone=resnet18", "--model.pre_trained=false"]
    cli.main(["train", *model, "--data=MedicalFolder", f"--data.root={root}", "--data.num_workers=0", *CPU])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "image_AUROC" in line]
    assert "nan" in line
    assert "No value (nan) for image_AUROC, image_F1Score: normal and abnormal images are needed" in caplog.text


def test_scores_that_are_no_numbers_are_nan_in_table_and_file(trained, tiny_folder, here, capsys, caplog):
    """Also where the class that comes first by name would have made the AUROC 1."""
    checkpoint = torch.load(trained.checkpoint, weights_only=True)
    for name, value in checkpoint["state_dict"].items():
        if name.startswith("model.bottleneck") and value.is_floating_point():
            value.fill_(torch.nan)
    torch.save(checkpoint, here / "nan.ckpt")
    command("test", tiny_folder, f"--ckpt_path={here / 'nan.ckpt'}")
    lines = [line for line in capsys.readouterr().out.splitlines() if "_AUROC" in line or "_F1Score" in line]
    assert len(lines) == 4
    assert all("nan" in line for line in lines)
    assert "8 of 8 image scores are nan or infinite" in caplog.text
    assert "8 of 8 images without a score (nan or infinite), and so without a label." in caplog.text
    (written,) = here.rglob("predictions.csv")
    rows = read_predictions(written)
    assert [(row.raw_score, row.label) for row in rows] == [("nan", "")] * 8
