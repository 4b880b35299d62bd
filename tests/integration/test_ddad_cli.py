"""DDAD from the command line, in an empty folder."""

import csv

import pytest
from anomalib.cli.cli import AnomalibCLI

from anomalib_medical.cli import main as cli
from tests.conftest import LAYOUT, make_folder
from tests.helpers.commands import fail, succeed

MODEL = ["--model", "anomalib_medical.Ddad", "--model.image_size", "16", "--model.members", "2"]
DATA = ["--data", "anomalib_medical.MedicalFolder", "--data.train_batch_size", "4", "--data.num_workers", "0"]
CPU = ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
CSV = "--trainer.callbacks+=anomalib_medical.callbacks.PredictionsCSV"


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    """A labelled folder, and a pool outside of it."""
    folder = tmp_path_factory.mktemp("data")
    root = make_folder(folder / "labelled", layout=LAYOUT)
    make_folder(folder / "elsewhere", layout={"pool": 9}, size=48)
    return root, folder / "elsewhere" / "pool"


def test_train_test_predict_and_export_as_the_readme_says(pools, tmp_path, monkeypatch):
    root, pool = pools
    monkeypatch.chdir(tmp_path)
    shown = succeed(
        "anomalib", "train", *MODEL, *DATA, "--data.root", root, "--data.unlabeled_dir", pool, *CPU,
        "--trainer.max_epochs", "2", CSV, cwd=tmp_path,
    )  # fmt: skip
    assert "9 unlabeled images" in " ".join(shown.split())
    for module in ("train_loss_a", "train_loss_b"):
        assert module in shown
    run = tmp_path / "results" / "Ddad" / "labelled" / "v0"
    rows = list(csv.DictReader((run / "predictions.csv").open(encoding="utf-8")))
    assert len(rows) == 8
    assert all(float(row["uncertainty"]) > 0 for row in rows)
    checkpoint = run / "weights" / "lightning" / "model.ckpt"

    # In this process: a fresh one, as the training had, spends most of its time on imports.
    options = ["--ckpt_path", checkpoint, "--data", root / "test", "--default_root_dir", "predicted", *CPU]
    cli.main(["predict", *map(str, [*MODEL, *options])])
    assert len(list((tmp_path / "predicted").rglob("uncertainty/**/*.png"))) == 8
    options = ["--ckpt_path", checkpoint, "--export_type", "openvino", "--export_root", "exported"]
    AnomalibCLI(["export", *map(str, [*MODEL, *options])])
    assert list((tmp_path / "exported").rglob("model.xml"))


@pytest.mark.usefixtures("here")
def test_without_a_pool_one_line_says_what_to_do(pools, capsys):
    error = fail(capsys, "train", *MODEL, *DATA, "--data.root", pools[0], *CPU, "--trainer.max_epochs", "1")
    assert "has no unlabeled ones" in error
    assert "--data.unlabeled_dir" in error
    assert "--model.score intra" in error


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model.image_size", "50"], "image_size: got 50, expected multiples of 16"),
        (["--model.members", "1", "--model.score", "intra"], "members: got 1, expected at least 2"),
        (["--model.refinement_epochs", "0"], "refinement_epochs: got 0"),
    ],
)
def test_bad_arguments_are_told_in_one_line(pools, capsys, arguments, told):
    error = fail(capsys, "fit", *MODEL, *arguments, *DATA, "--data.root", pools[0], *CPU)
    assert error.startswith(f"error: {told}")
    assert "Given value" not in error


@pytest.mark.usefixtures("here")
def test_a_pool_with_test_images_is_refused_with_the_files_named(pools, capsys):
    root, _ = pools
    error = fail(
        capsys, "fit", *MODEL, *DATA, "--data.root", root, "--data.unlabeled_dir", root / "test" / "good", *CPU
    )
    assert "test_good_000.png" in error
