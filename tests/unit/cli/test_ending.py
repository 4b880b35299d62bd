"""The last lines of a run, of runs that did not happen."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from jsonargparse import Namespace

from anomalib_medical import D24fad, Scrd
from anomalib_medical.callbacks import PredictionsCSV
from anomalib_medical.callbacks.predictions_file import PartialFile, Prediction, publish
from anomalib_medical.cli.ending import ending, measured, measured_beside
from anomalib_medical.metrics import image_auroc


def row(score, truth, patient="", series=""):
    return Prediction("a.png", str(score), "", "", "", truth, patient, "", series)


def test_the_metric_has_its_interval_and_its_counts():
    rows = [row(index, "abnormal" if index > 3 else "normal") for index in (0, 1, 5, 3, 4, 2, 6, 7)]
    rows[2] = row(2.5, "abnormal")
    expected = image_auroc([float(each.raw_score) for each in rows], [each.gt_label == "abnormal" for each in rows])
    assert measured(rows) == f"{expected} (8 images: 4 normal, 4 abnormal)"
    assert expected.has_interval


def test_patients_are_what_is_drawn_and_images_without_a_score_are_told():
    rows = [row(n, "abnormal" if n % 2 else "normal", f"p{n // 4}") for n in range(16)]
    rows += [row("nan", "normal", "p9"), row(3, "", "p9")]
    patients = [f"p{n // 4}" for n in range(16)]
    expected = image_auroc(range(16), [n % 2 for n in range(16)], patients=patients)
    counts = "16 images: 8 normal, 8 abnormal, of 4 patients; 2 without a score or a label"
    assert measured(rows) == f"{expected} ({counts})"


def test_the_interval_does_not_depend_on_how_patients_are_named():
    scores = [(n * 7) % 24 for n in range(24)]
    said = {
        measured([row(s, "abnormal" if n % 3 else "normal", f"{(n // 3) * sign % 11}") for n, s in enumerate(scores)])
        for sign in (1, -1)
    }
    assert len(said) == 1


def of_series():
    """Six patients, three with an abnormal slice in the first of two series of three slices."""
    return [
        row((n * 7) % 36 + 30 * (n % 12 == 1), "abnormal" if n % 12 == 1 else "normal", f"p{n // 6}", f"s{n // 3}")
        for n in range(36)
    ]


@pytest.mark.parametrize("top", [1, 2])
def test_patients_and_series_are_measured_as_their_tables_score_them(top):
    rows = of_series()
    series = [
        (rows[n].patient, sorted((float(each.raw_score) for each in rows[n : n + 3]), reverse=True)[:top])
        for n in range(0, 36, 3)
    ]
    series = [(patient, sum(highest) / top) for patient, highest in series]
    patients = [max(score for name, score in series if name == f"p{number}") for number in range(6)]
    said = measured_beside(rows, top)
    expected = image_auroc(patients, [1, 0] * 3)
    assert said["Patient AUROC"] == f"{expected} (3 normal, 3 with an abnormal image)"
    expected = image_auroc([score for _, score in series], [1, 0, 0, 0] * 3, patients=[name for name, _ in series])
    assert said["Series AUROC"] == f"{expected} (9 normal, 3 with an abnormal image)"


def test_single_images_and_one_class_have_no_more_to_say():
    assert measured_beside([row(n, "normal" if n else "abnormal", f"p{n}") for n in range(4)]) == {}
    assert measured_beside([row(n, "abnormal" if n % 2 else "normal", f"p{n // 2}") for n in range(8)]) == {}


@pytest.mark.parametrize("rows", [[], [row(1, "normal"), row(2, "normal")], [row("nan", "abnormal")]])
def test_without_a_value_the_reason_is_told(rows):
    assert measured(rows).startswith("none (")
    assert "0 abnormal): " in measured(rows) or "1 without a score" in measured(rows)


@pytest.fixture
def run(here):
    """The folder of a run, with a space in its name, and the writer of its scores."""
    folder = here / "my results" / "v0"
    (folder / "images").mkdir(parents=True)
    torch.save({"state_dict": {}, "model_class": "Scrd", "reading": {"window": "lung"}}, folder / "model.ckpt")
    (folder / "config.yaml").touch()
    partial = PartialFile.first_free(folder)
    partial.write([row(0, "normal"), row(1, "abnormal"), row(2, "abnormal"), row(0, "normal")])
    partial.close()
    writer = PredictionsCSV()
    writer.path, writer.heatmaps = publish(partial.path), folder / "images"
    return folder, writer


def command(run, subcommand, model=None, first=True, **data):
    folder, writer = run
    checkpoint = str(folder / "model.ckpt")
    trainer = SimpleNamespace(
        is_global_zero=first,
        callbacks=[writer],
        default_root_dir=folder,
        checkpoint_callback=SimpleNamespace(best_model_path=checkpoint),
    )
    model = model or Scrd(backbone="resnet18", pre_trained=False)
    options = Namespace(ckpt_path=checkpoint, data=Namespace(class_path="MedicalFolder", init_args=Namespace(**data)))
    return SimpleNamespace(
        subcommand=subcommand,
        engine=SimpleNamespace(trainer=trainer),
        model=model,
        exported=None,
        config={subcommand: options},
    )


def lines(text):
    return dict(line.split(maxsplit=1) for line in text.replace("Image AUROC", "AUROC").splitlines())


@pytest.mark.parametrize("subcommand", ["train", "test"])
def test_five_lines_end_a_run(subcommand, run):
    said = lines(ending(command(run, subcommand)))
    assert list(said) == ["AUROC", "Scores", "Heatmaps", "Checkpoint", "Next"]
    assert said["AUROC"].startswith("1.000 [")
    assert all(Path(said[name]).exists() for name in ("Scores", "Heatmaps", "Checkpoint"))
    words = shlex.split(said["Next"])
    assert words[:2] == ["anomalib-medical", "bundle"]
    assert words[2:] == ["--ckpt_path", "my results/v0/model.ckpt", "--output", "my results/v0/bundle"]


def test_the_next_command_reads_as_the_run_did_and_takes_a_new_folder(run):
    (run[0] / "bundle").mkdir()
    cli = command(run, "train", window=(40, 80), axis="axial", slice_range=[0.2, 0.8])
    words = shlex.split(lines(ending(cli))["Next"])
    assert words[5:] == ["my results/v0/bundle_1", "--window", "[40,80]", "--slice_range", "[0.2,0.8]"]


def test_what_the_checkpoint_says_is_not_repeated(run):
    assert "--window" not in ending(command(run, "train", window="lung", axis="axial"))
    torch.save({"state_dict": {}}, run[0] / "model.ckpt")
    assert ending(command(run, "train", window="lung")).endswith("--model Scrd --window lung")


def test_a_fit_is_followed_by_its_test(run):
    said = lines(ending(command(run, "fit")))
    assert list(said) == ["Checkpoint", "Next"]
    words = shlex.split(said["Next"])
    assert words[1:4] == ["test", "--config", "my results/v0/config.yaml"]


def test_a_few_shot_model_without_a_support_is_given_one_next(run):
    model = D24fad(backbone="resnet18", image_size=64, pre_trained=False)
    assert "anomalib-medical retarget --ckpt_path" in ending(command(run, "train", model))


def test_an_export_says_where_it_is(run):
    cli = command(run, "export")
    cli.exported = Path("exported/weights/openvino/model.xml").absolute()
    assert ending(cli) == "Exported  exported/weights/openvino/model.xml"


@pytest.mark.parametrize(("subcommand", "first"), [("export", True), ("train", False)])
def test_other_commands_and_other_processes_say_nothing(subcommand, first, run):
    assert ending(command(run, subcommand, first=first)) == ""
