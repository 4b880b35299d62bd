"""Series and patients beside the predictions: from the data's table, or from what the files say."""

import csv
import logging
from types import SimpleNamespace

import numpy as np
import pytest
from pandas import DataFrame

from anomalib_medical.callbacks.predictions_file import PartialFile, Prediction, rename_complete
from anomalib_medical.callbacks.series_csv import write_series
from anomalib_medical.data.privacy import PatientHasher
from anomalib_medical.edge.manifest import Calibration, PostProcessing
from tests.helpers.dicom_files import PLACE, write_dicom
from tests.helpers.nifti_files import VOLUME, save_nifti

FACTS = PostProcessing(
    "softsign", series=Calibration(0.5, 0.1, 0.7, 0.5), patient=Calibration(0.8, 0.1, 0.9, 0.5), series_top=2
)


def write(folder, scores, datasets=(), facts=FACTS, stem="predictions"):
    partial = PartialFile.first_free(folder)
    partial.write(Prediction(path, str(score), "", "", "", "") for path, score in scores.items())
    partial.close()
    target = rename_complete(partial.path, folder / f"{stem}.csv")
    write_series(target, datasets, facts, PatientHasher(folder))


def rows_of(folder, stem):
    with (folder / f"{stem}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_series_of_the_data_s_table(tmp_path):
    samples = DataFrame(
        [("a0.png", "a", "Doe"), ("a1.png", "a", "Doe"), ("b.png", "b", "Doe"), ("c.png", "", "c.png")],
        columns=["image_path", "series_id", "patient_id"],
    )
    scores = {"a0.png": 0.9, "a1.png": 0.3, "b.png": 0.2, "c.png": 7.0}
    write(tmp_path, scores, [SimpleNamespace(samples=samples)])
    first, second = rows_of(tmp_path, "series")
    assert float(first["raw_score"]) == pytest.approx(0.6)  # the mean of the two highest
    assert [row["label"] for row in (first, second)] == ["abnormal", "normal"]
    assert (first["slices"], first["worst"], first["patient"]) == ("2", "a0.png", second["patient"])
    (patient,) = rows_of(tmp_path, "patients")
    assert patient["patient"] == PatientHasher(tmp_path).hash("Doe")
    assert (patient["label"], patient["threshold"], patient["series"]) == ("normal", "0.8", "2")


def test_series_of_files_are_told_by_their_headers(tmp_path):
    scores = {}
    for index, place in enumerate([4.0, 0.0, 2.0]):
        tags = {"ImagePositionPatient": [0, 0, place], "SOPInstanceUID": f"1.2.{index}", "PatientID": "4711"}
        path = write_dicom(tmp_path / "in" / f"DOE{index}.dcm", np.zeros((4, 4), np.uint8), **PLACE | tags)
        scores[str(path)] = 0.1 * (index + 1)
    volume = save_nifti(tmp_path / "in" / "head.nii", VOLUME)
    scores |= {f"{volume}#axial={index}": 0.6 for index in range(6)}
    scores["plain.png"] = 5.0
    write(tmp_path, scores)
    series, of_volume = rows_of(tmp_path, "series")
    assert series["worst"].endswith("DOE2.dcm")
    assert (series["slices"], of_volume["slices"]) == ("3", "6")
    text = (tmp_path / "series.csv").read_text() + (tmp_path / "patients.csv").read_text()
    assert "4711" not in text
    assert len(rows_of(tmp_path, "patients")) == 2


def test_without_a_threshold_the_label_is_empty_and_a_line_says_why(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    volume = save_nifti(tmp_path / "DOE_JANE.nii", VOLUME)
    write(tmp_path, {f"{volume}#axial=0": 0.6}, facts=PostProcessing("softsign"))
    assert rows_of(tmp_path, "series")[0]["label"] == ""
    assert caplog.text.count("No label for series and patients") == 1
    assert "DOE_JANE" not in caplog.text


def test_pictures_alone_have_no_tables(tmp_path):
    write(tmp_path, {"a.png": 0.5})
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def test_tables_have_the_number_of_their_predictions(tmp_path):
    volume = save_nifti(tmp_path / "a.nii", VOLUME)
    write(tmp_path, {f"{volume}#axial=0": 0.6, f"{volume}#axial=1": float("nan")}, stem="predictions_3")
    assert rows_of(tmp_path, "series_3")[0]["slices"] == "1"
    assert (tmp_path / "patients_3.csv").exists()
    assert not (tmp_path / "series_3.jsonl").exists()
