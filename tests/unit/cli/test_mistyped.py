"""Commands as somebody types them who meets the program for the first time."""

import pytest

from anomalib_medical.cli.mistyped import check_typed
from tests.helpers.commands import fail

TRAIN = ["train", "--model=Scrd"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "--model", "Scrdd"], "--model is 'Scrdd', which is unknown. Did you mean 'Scrd'?"),
        (["fit", "--model=patchcore"], "Did you mean 'Patchcore'?"),
        (
            [*TRAIN, "--data", "MedicalFoldr"],
            "--data is 'MedicalFoldr', which is unknown. Did you mean 'MedicalFolder'?",
        ),
        ([*TRAIN, "--data", "my_images"], "give --data MedicalFolder --data.root my_images."),
        ([*TRAIN, "--data=./my_images"], "give --data MedicalFolder --data.root ./my_images."),
        ([*TRAIN, "--data.root=my_images"], "--data.root is an argument of a data set, and none is named"),
        (["train"], "`train` needs a model: give --model Scrd, or another."),
        (["test"], "`test` needs a trained model: give --ckpt_path model.ckpt."),
        (["predict", "--data=my_images"], "`predict` needs a trained model: give --ckpt_path model.ckpt."),
        (
            ["export", "--model=Scrd", "--model.pre_trained=false", "--export_type=onx"],
            "expected onnx, openvino or torch",
        ),
    ],
)
def test_what_is_wrong_is_one_line_with_the_way_out(arguments, told, here, capsys):
    (here / "my_images").mkdir()
    assert told in fail(capsys, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["install"],
        ["train", "--help", "-vv"],
        ["train", "--model.help", "Scrd"],
        ["train", "--data.help", "MedicalFolder"],
        ["train", "--config=missing.yaml"],
        ["train", "--print_config"],
        ["train", "--model=missing.yaml", "--data=missing.yaml"],
        ["train", "--model={class_path: Scrd}", "--data={class_path: Phantom}"],
        ["train", "--model=package.Own", "--data=Phantom"],
        ["train", "--model.class_path=Scrd", "--data.class_path=Phantom", "--data.root=x"],
        ["predict", "--ckpt_path=model.ckpt", "--data=Phantom"],
    ],
    ids=" ".join,
)
def test_what_may_be_right_is_left_to_the_parser(arguments, here):
    (here / "Phantom").mkdir()
    check_typed(arguments)
