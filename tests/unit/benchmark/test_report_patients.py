"""What the report says of patients and of series: the highest image of each, drawn by patient, with counts."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from anomalib_medical.benchmark.publish import publish
from anomalib_medical.benchmark.report import report_predictions
from anomalib_medical.benchmark.report.compare import by_patient, wholes
from anomalib_medical.benchmark.report.predictions import load_predictions
from anomalib_medical.benchmark.report.results import load_run
from anomalib_medical.callbacks.predictions_file import Prediction
from anomalib_medical.metrics import image_auroc
from tests.helpers.run_folders import make_run

# Twelve patients of two series of three images; every other patient has one abnormal image, in the first series.
N_PATIENTS = 12


def table(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    patients, series = np.repeat(np.arange(N_PATIENTS), 6), np.repeat(np.arange(2 * N_PATIENTS), 3)
    abnormal = (patients % 2 == 1) & (np.arange(6 * N_PATIENTS) % 6 == 1)
    return pd.DataFrame(
        {
            "patient": [f"p{each:02}" for each in patients],
            "series": [f"s{each:02}" for each in series],
            "label": abnormal,
            "score": rng.normal(size=len(patients)) + 1.5 * abnormal,
        }
    )


def made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def write(folder: Path, images: pd.DataFrame, **changed: str) -> Path:
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, Prediction._fields)
        writer.writeheader()
        for number, image in enumerate(images.itertuples()):
            row = {"path": f"{number}.png", "raw_score": image.score, "threshold": 1, "patient": image.patient}
            row |= {"gt_label": "abnormal" if image.label else "normal", "series": image.series}
            writer.writerow(row | changed)
    return folder / "predictions.csv"


def test_figures_are_those_of_the_highest_image_and_the_unit_that_is_drawn_is_the_patient(tmp_path):
    images = table()
    report = report_predictions([str(write(tmp_path, images))])
    metrics = pd.read_csv(report.page.with_name("metrics.csv")).set_index("metric")
    highest = images.groupby("patient").agg(score=("score", "max"), label=("label", "max"))
    row = metrics.loc["patient_max.image_auroc"]
    assert row.value == pytest.approx(roc_auc_score(highest.label, highest.score))
    assert (row.n_images, row.n_patients) == (12, 12)
    of_series = images.groupby("series").agg(score=("score", "max"), label=("label", "max"), patient=("patient", "min"))
    row = metrics.loc["series_max.image_auroc"]
    assert row.value == pytest.approx(roc_auc_score(of_series.label, of_series.score))
    assert (row.n_images, row.n_patients) == (24, 12)
    expected = image_auroc(of_series.score, of_series.label, patients=list(of_series.patient))
    assert (row.low, row.high) == pytest.approx((expected.low, expected.high))
    independent = image_auroc(of_series.score, of_series.label)
    assert (row.low, row.high) != pytest.approx((independent.low, independent.high))


def test_they_stand_beside_those_of_images_with_their_counts_in_all_forms(tmp_path):
    page = report_predictions([f"mine={write(tmp_path, table())}"]).page
    metrics = pd.read_csv(page.with_name("metrics.csv")).set_index("metric").value
    image, patient, series = (metrics[f"{key}image_auroc"] for key in ("", "patient_max.", "series_max."))
    markdown, latex = (page.with_name(name).read_text() for name in ("report.md", "tables.tex"))
    summary = next(line for line in markdown.splitlines() if line.startswith("| **mine** |"))
    figures = [f"{figure:.3f}" for figure in (image, patient, series)]
    assert [cell.split()[0] for cell in summary.split("|")[2:5]] == figures
    assert "| model | AUROC | patient AUROC | series AUROC | against" in markdown
    assert f"| mine | patients | highest image | 6 | 6 | {figures[1]}" in markdown
    assert f"| mine | series | highest image | 18 | 6 | {figures[2]}" in markdown
    assert "### By patient and series" in markdown
    assert "Abnormal is a patient, or a series, with at least one abnormal image, whatever the others are." in markdown
    assert f"mine & patients & highest image & 6 & 6 & {figures[1]}" in latex
    html = page.read_text()
    assert '<th scope="col">series AUROC</th>' in html
    assert "<h3>By patient and series</h3>" in html


def test_where_every_patient_has_one_image_nothing_is_added(tmp_path):
    images = table().drop_duplicates("patient").assign(label=lambda rows: rows.patient.str[-1].isin(list("13579")))
    page = report_predictions([str(write(tmp_path, images))]).page
    assert not pd.read_csv(page.with_name("metrics.csv")).metric.str.contains("patient|series").any()
    assert "patient AUROC" not in page.read_text()
    assert "By patient" not in page.read_text()


def test_series_of_unknown_patients_are_drawn_themselves(tmp_path):
    (model,) = load_predictions([str(write(tmp_path, table(), patient=""))]).datasets[0].models
    assert wholes(model).keys() == {"series_max"}
    assert by_patient(model)["series_max.image_auroc"].estimate.n_patients == 24


def test_trainings_whose_hashes_have_other_salts_are_put_together_by_their_images(tmp_path):
    def values(**names):
        second = table(seed=1)
        second = second.assign(**{name: other.loc[second.index] for name, other in names.items()})
        files = [write(made(tmp_path / name), images) for name, images in (("a", table()), ("b", second))]
        (model,) = load_predictions([f"mine={file}" for file in files]).datasets[0].models
        return by_patient(model)

    turned = {name: table()[name].map(lambda text: f"x{99 - int(text[1:])}") for name in ("patient", "series")}
    assert values(**turned) == values()


def test_a_file_of_before_has_no_series(tmp_path):
    file = write(tmp_path, table())
    pd.read_csv(file).drop(columns=["series", "uncertainty"]).to_csv(file, index=False)
    (model,) = load_predictions([str(file)]).datasets[0].models
    assert wholes(model).keys() == {"patient_max", "patient_mean", "patient_top_k"}


def test_a_benchmark_and_its_published_copy_have_them_too(tmp_path):
    run = make_run(tmp_path / "run")
    for name in (name for name, job in run.jobs().items() if job.status.status == "done"):
        scores = run.job(name).scores()
        # Two images a patient; those of the first patients are of two series.
        hashes = [f"image {place}" if place < 20 else f"patient {place // 2}" for place in range(len(scores))]
        run.job(name).write_scores(scores.assign(series_hash=hashes))
    model = load_run(run).datasets[0].models[0]
    value = by_patient(model)["series_max.image_auroc"]
    expected = []
    for training in model.trainings:
        groups = training.test.groupby("series_hash")
        expected.append(roc_auc_score(groups.label.max(), groups.raw_score.max()))
    assert value.trainings == pytest.approx(expected)
    assert value.estimate.value == pytest.approx(np.mean(expected))
    assert value.estimate.n_patients == 30 < value.estimate.n_images < 60
    copy = load_run(publish(run, tmp_path / "copy")).datasets[0].models[0]
    assert by_patient(copy)["series_max.image_auroc"] == value
