"""Commands with a checkpoint and no --model: what they take from it, and what they refuse."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anomalib.models import Padim, Patchcore, ReverseDistillation
from anomalib.pre_processing import PreProcessor
from jsonargparse import Namespace
from torchvision.transforms.v2 import Resize

from anomalib_medical import D24fad, Ddad, Scrd
from anomalib_medical.cli.anomalib_commands import MedicalCLI
from anomalib_medical.cli.as_trained import AsTrained, given_arguments
from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components.checkpoints import describe
from tests.helpers.commands import fail

SMALL = {"backbone": "resnet18", "pre_trained": False}
MODELS = {
    "Scrd": lambda: Scrd(image_size=(64, 96), noise_size=(0.1, 0.4), score_reduction="max", **SMALL),
    "Ddad": lambda: Ddad(image_size=32, members=2, score="intra"),
    "D24fad": lambda: D24fad(image_size=64, matching="nearest", window=0.1, **SMALL),
    "Patchcore": lambda: Patchcore(layers=("layer1",), num_neighbors=3, **SMALL),
    "Padim": lambda: Padim(layers=["layer1"], n_features=20, **SMALL),
}


def save(model, path: Path, **more) -> Path:
    """What a training with `RunFiles` writes."""
    content = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(content)
    describe(content, model)
    torch.save(content | {"pytorch-lightning_version": "2.6.0"} | more, path)
    return path


def parsed(*arguments: object) -> MedicalCLI:
    return MedicalCLI([str(argument) for argument in arguments], run=False)


@pytest.fixture
def checkpoint(here):
    return save(MODELS["Scrd"](), here / "model.ckpt", reading={"window": "lung"})


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_built_as_it_was_trained(name, tiny_folder, here):
    model = MODELS[name]()
    path = save(model, here / "model.ckpt")
    command = parsed("predict", "--ckpt_path", path, "--data", tiny_folder)
    # A run writes its configuration down.
    assert name in command.subcommand_parsers["predict"].dump(command.config["predict"])
    made = command.model
    assert type(made) is type(model)
    listed = {key: list(value) if isinstance(value, tuple) else value for key, value in made.hparams.items()}
    assert listed == {key: list(value) if isinstance(value, tuple) else value for key, value in model.hparams.items()}


def test_what_is_given_wins_where_it_changes_no_score(checkpoint, tiny_folder):
    made = parsed("predict", "--ckpt_path", checkpoint, "--data", tiny_folder, "--model.learning_rate", "0.5").model
    assert (made.learning_rate, made.hparams.image_size) == (0.5, (64, 96))


@pytest.mark.parametrize("command", ["predict", "export"])
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model.image_size=128"], r"image_size: checkpoint (64, 96), this model (128, 128)"),
        (["--model.backbone=resnet34"], "backbone: checkpoint 'resnet18', this model 'resnet34'"),
        (["--model=Ddad"], "model.ckpt is a checkpoint of another class: of Scrd, not of Ddad"),
        (["--model=Scrdd"], "--model is 'Scrdd', which is unknown. Did you mean 'Scrd'?"),
    ],
)
def test_another_model_is_one_clear_line(command, arguments, told, checkpoint, tiny_folder, capsys):
    options = [f"--data={tiny_folder}"] if command == "predict" else ["--export_type=onnx"]
    assert told in fail(capsys, command, f"--ckpt_path={checkpoint}", *options, *arguments)


def test_an_error_names_nothing_that_nobody_gave(here, tiny_folder, capsys):
    """The model is built without a download: that it was trained with one is no difference."""
    model = MODELS["Scrd"]()
    model.hparams["pre_trained"] = True
    path = save(model, here / "model.ckpt")
    said = fail(capsys, "predict", f"--ckpt_path={path}", f"--data={tiny_folder}", "--model.image_size=128")
    assert "checkpoint (64, 96), this model (128, 128)). Build" in said
    assert "pre_trained" not in said


def test_a_configuration_file_counts_as_given(checkpoint, tiny_folder, here, capsys):
    (here / "c.yaml").write_text(
        f"ckpt_path: {checkpoint}\nmodel:\n  class_path: Scrd\n  init_args: {{image_size: 128}}"
    )
    assert "image_size: checkpoint (64, 96)" in fail(capsys, "predict", "--config=c.yaml", f"--data={tiny_folder}")
    (here / "c.yaml").write_text(f"ckpt_path: {checkpoint}\nmodel: Scrd\ndata: {tiny_folder}\n")
    assert parsed("predict", "--config=c.yaml").model.hparams.image_size == (64, 96)


def test_who_does_not_say_the_class_is_asked_for_it(here, capsys, tiny_folder):
    arguments = ["predict", "--ckpt_path=model.ckpt", f"--data={tiny_folder}"]
    content = {"state_dict": {}, "hyper_parameters": dict(MODELS["Patchcore"]().hparams)}
    for named, told in {
        None: "does not name its model, as checkpoints of plain anomalib do not: give --model Patchcore.",
        "Gone": "model.ckpt is of a model Gone, and there is none of that name: give its class, --model package.Gone.",
        "mine.net.Own": "model.ckpt is of a model that has no short name: give --model mine.net.Own.",
    }.items():
        torch.save(content | ({} if named is None else {"model_class": named}), here / "model.ckpt")
        assert told in fail(capsys, *arguments)


def test_a_class_without_a_short_name_is_named_by_its_path_and_never_imported(here):
    own = type("Scrd", (Scrd,), {"__module__": "somewhere"})
    trained = AsTrained.of(["test", f"--ckpt_path={save(own(image_size=64, **SMALL), here / 'model.ckpt')}"])
    # Or the parser would find two of the name in the tests that follow.
    own.__name__ = own.__qualname__ = "Own"
    assert trained.content["model_class"] == "somewhere.Scrd"
    with pytest.raises(MedicalError, match=r"give --model somewhere\.Scrd"):
        trained.model()


def test_a_model_of_anomalib_says_what_is_not_as_trained(here, tiny_folder, caplog, capsys):
    path = save(MODELS["Patchcore"](), here / "model.ckpt")
    common = ["--ckpt_path", path, "--model.num_neighbors", 5]
    assert parsed("predict", *common, "--data", tiny_folder).model.hparams.num_neighbors == 5
    assert "Not as trained: num_neighbors: checkpoint 3, given 5." in caplog.text
    assert "An export is of the checkpoint as it is (num_neighbors: checkpoint 3, given 5)" in fail(
        capsys, "export", *common, "--export_type=onnx"
    )


def test_a_model_that_is_built_for_its_image_size_is_built_for_that_of_its_training(here, tiny_folder):
    """Reverse Distillation keeps the size of its maps, which is in no tensor and no hyper-parameter."""
    layers = ("layer1", "layer2", "layer3")
    model = ReverseDistillation(layers=layers, pre_processor=PreProcessor(Resize((64, 64))), **SMALL)
    path = save(model, here / "model.ckpt")
    made = parsed("predict", "--ckpt_path", path, "--data", tiny_folder).model
    assert made.model.anomaly_map_generator.image_size == model.model.anomaly_map_generator.image_size == (64, 64)
    assert made.pre_processor.checkpoint_config() == model.pre_processor.checkpoint_config()


@pytest.mark.parametrize("place", [[], ["--data=MedicalFolder"]])
def test_files_are_read_as_in_the_training(place, checkpoint, tiny_folder, capsys):
    data, prefix = ([*place, f"--data.root={tiny_folder}"], "data.") if place else ([f"--data={tiny_folder}"], "")
    common = ["predict", f"--ckpt_path={checkpoint}", *data]
    made = parsed(*common)
    options = made.config["predict"]
    assert (options.data.init_args if place else options).window == "lung"
    assert f"lung, and --{prefix}window is bone" in fail(capsys, *common, f"--{prefix}window=bone")


def test_another_task_s_support_may_need_another_window(here, tiny_folder):
    path = save(MODELS["D24fad"](), here / "model.ckpt", reading={"window": "lung"})
    common = ["predict", "--ckpt_path", path, "--data", tiny_folder, "--model.support_dir", tiny_folder]
    assert parsed(*common).config["predict"].model.init_args.support_window == "lung"
    assert parsed(*common, "--window", "bone").config["predict"].model.init_args.support_window == "bone"


def test_an_axis_that_is_written_out_is_no_default(checkpoint):
    """Of a datamodule the usual value cannot be told from one that is given, but by what was typed."""
    data = Namespace(class_path="anomalib_medical.MedicalFolder", init_args=Namespace(axis="axial", window=None))
    options = Namespace(data=data, model=Namespace(init_args=Namespace()))
    trained = AsTrained(checkpoint, {"reading": {"axis": "coronal"}}, {})
    trained.settle_reading(options)
    assert data.init_args.axis == "coronal"
    data.init_args.axis, trained.given = "axial", given_arguments(["--data.init_args.axis", "axial"])
    with pytest.raises(MedicalError, match=r"axis coronal, and --data\.axis is axial"):
        trained.settle_reading(options)


def test_what_is_typed_and_what_files_say_are_given(here):
    (here / "all.yaml").write_text("data:\n  class_path: A\n  init_args: {b: 1, c: 2}\nckpt_path: x\nmodel: M\n")
    (here / "data.yml").write_text("class_path: B\ninit_args: {b: 3}\n")
    assert given_arguments(["--config", "all.yaml", "--data=data.yml", "--data.init_args.c=4", "--model", "N"]) == {
        "data.class_path": "B",
        "data.b": 3,
        "data.c": "4",
        "ckpt_path": "x",
        "model.class_path": "N",
    }
    assert given_arguments(["--config", "none.yaml", "-c", "data.yml"]) == {"class_path": "B", "init_args": {"b": 3}}


def test_trainings_and_commands_without_a_checkpoint_are_left_alone(checkpoint):
    assert AsTrained.of(["train", f"--ckpt_path={checkpoint}"]) is None
    assert AsTrained.of(["test", "--model=Scrd"]) is None
    assert AsTrained.of([]) is None


@pytest.mark.parametrize("command", ["train", "fit", "test", "validate"])
def test_a_command_that_needs_data_says_so(command, capsys):
    assert f"`{command}` needs data: give --data MedicalFolder" in fail(
        capsys, command, "--model=anomalib_medical.Scrd"
    )


def test_checkpoints_say_how_images_were_read():
    model = SimpleNamespace(_trainer=SimpleNamespace(datamodule=SimpleNamespace(reading={"window": None})))
    content = {}
    describe(content, model)
    assert content["reading"] == {"window": None}
