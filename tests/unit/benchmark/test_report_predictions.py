"""The report on files of predictions: figures equal to the metrics, who is wrong, and what cannot be reported."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from anomalib_medical.benchmark.files import RunFolderError
from anomalib_medical.benchmark.report import report_predictions
from anomalib_medical.benchmark.report.predictions import load_predictions
from anomalib_medical.callbacks.predictions_file import Prediction
from anomalib_medical.cli.main import main

# Two images a patient; at the threshold of 1 the patient p3 is missed and p0 is a false alarm.
SCORES = {"p0": (0.2, 1.5), "p1": (0.1, 0.3), "p2": (0.4, 0.2), "p3": (0.9, 0.7), "p4": (2.0, 0.8), "p5": (3.0, 2.5)}
ABNORMAL = {"p3", "p4", "p5"}


def write(folder: Path, name: str = "predictions.csv", shift: float = 0.0, **changed: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w", newline="") as file:
        table = csv.DictWriter(file, Prediction._fields)
        table.writeheader()
        for patient, scores in SCORES.items():
            for number, score in enumerate(scores):
                label = "abnormal" if patient in ABNORMAL else "normal"
                row = {"path": f"/data/test/{label}/{patient}_{number}.png", "raw_score": score + shift}
                row |= {"label": "", "threshold": 1, "gt_label": label, "patient": patient}
                table.writerow(row | changed)
    return folder / name


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "Scrd" / "latest")


def test_figures_are_those_of_the_scores(file: Path) -> None:
    report = report_predictions([str(file)])
    assert report.page == file.parent / "report" / "index.html"
    table = pd.read_csv(file.parent / "report" / "metrics.csv").set_index("metric")
    labels = [int(patient in ABNORMAL) for patient in SCORES for _ in range(2)]
    expected = roc_auc_score(labels, [score for scores in SCORES.values() for score in scores])
    assert table.value["image_auroc"] == pytest.approx(expected)
    assert table.n_patients["image_auroc"] == 6
    assert table.low["image_auroc"] < table.value["image_auroc"]
    # Of 6 abnormal images 3 are above 1, of 6 normal ones 5 are not.
    assert (table.value["sensitivity"], table.value["specificity"]) == pytest.approx((3 / 6, 5 / 6))
    assert table.value["patient_max.image_auroc"] == pytest.approx(8 / 9)
    text = (file.parent / "report" / "report.md").read_text()
    assert "that test images had no part in it is for you to know" in text
    assert "The threshold was set without test images" not in text
    assert "6 normal and 6 abnormal images; 6 patients." in text


def test_patients_that_are_wrong_are_listed_with_their_pictures(file: Path) -> None:
    # The heatmap of another image of that name is less like it.
    for number, folder in enumerate(("abnormal", "other/abnormal/x", "abnormal/x")):
        picture = file.parent / "images" / folder / "p3_0.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + number, 8)).save(picture)
    report_predictions([str(file)])
    wrong = pd.read_csv(file.parent / "report" / "wrong.csv")
    found = list(
        wrong[["patient", "outcome", "images", "wrong_images", "raw_score"]].itertuples(index=False, name=None)
    )
    assert found == [("p3", "missed", 2, 2, 0.9), ("p0", "false alarm", 2, 1, 1.5)]
    assert list(wrong.image) == ["/data/test/abnormal/p3_0.png", "/data/test/normal/p0_1.png"]
    (model,) = load_predictions([str(file)]).datasets[0].models
    (entry,) = model.first.job.gallery
    assert Path(entry.file) == (file.parent / "images" / "abnormal" / "p3_0.png").absolute()
    assert "data:image/jpeg;base64," in (file.parent / "report" / "index.html").read_text()


def test_images_stand_for_themselves_where_patients_are_unknown(tmp_path: Path) -> None:
    report_predictions([str(write(tmp_path, patient=""))])
    wrong = pd.read_csv(tmp_path / "report" / "wrong.csv")
    assert sorted(Path(path).stem for path in wrong.image) == ["p0_1", "p3_0", "p3_1", "p4_1"]


def test_of_many_wrong_images_the_report_shows_the_worst(tmp_path: Path) -> None:
    file = write(tmp_path, patient="")
    table = pd.concat([pd.read_csv(file)] * 10, ignore_index=True)
    table["path"] = [f"/data/{number}.png" for number in range(len(table))]
    table["raw_score"] += np.arange(len(table)) / 1000
    table.to_csv(file, index=False)
    report_predictions([str(file)])
    wrong = pd.read_csv(tmp_path / "report" / "wrong.csv")
    assert wrong.outcome.value_counts().to_dict() == {"missed": 28, "false alarm": 10}
    text = (tmp_path / "report" / "report.md").read_text()
    shown = wrong[wrong.outcome == "missed"].image.head(10)
    assert text.count("| missed |") == text.count("| false alarm |") == 10
    assert all(f"| {image} |" in text for image in shown)
    assert "18 more are in wrong.csv" in text


def test_models_are_compared_and_trainings_of_one_name_averaged(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a" / "v1"), write(tmp_path / "b" / "v1", "predictions_1.csv", 0.5)
    run = load_predictions([str(first), str(second)])
    assert [model.name for model in run.datasets[0].models] == ["a/v1", "b/v1/predictions_1"]
    run = load_predictions([f"mine={first}", f"mine={second}", f"other={second}"])
    assert [(model.name, len(model.trainings)) for model in run.datasets[0].models] == [("mine", 2), ("other", 1)]
    report_predictions([f"mine={first}", f"other={second}"], tmp_path / "out")
    assert "against the best" in (tmp_path / "out" / "report.md").read_text()


def test_nothing_is_overwritten(file: Path) -> None:
    (file.parent / "report").mkdir()
    assert report_predictions([str(file)]).page.parent.name == "report_1"
    assert not any((file.parent / "report").iterdir())


def test_tables_are_latex(file: Path) -> None:
    report_predictions([f"50%_of_{{it}}={file}"])
    text = (file.parent / "report" / "tables.tex").read_text()
    assert r"50\%\_of\_\{it\} & 0." in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") > 3
    for tabular in text.split(r"\begin{tabular}{")[1:]:
        columns = tabular.index("}")
        rows = [line for line in tabular.splitlines() if line.endswith(r"\\")]
        assert {line.count(" & ") for line in rows} == {columns - 1}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gt_label": ""}, "has no image with a score and a true label"),
        ({"raw_score": "nan"}, "has no image with a score and a true label"),
    ],
)
def test_what_cannot_be_reported_is_said(tmp_path: Path, changed: dict[str, str], message: str) -> None:
    with pytest.raises(RunFolderError, match=message):
        report_predictions([str(write(tmp_path, **changed))])
    assert not (tmp_path / "report").exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RunFolderError, match=r"x\.csv has the columns a, b, .* missing: path, raw_score, gt_label"):
        report_predictions([str(tmp_path / "x.csv")])
    with pytest.raises(RunFolderError, match="There is no file"):
        report_predictions([str(tmp_path / "nowhere.csv")])
    (tmp_path / "empty.csv").touch()
    with pytest.raises(RunFolderError, match="cannot be read as a table"):
        report_predictions([str(tmp_path / "empty.csv")])


def test_images_without_label_or_score_are_left_out_and_counted(file: Path) -> None:
    table = pd.read_csv(file, dtype=str)
    table.loc[0, "gt_label"], table.loc[1, "raw_score"] = np.nan, "inf"
    table.to_csv(file, index=False)
    run = load_predictions([str(file)])
    assert len(run.datasets[0].models[0].first.test) == 10
    assert [each.text for each in run.problems] == [
        "1 of 12 images without a true label is left out.",
        "1 of 12 images without a score is left out.",
    ]


def test_several_thresholds_are_none(file: Path) -> None:
    table = pd.read_csv(file, dtype=str)
    table.loc[0, "threshold"] = "7"
    table.to_csv(file, index=False)
    assert [each.what for each in load_predictions([str(file)]).problems] == ["several thresholds"]
    report_predictions([str(file)])
    assert (file.parent / "report" / "wrong.csv").read_text().strip() == ""


@pytest.mark.parametrize("arguments", [[], ["--run", "a", "--predictions", "b"], ["--run", "a", "--output", "b"]])
def test_one_of_the_two_is_asked_for(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["report", *arguments])
    assert "report takes one of the two" in capsys.readouterr().err


def test_the_command(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", "--predictions", f"mine={file}", "--output", str(file.parent / "here")])
    assert f"Report: {file.parent / 'here' / 'index.html'}" in capsys.readouterr().out
